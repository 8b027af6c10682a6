"""Training rows, encoded once into one file: an epoch reads it in any order, and memory does not grow with its length.

rows.json    what the file holds; written last: a folder without it holds no rows
rows.bin     N records of W 32-bit words: ids, numbers, labels, weight, and soft labels or what a teacher needs to make them
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Literal, Self

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from tidewheel.contracts.base import Contract
from tidewheel.errors import ContractError
from tidewheel.ranker.encoding import Encoded

FILE, MANIFEST = "rows.bin", "rows.json"
WORD = 4  # bytes

# (n, F_c) ids and (n, F_n) numbers of the teacher -> (n, T) probabilities.
Teach = Callable[[Encoded], np.ndarray]


class Layout(Contract):
    """The parts of a record, in words, in their order."""

    ids: int = Field(ge=0)  # F_c
    numbers: int = Field(ge=0)  # F_n
    labels: int = Field(ge=1)  # T
    soft_labels: int = Field(default=0, ge=0)  # T, or 0
    teacher_ids: int = Field(default=0, ge=0)  # where the teacher scores as rows are read
    teacher_numbers: int = Field(default=0, ge=0)

    @cached_property
    def slices(self) -> dict[str, slice]:
        found, at = {}, 0
        widths = {"ids": self.ids, "numbers": self.numbers, "labels": self.labels, "weights": 1}
        widths |= {name: getattr(self, name) for name in ("soft_labels", "teacher_ids", "teacher_numbers")}
        for name, width in widths.items():
            found[name] = slice(at, at + width)
            at += width
        return found

    @property
    def width(self) -> int:
        """W."""
        return self.slices["teacher_numbers"].stop


class RowsManifest(Contract):
    """What `rows.bin` holds. `key` names what it was made from, `content` is the SHA-256 of its bytes."""

    schema_: Literal["tidewheel/rows/v1"] = Field(default="tidewheel/rows/v1", alias="schema")
    key: str
    layout: Layout
    rows: int = Field(ge=1)
    weight_mean: float = Field(gt=0)
    rates: tuple[float, ...]  # (T) weighted share of positives
    content: str


@dataclass(frozen=True)
class Batch:
    """B rows: ids (B, F_c) int32, numbers (B, F_n), labels (B, T), weights (B,), soft_labels (B, T) or None.

    Weights have mean 1 over all rows: a learning rate means the same whatever the sampling rate.
    """

    ids: Tensor
    numbers: Tensor
    labels: Tensor
    weights: Tensor
    soft_labels: Tensor | None = None

    def __len__(self) -> int:
        return len(self.ids)


class EncodedRows:
    """The rows of a folder; safe to read from several threads and processes."""

    def __init__(self, folder: Path, manifest: RowsManifest, teach: Teach | None = None) -> None:
        self.folder, self.manifest, self.teach = folder, manifest, teach
        self._file = os.open(folder / FILE, os.O_RDONLY)

    @classmethod
    def open(cls, folder: Path, teach: Teach | None = None) -> Self:
        """Open what `RowsWriter` finished.

        Raises:
            ContractError: it did not, or the file is not as long as it was then.
        """
        manifest = RowsManifest.read(folder / MANIFEST)
        want, found = manifest.rows * manifest.layout.width * WORD, (folder / FILE).stat().st_size
        if found != want:
            raise ContractError(f"{folder / FILE}: has {found} bytes, expected {want}; delete the folder and run again")
        return cls(folder, manifest, teach)

    def __len__(self) -> int:
        return self.manifest.rows

    def __del__(self) -> None:
        if hasattr(self, "_file"):
            os.close(self._file)

    @property
    def rates(self) -> Tensor:
        """(T,) weighted share of positives."""
        return torch.tensor(self.manifest.rates)

    def read(self, start: int, out: np.ndarray) -> None:
        """Fill `out` (n, W) int32 with the records from `start` on."""
        view, offset = memoryview(out.data).cast("B"), start * self.manifest.layout.width * WORD
        while len(view):
            if not (got := os.preadv(self._file, [view], offset)):
                raise ContractError(f"{self.folder / FILE}: ends at byte {offset}; delete the folder and run again")
            view, offset = view[got:], offset + got

    def batch(self, records: np.ndarray, device: str = "cpu") -> Batch:
        """Records (B, W) int32 as tensors on a device; on the way to a GPU they pass through pinned memory."""
        layout = self.manifest.layout
        words = torch.from_numpy(np.ascontiguousarray(records))
        if device.startswith("cuda"):
            words = words.pin_memory().to(device, non_blocking=True)
        reals = words.view(torch.float32)
        labels = reals[:, layout.slices["labels"]]
        soft = reals[:, layout.slices["soft_labels"]] if layout.soft_labels else None
        if self.teach is not None:
            theirs = records[:, layout.slices["teacher_ids"]], records[:, layout.slices["teacher_numbers"]]
            encoded = Encoded(theirs[0].astype(np.int64), np.ascontiguousarray(theirs[1]).view(np.float32))
            told = torch.from_numpy(self.teach(encoded)).to(device)
            soft = torch.where(torch.isnan(told), labels, told)
        return Batch(
            ids=words[:, layout.slices["ids"]],
            numbers=reals[:, layout.slices["numbers"]],
            labels=labels,
            weights=reals[:, layout.slices["weights"].start] / self.manifest.weight_mean,
            soft_labels=soft,
        )

    def in_order(self, batch_size: int) -> Iterator[Batch]:
        """All rows, in the order in which they were written."""
        for start in range(0, len(self), batch_size):
            records = np.empty((min(batch_size, len(self) - start), self.manifest.layout.width), dtype=np.int32)
            self.read(start, records)
            yield self.batch(records)


class RowsWriter:
    """Writes the rows of a folder; only `finish` makes them rows. What a killed writer left is written over."""

    def __init__(self, folder: Path, layout: Layout, key: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / MANIFEST).unlink(missing_ok=True)
        self.folder, self.layout, self.key = folder, layout, key
        self._file: BinaryIO = (folder / FILE).open("wb")
        self._digest = hashlib.sha256()
        self._rows, self._weight = 0, 0.0
        self._positive = np.zeros(layout.labels)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._file.close()

    def add(
        self,
        encoded: Encoded,
        labels: np.ndarray,
        weights: np.ndarray,
        soft_labels: np.ndarray | None = None,
        for_teacher: Encoded | None = None,
    ) -> None:
        """Append n rows: labels (n, T), weights (n,), soft labels (n, T) or the teacher's inputs where the layout has them."""
        slices = self.layout.slices
        records = np.empty((len(encoded), self.layout.width), dtype=np.int32)
        reals = records.view(np.float32)
        records[:, slices["ids"]] = encoded.ids
        reals[:, slices["numbers"]] = encoded.numbers
        reals[:, slices["labels"]] = labels
        reals[:, slices["weights"].start] = weights
        if soft_labels is not None:
            reals[:, slices["soft_labels"]] = soft_labels
        if for_teacher is not None:
            records[:, slices["teacher_ids"]] = for_teacher.ids
            reals[:, slices["teacher_numbers"]] = for_teacher.numbers
        self._digest.update(records.data)
        self._file.write(records.data)
        self._rows += len(encoded)
        self._weight += float(weights.sum())
        self._positive += (weights[:, None] * labels).sum(axis=0)

    def finish(self) -> RowsManifest:
        """Write the manifest.

        Raises:
            ContractError: no row has a weight.
        """
        if self._weight <= 0:
            raise ContractError(f"{self.folder}: weights must be finite, not negative and not all 0; run sample again")
        self._file.flush()
        manifest = RowsManifest(
            key=self.key,
            layout=self.layout,
            rows=self._rows,
            weight_mean=self._weight / self._rows,
            rates=tuple((self._positive / self._weight).tolist()),
            content=self._digest.hexdigest(),
        )
        manifest.write(self.folder / MANIFEST)
        return manifest
