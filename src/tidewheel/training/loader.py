"""Batches whose order is a function of (rows, seed, epoch) and nothing else, read ahead of the training loop.

An epoch goes through blocks of neighbouring rows in a random order, a pool of blocks at a time, and through the rows of
each pool in a random order: reads stay long, memory is that of two pools, and any batch can be found without those before
it. Up to POOL_BLOCKS * BLOCK_ROWS rows that is one permutation of them all.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol, TypeVar

import numpy as np
from torch import Tensor

from tidewheel.training.rows import Batch, EncodedRows

BLOCK_ROWS = 4096
POOL_BLOCKS = 64
PIECE_ROWS = 16_384  # gathered at once
READ_AHEAD = 16  # batches: the time to read a pool

T = TypeVar("T")


@dataclass(frozen=True)
class Worker:
    """Which of the workers this is. All together they go through the batches that one alone would."""

    rank: int = 0
    size: int = 1


ALONE = Worker()


class RowSource(Protocol):
    """What the training loop reads."""

    @property
    def rates(self) -> Tensor:
        """(T,) weighted share of positives."""

    def __len__(self) -> int: ...

    def batches(self, batch_size: int, seed: int, epoch: int, skip: int, worker: Worker, device: str) -> Iterator[Batch]:
        """This worker's part of each batch of an epoch, from batch `skip` on."""


@dataclass(frozen=True)
class ShuffledRows:
    """The rows of a file in the order of this module, read by a thread beside the training loop."""

    rows: EncodedRows

    @property
    def rates(self) -> Tensor:
        return self.rows.rates

    def __len__(self) -> int:
        return len(self.rows)

    def batches(self, batch_size: int, seed: int, epoch: int, skip: int, worker: Worker, device: str) -> Iterator[Batch]:
        """All workers see as many batches, so that none waits for another at the end."""

        def mine() -> Iterator[Batch]:
            for records in grouped(shuffled(self.rows, seed, epoch, skip * batch_size), batch_size):
                part = records[worker.rank :: worker.size]
                yield self.rows.batch(part if len(part) else records[:1], device)

        return ahead(mine(), READ_AHEAD)


@dataclass(frozen=True)
class RandomRows:
    """A few batches in memory, over and over, of the shape and the marginals of real ones: what training does without input."""

    length: int
    rates: Tensor
    ready: tuple[Batch, ...]

    @classmethod
    def like(cls, rows: EncodedRows, batch_size: int, seed: int, device: str, batches: int = 8) -> RandomRows:
        """Every column of the first rows drawn again on its own, so that embeddings are hit as often as in real batches."""
        size = min(len(rows), batch_size * batches)
        records = np.empty((size, rows.manifest.layout.width), dtype=np.int32)
        rows.read(0, records)
        random = np.random.Generator(np.random.PCG64(seed))
        drawn = [random.permuted(records, axis=0)[:batch_size] for _ in range(batches)]
        return cls(len(rows), rows.rates, tuple(rows.batch(part, device) for part in drawn))

    def __len__(self) -> int:
        return self.length

    def batches(self, batch_size: int, seed: int, epoch: int, skip: int, worker: Worker, device: str) -> Iterator[Batch]:
        for at in range(skip, num_batches(self.length, batch_size)):
            yield self.ready[at % len(self.ready)]


def num_batches(rows: int, batch_size: int) -> int:
    return -(-rows // batch_size)


def shuffled(rows: EncodedRows, seed: int, epoch: int, start: int) -> Iterator[np.ndarray]:
    """The records of an epoch from position `start` on, (n, W) int32 at a time."""
    at = 0
    for number, blocks in enumerate(pools(len(rows), seed, epoch)):
        sizes = [min(BLOCK_ROWS, len(rows) - block * BLOCK_ROWS) for block in blocks.tolist()]
        size = sum(sizes)
        if at + size > start:
            pool = np.empty((size, rows.manifest.layout.width), dtype=np.int32)
            filled = 0
            for block, count in zip(blocks.tolist(), sizes, strict=True):
                rows.read(block * BLOCK_ROWS, pool[filled : filled + count])
                filled += count
            order = np.random.Generator(np.random.PCG64([seed, epoch, 1 + number])).permutation(size)
            for begin in range(max(0, start - at), size, PIECE_ROWS):
                yield pool.take(order[begin : begin + PIECE_ROWS], axis=0)
        at += size


def pools(rows: int, seed: int, epoch: int) -> list[np.ndarray]:
    """The numbers of the blocks of each pool of an epoch: equal arguments, equal pools, on any machine."""
    blocks = num_batches(rows, BLOCK_ROWS)
    order = np.random.Generator(np.random.PCG64([seed, epoch])).permutation(blocks)
    return [order[at : at + POOL_BLOCKS] for at in range(0, blocks, POOL_BLOCKS)]


def grouped(pieces: Iterator[np.ndarray], size: int) -> Iterator[np.ndarray]:
    """The rows of the pieces, `size` at a time; the last group has what is left."""
    rest: np.ndarray | None = None
    for piece in pieces:
        at = 0
        if rest is not None:
            at = size - len(rest)
            rest = np.concatenate([rest, piece[:at]])
            if len(rest) < size:
                continue
            yield rest
        whole = at + (len(piece) - at) // size * size
        for begin in range(at, whole, size):
            yield piece[begin : begin + size]
        rest = piece[whole:] if whole < len(piece) else None
    if rest is not None:
        yield rest


def ahead(items: Iterator[T], depth: int) -> Iterator[T]:
    """The items, up to `depth` of them made by a thread before they are asked for; its errors are raised here."""
    waiting: queue.Queue[tuple[T | None, BaseException | None]] = queue.Queue(depth)
    is_closed = threading.Event()

    def offer(item: T | None, error: BaseException | None) -> None:
        while not is_closed.is_set():
            with suppress(queue.Full):
                waiting.put((item, error), timeout=0.1)
                break

    def make() -> None:
        try:
            for item in items:
                offer(item, None)
                if is_closed.is_set():
                    return
            offer(None, StopIteration())
        except BaseException as error:
            offer(None, error)

    thread = threading.Thread(target=make, name="loader", daemon=True)
    thread.start()
    try:
        while True:
            item, error = waiting.get()
            if isinstance(error, StopIteration):
                return
            if error is not None:
                raise error
            assert item is not None
            yield item
    finally:
        is_closed.set()
        while thread.is_alive():
            with suppress(queue.Empty):  # makes room for what it is about to offer, so that it sees the end at once
                waiting.get(timeout=0.01)
