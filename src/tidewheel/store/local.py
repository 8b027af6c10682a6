"""The store as a folder of this machine, or of a file system that all machines share."""

from __future__ import annotations

import os
import shutil
import tempfile
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

from tidewheel.contracts.base import digest_of
from tidewheel.errors import ConfigError, ContractError
from tidewheel.store.disk import room_in, settle
from tidewheel.store.store import ABANDONED_SECONDS, MANIFEST, Listing, M, Store, sealed, sha256_of
from tidewheel.store.verification import Verification

EVERY_DIGEST = Verification(is_full=True)


class LocalStore(Store):
    """Folders and records appear by one rename or link of what was written in `staging`, which lies beside them."""

    def __init__(self, root: Path, verification: Verification) -> None:
        self.root = root
        self.url = str(root)
        self.verification = verification
        self._staging = root / "staging"
        self._given: list[Path] = []

    @classmethod
    def at(cls, root: Path, verification: Verification) -> Self:
        try:
            (root / "staging").mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=root):
                pass
        except OSError as error:
            raise ConfigError(
                f"store {root}: cannot be written ({error.strerror}); choose another folder with --home"
            ) from error
        return cls(root, verification)

    def staging(self, kind: str) -> Path:
        with room_in(self.root):
            self._given.append(Path(tempfile.mkdtemp(prefix=f"{kind}-", dir=self._staging)))
        return self._given[-1]

    def abandon(self) -> None:
        for folder in self._given:
            shutil.rmtree(folder, ignore_errors=True)  # most are published and gone
        self._given.clear()

    def sweep(self, now: float, older_than_seconds: float = ABANDONED_SECONDS) -> int:
        swept = 0
        for path in self._staging.iterdir():
            with suppress(FileNotFoundError):  # published, or swept by another process
                if now - path.stat().st_mtime <= older_than_seconds:
                    continue
                if path.is_dir():
                    shutil.rmtree(path)
                else:
                    path.unlink()
                swept += 1
        return swept

    def publish(self, kind: str, folder: Path, manifest: M) -> tuple[str, M]:
        with room_in(self.root):
            manifest = sealed(folder, manifest)
            digest = digest_of(manifest)
            manifest.write(folder / MANIFEST)
            self.adopt(kind, digest, folder)
        return digest, manifest

    def adopt(self, kind: str, digest: str, folder: Path) -> Path:
        """Put a folder of `staging` that holds its manifest already into place; returns where it lies."""
        target = self.folder(kind, digest)
        settle(folder, target, lambda found: self._is_whole(kind, digest), self._staging)
        return target

    def folder(self, kind: str, digest: str) -> Path:
        return self.root / kind / digest

    def location(self, kind: str) -> str:
        return str(self.root / kind)

    def fetch(self, kind: str, digest: str, *, full: bool = False) -> Path:
        folder = self.folder(kind, digest)
        try:
            text = (folder / MANIFEST).read_bytes()
        except OSError as error:
            raise ContractError(f"{folder / MANIFEST}: cannot be read ({error.strerror})") from error
        listing = Listing.of(text, digest, str(folder))
        check = EVERY_DIGEST if full else self.verification
        try:
            sizes = {entry.path: path.stat().st_size for entry in listing.files if (path := folder / entry.path).is_file()}
            fault = check.fault(listing.files, digest, sizes, lambda path: sha256_of(folder / path))
        except FileNotFoundError as error:
            raise ContractError(f"{folder}: was removed while it was read; run again") from error
        if fault:
            raise ContractError(f"{folder}: {fault}; restore it or run again")
        return folder

    def verify(self, kind: str, digest: str) -> None:
        self.fetch(kind, digest)

    def manifest(self, kind: str, digest: str) -> bytes | None:
        try:
            return (self.folder(kind, digest) / MANIFEST).read_bytes()
        except FileNotFoundError:
            return None

    def remove(self, kind: str, digest: str) -> None:
        folder = self.folder(kind, digest)
        (folder / MANIFEST).unlink(missing_ok=True)
        shutil.rmtree(folder, ignore_errors=True)

    def _is_whole(self, kind: str, digest: str) -> bool:
        try:
            self.fetch(kind, digest, full=True)
        except ContractError:
            return False
        return True

    def create(self, name: str, text: str) -> bool:
        partial = self._file_with(text, is_durable=True)
        try:
            os.link(partial, self._parent_made(name))  # fails where the name is taken, unlike rename
        except FileExistsError:
            return False
        finally:
            partial.unlink()
        return True

    def put(self, name: str, text: str) -> None:
        self._file_with(text, is_durable=False).replace(self._parent_made(name))

    def get(self, name: str) -> str | None:
        try:
            return (self.root / name).read_text(encoding="utf-8")
        except FileNotFoundError:
            return None

    def folders(self, prefix: str) -> list[str]:
        folder = self.root / prefix
        return sorted(path.name for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []

    def names(self, prefix: str) -> list[str]:
        folder = self.root / prefix
        if not folder.is_dir():
            return []
        return sorted(f"{prefix}/{path.name}" for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))

    def written(self, prefix: str) -> dict[str, datetime]:
        found = (path for path in (self.root / prefix).rglob("*") if path.is_file() and not path.name.startswith("."))
        return {path.relative_to(self.root).as_posix(): datetime.fromtimestamp(path.stat().st_mtime, UTC) for path in found}

    def _file_with(self, text: str, *, is_durable: bool) -> Path:
        """A file of `staging` with this text, on the disk itself where it must outlive a power cut."""
        handle, name = tempfile.mkstemp(dir=self._staging, prefix="record-")
        try:
            with room_in(self.root), os.fdopen(handle, "w", encoding="utf-8") as stream:
                stream.write(text)
                stream.flush()
                if is_durable:
                    os.fsync(stream.fileno())
        except BaseException:
            os.unlink(name)
            raise
        return Path(name)

    def _parent_made(self, name: str) -> Path:
        with room_in(self.root):
            (self.root / name).parent.mkdir(parents=True, exist_ok=True)
        return self.root / name
