"""Immutable folders named by the digest of their content, and small records that are created exactly once."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from pathlib import Path
from typing import Protocol, Self, TypeVar

from pydantic import ConfigDict

from tidewheel.contracts.base import Contract, digest_of
from tidewheel.contracts.dataset import FileEntry
from tidewheel.errors import ConfigError, ContractError

MANIFEST = "manifest.json"
ABANDONED_SECONDS = 24 * 3600.0  # no step works longer on one folder without writing to it


class FolderManifest(Protocol):
    """A contract that describes a folder: it lists the folder's files."""

    @property
    def files(self) -> tuple[FileEntry, ...]: ...

    def model_copy(self, *, update: dict[str, object]) -> Self: ...


M = TypeVar("M", bound=Contract)


class _Listing(Contract):
    """The files of any manifest."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    files: tuple[FileEntry, ...] = ()


def sha256_of(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


class Store:
    """A folder tree: `<kind>/<digest>/` are immutable folders, `<name>.json` elsewhere are records.

    A folder exists only once its `manifest.json` does, which is written last: whatever dies halfway leaves nothing that
    a reader would take for a folder.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    @classmethod
    def open(cls, url: str) -> Store:
        """Open the store at a local path (created if missing).

        Raises:
            ConfigError: the folder cannot be created or written, or the scheme is not supported.
        """
        if "://" in url and not url.startswith("file://"):
            raise ConfigError(f"store {url}: this scheme is not supported yet; expected a local folder")
        root = Path(url.removeprefix("file://")).absolute()
        try:
            root.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=root):
                pass
        except OSError as error:
            raise ConfigError(
                f"store {root}: cannot be written ({error.strerror}); choose another folder with --home"
            ) from error
        return cls(root)

    # --- folders ---

    def staging(self, kind: str) -> Path:
        """A fresh empty folder to build in; `publish` moves it into place. `sweep` removes what a killed step leaves."""
        (self.root / "staging").mkdir(exist_ok=True)
        return Path(tempfile.mkdtemp(prefix=f"{kind}-", dir=self.root / "staging"))

    def sweep(self, now: float, older_than_seconds: float = ABANDONED_SECONDS) -> int:
        """Remove staging folders that nobody has written to for so long; returns how many. `now`: seconds since the epoch."""
        abandoned = [
            folder for folder in (self.root / "staging").glob("*") if now - folder.stat().st_mtime > older_than_seconds
        ]
        for folder in abandoned:
            shutil.rmtree(folder, ignore_errors=True)
        return len(abandoned)

    def publish(self, kind: str, folder: Path, manifest: M) -> tuple[str, M]:
        """Make `folder` the immutable `<kind>/<digest>/`; returns the digest and the manifest with its files filled in.

        Idempotent: the same content published twice is stored once. `folder` must lie in this store's `staging`.
        """
        files = tuple(
            FileEntry(path=path.relative_to(folder).as_posix(), bytes=path.stat().st_size, sha256=sha256_of(path))
            for path in sorted(folder.rglob("*"))
            if path.is_file()
        )
        manifest = manifest.model_copy(update={"files": files})
        digest = digest_of(manifest)
        target = self.root / kind / digest
        if (target / MANIFEST).exists() and self._fault(target, manifest, full=False) is None:
            shutil.rmtree(folder)
            return digest, manifest
        if target.exists():  # damaged, or left by a process that died between the two writes below
            shutil.rmtree(target)
        target.parent.mkdir(parents=True, exist_ok=True)
        os.rename(folder, target)
        manifest.write(target / MANIFEST)
        return digest, manifest

    def folder(self, kind: str, digest: str) -> Path:
        """Where a folder lies (or would lie)."""
        return self.root / kind / digest

    def load(self, kind: str, digest: str, contract: type[M], *, full: bool = False) -> tuple[Path, M]:
        """The folder and its manifest, after checking that every file is there with its size (`full`: and its digest).

        Raises:
            ContractError: the folder is missing, incomplete or not what its digest promises.
        """
        folder = self.folder(kind, digest)
        manifest = contract.read(folder / MANIFEST)
        if digest_of(manifest) != digest:
            raise ContractError(
                f"{folder}: manifest.json does not match the digest in the folder's name; restore it or run again"
            )
        if fault := self._fault(folder, manifest, full=full):
            raise ContractError(f"{folder}: {fault}; restore it or run again")
        return folder, manifest

    def verify(self, kind: str, digest: str) -> None:
        """Check that every file a folder's manifest lists is there with its size, whatever its contract.

        Raises:
            ContractError: it is missing or incomplete.
        """
        folder = self.folder(kind, digest)
        listing = _Listing.read(folder / MANIFEST)
        if fault := self._fault(folder, listing, full=False):
            raise ContractError(f"{folder}: {fault}")

    @staticmethod
    def _fault(folder: Path, manifest: Contract, *, full: bool) -> str | None:
        files: tuple[FileEntry, ...] = getattr(manifest, "files", ())
        for entry in files:
            path = folder / entry.path
            if not path.is_file():
                return f"{entry.path} is missing"
            if path.stat().st_size != entry.bytes:
                return f"{entry.path} has {path.stat().st_size} bytes, expected {entry.bytes}"
            if full and sha256_of(path) != entry.sha256:
                return f"{entry.path} does not match its digest"
        return None

    # --- records ---

    def create(self, name: str, text: str) -> bool:
        """Write a record that nobody may overwrite. False when it exists already; readers never see half of it."""
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, partial = tempfile.mkstemp(dir=path.parent, prefix=".partial-")
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as stream:
                stream.write(text)
                stream.flush()
                os.fsync(stream.fileno())
            os.link(partial, path)  # fails where the name is taken, unlike rename
        except FileExistsError:
            return False
        finally:
            os.unlink(partial)
        return True

    def put(self, name: str, text: str) -> None:
        """Write or replace a record; readers see the old or the new text, never a mix."""
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f".partial-{os.getpid()}-{path.name}")
        partial.write_text(text, encoding="utf-8")
        partial.replace(path)

    def get(self, name: str) -> str | None:
        """A record's text, or None."""
        try:
            return (self.root / name).read_text(encoding="utf-8")
        except FileNotFoundError:
            return None

    def folders(self, prefix: str) -> list[str]:
        """Names of the folders directly in the folder `prefix`, sorted."""
        folder = self.root / prefix
        return sorted(path.name for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []

    def names(self, prefix: str) -> list[str]:
        """Names of the records directly in the folder `prefix`, sorted."""
        folder = self.root / prefix
        if not folder.is_dir():
            return []
        return sorted(f"{prefix}/{path.name}" for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))
