"""Immutable folders named by the digest of their content, and small records that are created exactly once."""

from __future__ import annotations

import hashlib
import json
import os
from abc import ABC, abstractmethod
from datetime import datetime
from pathlib import Path, PurePosixPath
from typing import Self, TypeVar

from pydantic import ConfigDict

from tidewheel.contracts.base import Contract, digest_of
from tidewheel.contracts.dataset import FileEntry
from tidewheel.errors import ConfigError, ContractError
from tidewheel.store.verification import Verification

MANIFEST = "manifest.json"
ABANDONED_SECONDS = 24 * 3600.0  # no step works longer on one folder without writing to it

M = TypeVar("M", bound=Contract)


class Store(ABC):
    """`<kind>/<digest>/` are immutable folders, `<name>.json` elsewhere are records.

    A folder exists only once its `manifest.json` does, which comes last: whatever dies halfway leaves nothing that a
    reader would take for a folder. Work happens on this machine: folders are built in `staging`, and read where `load`
    or `fetch` say.
    """

    url: str

    @staticmethod
    def open(url: str, scratch: Path | None = None, verification: Verification | None = None) -> Store:
        """Open the store at a local path (created if missing) or at `s3://bucket/prefix`.

        Args:
            scratch: where an S3 store keeps its copies on this machine; default: the user's cache folder.
            verification: how closely `load`, `fetch` and `verify` look; default: sampled.

        Raises:
            ConfigError: it cannot be written, does not promise what a store needs, or the scheme is not supported.
            RetryableError: it does not answer.
        """
        verification = verification or Verification()
        scheme = url.partition("://")[0] if "://" in url else "file"
        if scheme == "file":
            from tidewheel.store.local import LocalStore

            return LocalStore.at(Path(url.removeprefix("file://")).absolute(), verification)
        if scheme == "s3":
            from tidewheel.store.s3 import S3Store

            return S3Store.at(url, scratch or _user_cache(), verification)
        raise ConfigError(f"store {url}: this scheme is not supported; expected a local folder or s3://bucket/prefix")

    # --- folders ---

    @abstractmethod
    def staging(self, kind: str) -> Path:
        """A fresh empty folder on this machine to build in; `publish` takes it away, `sweep` what a killed step left."""

    @abstractmethod
    def abandon(self) -> None:
        """Remove what `staging` gave to this object and was not published: a step that failed gives its room back."""

    @abstractmethod
    def sweep(self, now: float, older_than_seconds: float = ABANDONED_SECONDS) -> int:
        """Remove what nobody finished and nobody wrote to for so long; returns how many. `now`: seconds since the epoch."""

    @abstractmethod
    def publish(self, kind: str, folder: Path, manifest: M) -> tuple[str, M]:
        """Make `folder` the immutable `<kind>/<digest>/`; returns the digest and the manifest with its files filled in.

        Idempotent: the same content published twice is stored once, and heals a folder that is damaged. `folder` must
        lie in this store's `staging`.

        Raises:
            ConfigError: there is no room.
            RetryableError: the store does not answer; nothing was published.
        """

    @abstractmethod
    def folder(self, kind: str, digest: str) -> Path:
        """Where a folder lies on this machine, or would lie once it is fetched."""

    @abstractmethod
    def location(self, kind: str) -> str:
        """Path or URL of the folders of a kind, for whoever reads the store without us."""

    @abstractmethod
    def fetch(self, kind: str, digest: str, *, full: bool = False) -> Path:
        """The folder on this machine, checked as `verification` says (`full`: every digest), whatever its contract.

        Raises:
            ContractError: the folder is missing, incomplete or not what its digest promises.
        """

    @abstractmethod
    def verify(self, kind: str, digest: str) -> None:
        """Check the bytes that the store itself holds, as `verification` says.

        Raises:
            ContractError: as `fetch`.
        """

    @abstractmethod
    def manifest(self, kind: str, digest: str) -> bytes | None:
        """What a folder says of itself, unchecked and without its files; None where there is no such folder."""

    @abstractmethod
    def remove(self, kind: str, digest: str) -> None:
        """Remove a folder, its manifest first: nobody takes what is left for a folder. Idempotent."""

    def load(self, kind: str, digest: str, contract: type[M], *, full: bool = False) -> tuple[Path, M]:
        """The folder as `fetch` gives it, and its manifest.

        Raises:
            ContractError: as `fetch`, or its manifest is not of this contract.
        """
        folder = self.fetch(kind, digest, full=full)
        return folder, contract.read(folder / MANIFEST)

    # --- records ---

    @abstractmethod
    def create(self, name: str, text: str) -> bool:
        """Write a record that nobody may overwrite. False when it exists already; readers never see half of it."""

    @abstractmethod
    def put(self, name: str, text: str) -> None:
        """Write or replace a record; readers see the old or the new text, never a mix."""

    @abstractmethod
    def get(self, name: str) -> str | None:
        """A record's text, or None."""

    @abstractmethod
    def folders(self, prefix: str) -> list[str]:
        """Names of the folders directly in the folder `prefix`, sorted."""

    @abstractmethod
    def names(self, prefix: str) -> list[str]:
        """Names of the records directly in the folder `prefix`, sorted."""

    @abstractmethod
    def written(self, prefix: str) -> dict[str, datetime]:
        """Name -> when it was last written (UTC), of every record below the folder `prefix` at any depth; reads none."""


class Listing(Contract):
    """The files of any manifest."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    files: tuple[FileEntry, ...] = ()

    @classmethod
    def of(cls, text: str | bytes, digest: str, folder: str) -> Self:
        """What the manifest of a folder lists.

        Raises:
            ContractError: it is not the manifest that the folder's digest names, or a path leads out of the folder.
        """
        listing = cls.parse(text, f"{folder}/{MANIFEST}")
        if digest_of(json.loads(text)) != digest:
            raise ContractError(f"{folder}: {MANIFEST} does not match the digest in the folder's name; restore it or run again")
        for entry in listing.files:
            if PurePosixPath(entry.path).is_absolute() or ".." in PurePosixPath(entry.path).parts:
                raise ContractError(f"{folder}: {entry.path} leads out of the folder; restore it or run again")
        return listing


def sealed(folder: Path, manifest: M) -> M:
    """The manifest with every file of the folder and its digest; what an earlier try left of a manifest is no content."""
    files = tuple(
        FileEntry(path=path.relative_to(folder).as_posix(), bytes=path.stat().st_size, sha256=sha256_of(path))
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path not in (folder / MANIFEST, folder / f"{MANIFEST}.partial")
    )
    return manifest.model_copy(update={"files": files})


def sha256_of(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _user_cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tidewheel"
