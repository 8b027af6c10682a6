"""The two kinds of store behind one face: what somebody may do to the bytes behind the store's back."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from tidewheel.contracts.dataset import DatasetManifest
from tidewheel.contracts.window import Window, parse_time
from tidewheel.store import Store

ROWS = DatasetManifest(
    kind="train",
    window=Window.ending(parse_time("2026-01-12"), 7),
    rows=2,
    weight_sum=2.0,
    features=(),
    labels=("click",),
)


class Backing(Protocol):
    def read(self, name: str) -> bytes: ...

    def write(self, name: str, data: bytes) -> None: ...

    def delete(self, name: str) -> None: ...

    def names(self) -> set[str]: ...


@dataclass(frozen=True)
class FolderBacking:
    root: Path

    def read(self, name: str) -> bytes:
        return (self.root / name).read_bytes()

    def write(self, name: str, data: bytes) -> None:
        (self.root / name).write_bytes(data)

    def delete(self, name: str) -> None:
        (self.root / name).unlink()

    def names(self) -> set[str]:
        return {path.relative_to(self.root).as_posix() for path in self.root.rglob("*") if path.is_file()}


@dataclass(frozen=True)
class BucketBacking:
    client: Any
    bucket: str
    prefix: str

    def read(self, name: str) -> bytes:
        return self.client.get_object(Bucket=self.bucket, Key=f"{self.prefix}/{name}")["Body"].read()

    def write(self, name: str, data: bytes) -> None:
        self.client.put_object(Bucket=self.bucket, Key=f"{self.prefix}/{name}", Body=data)

    def delete(self, name: str) -> None:
        self.client.delete_object(Bucket=self.bucket, Key=f"{self.prefix}/{name}")

    def names(self) -> set[str]:
        listed = self.client.list_objects_v2(Bucket=self.bucket, Prefix=f"{self.prefix}/").get("Contents", [])
        return {item["Key"].removeprefix(f"{self.prefix}/") for item in listed}


def publish(store: Store, **files: str) -> str:
    """Publish one dataset of these parts; its digest."""
    folder = store.staging("train")
    for name, text in (files or {"part": "rows"}).items():
        (folder / f"{name}.parquet").write_text(text)
    return store.publish("datasets", folder, ROWS)[0]
