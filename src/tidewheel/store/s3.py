"""The store in an S3-compatible bucket, with copies on this machine of what is worked with."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path
from typing import Self, TypeVar

from tidewheel.contracts.base import canonical_json
from tidewheel.contracts.dataset import FileEntry
from tidewheel.errors import ConfigError, ContractError, RetryableError
from tidewheel.store.local import EVERY_DIGEST, LocalStore
from tidewheel.store.objects import Objects, Patience
from tidewheel.store.store import ABANDONED_SECONDS, MANIFEST, Listing, M, Store, sha256_of
from tidewheel.store.verification import Verification

T = TypeVar("T")

MARK = "store.json"  # every store has it; that it cannot be created twice shows that records cannot either
UPLOADING = "staging"  # one empty object for each folder that is being uploaded
STREAMS = 8


class S3Store(Store):
    """A folder's files are uploaded first and its manifest last; records are created by conditional puts.

    The store on this machine is a cache: its folders are found by digest, so they cannot be stale, and one that is
    damaged is copied again. A folder is believed to exist only while the bucket holds its manifest.
    """

    def __init__(self, objects: Objects, cache: LocalStore, verification: Verification) -> None:
        self.url = objects.url
        self.verification = verification
        self._objects = objects
        self._cache = cache

    @classmethod
    def at(cls, url: str, scratch: Path, verification: Verification, patience: Patience | None = None) -> Self:
        """The store at `url`, after a look whether it keeps what `create` promises.

        Raises:
            ConfigError: as `Store.open`; the store lets a conditional put overwrite.
            RetryableError: it does not answer.
        """
        if not url.removeprefix("s3://").partition("/")[0]:
            raise ConfigError(f"store {url}: names no bucket; expected s3://bucket/prefix")
        objects = Objects(url, patience or Patience())
        mark = canonical_json({"schema": "tidewheel/store/v1"}).encode()
        if objects.create(MARK, mark) and objects.create(MARK, mark):
            raise ConfigError(
                f"store {url}: overwrites an object despite If-None-Match, so two runs could decide at once; "
                "expected a store with conditional puts"
            )
        return cls(objects, LocalStore.at(scratch.absolute(), verification), verification)

    # --- folders ---

    def staging(self, kind: str) -> Path:
        return self._cache.staging(kind)

    def abandon(self) -> None:
        self._cache.abandon()

    def sweep(self, now: float, older_than_seconds: float = ABANDONED_SECONDS) -> int:
        swept = self._cache.sweep(now, older_than_seconds)
        for place, found in self._objects.below(UPLOADING).items():
            if now - found.modified.timestamp() <= older_than_seconds:
                continue
            if self._objects.read(f"{place}/{MANIFEST}") is None:
                self._empty(place)
            self._objects.remove(f"{UPLOADING}/{place}")
            swept += 1
        return swept

    def publish(self, kind: str, folder: Path, manifest: M) -> tuple[str, M]:
        digest, manifest = self._cache.publish(kind, folder, manifest)
        place, copy = f"{kind}/{digest}", self._cache.folder(kind, digest)
        files = Listing.of((copy / MANIFEST).read_bytes(), digest, str(copy)).files
        self._objects.write(f"{UPLOADING}/{place}", b"")
        # Uploaded even where a folder of this name is: its bytes are the same, unless it is damaged and this heals it.
        _at_once(lambda entry: self._objects.upload(copy / entry.path, f"{place}/{entry.path}"), files)
        sizes = self._sizes(place)
        if lost := next((entry.path for entry in files if sizes.get(entry.path) != entry.bytes), None):
            raise RetryableError(f"store {self.url}: {place}/{lost} is not there after its upload; run again")
        self._objects.write(f"{place}/{MANIFEST}", (copy / MANIFEST).read_bytes())
        self._objects.remove(f"{UPLOADING}/{place}")
        return digest, manifest

    def folder(self, kind: str, digest: str) -> Path:
        return self._cache.folder(kind, digest)

    def location(self, kind: str) -> str:
        return f"{self.url}/{kind}"

    def fetch(self, kind: str, digest: str, *, full: bool = False) -> Path:
        text, listing = self._manifest(kind, digest)
        try:
            return self._cache.fetch(kind, digest, full=full)
        except ContractError:  # not copied yet, or the copy is damaged
            return self._copied(kind, digest, text, listing)

    def verify(self, kind: str, digest: str) -> None:
        _, listing = self._manifest(kind, digest)
        place = f"{kind}/{digest}"
        sizes = self._sizes(place)
        fault = self.verification.fault(listing.files, digest, sizes, lambda path: self._sha256(f"{place}/{path}", sizes[path]))
        if fault:
            raise ContractError(f"{self.url}/{place}: {fault}; restore it or run again")

    def manifest(self, kind: str, digest: str) -> bytes | None:
        return self._objects.read(f"{kind}/{digest}/{MANIFEST}")

    def remove(self, kind: str, digest: str) -> None:
        place = f"{kind}/{digest}"
        self._objects.remove(f"{place}/{MANIFEST}")
        self._empty(place)
        self._cache.remove(kind, digest)

    def _empty(self, place: str) -> None:
        """Remove what lies in a folder, and the folder itself: some stores keep it and list it, others know of none."""
        _at_once(self._objects.remove, [f"{place}/{path}" for path in self._objects.below(place)])
        self._objects.remove(place)

    def _manifest(self, kind: str, digest: str) -> tuple[bytes, Listing]:
        place, text = f"{self.url}/{kind}/{digest}", self.manifest(kind, digest)
        if text is None:
            raise ContractError(f"{place}/{MANIFEST}: is missing; restore it or run again")
        return text, Listing.of(text, digest, place)

    def _sizes(self, place: str) -> dict[str, int]:
        return {path: found.bytes for path, found in self._objects.below(place).items()}

    def _copied(self, kind: str, digest: str, text: bytes, listing: Listing) -> Path:
        """Copy a folder here, check every byte of it, and only then let it be found."""
        place, copy = f"{kind}/{digest}", self._cache.staging("copy")

        def download(entry: FileEntry) -> None:
            self._objects.download(f"{place}/{entry.path}", copy / entry.path, entry.bytes)

        try:
            _at_once(download, listing.files)
            sizes = {entry.path: (copy / entry.path).stat().st_size for entry in listing.files}
            if fault := EVERY_DIGEST.fault(listing.files, digest, sizes, lambda path: sha256_of(copy / path)):
                raise ContractError(f"{self.url}/{place}: {fault}; restore it or run again")
            (copy / MANIFEST).write_bytes(text)
            return self._cache.adopt(kind, digest, copy)
        finally:
            shutil.rmtree(copy, ignore_errors=True)

    def _sha256(self, key: str, size: int) -> str:
        """Digest of the bytes that the bucket holds now."""
        folder = self._cache.staging("check")
        try:
            self._objects.download(key, folder / "file", size)
            return sha256_of(folder / "file")
        finally:
            shutil.rmtree(folder)

    # --- records ---

    def create(self, name: str, text: str) -> bool:
        return self._objects.create(name, text.encode())

    def put(self, name: str, text: str) -> None:
        self._objects.write(name, text.encode())

    def get(self, name: str) -> str | None:
        data = self._objects.read(name)
        return None if data is None else data.decode()

    def folders(self, prefix: str) -> list[str]:
        return self._objects.within(prefix)[0]

    def names(self, prefix: str) -> list[str]:
        return [f"{prefix}/{name}" for name in self._objects.within(prefix)[1] if not name.startswith(".")]

    def written(self, prefix: str) -> dict[str, datetime]:
        return {f"{prefix}/{name}": found.modified for name, found in self._objects.below(prefix).items()}


def _at_once(do: Callable[[T], None], items: Iterable[T]) -> None:
    """Do it for every item, a few at a time; the first error ends it."""
    with ThreadPoolExecutor(STREAMS) as pool:
        list(pool.map(do, items))
