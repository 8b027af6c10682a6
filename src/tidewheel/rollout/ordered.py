"""Numbers in order, of which more may come: medians at every look without sorting again."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain

BLOCK = 512  # a number that comes moves twice as many others at most; a place is found in N / BLOCK steps at most


class Ordered(Sequence[float]):
    """Numbers from the smallest to the largest, in blocks of which each is a sorted list."""

    def __init__(self) -> None:
        self._blocks: list[list[float]] = [[]]
        self._largest: list[float] = []  # of each block but the last
        self._count = 0

    def add(self, values: Iterable[float]) -> None:
        """Numbers in any order; none of them NaN."""
        for value in values:
            at = bisect_left(self._largest, value)
            block = self._blocks[at]
            insort(block, value)
            self._count += 1
            if len(block) > 2 * BLOCK:
                self._blocks[at : at + 1] = block[:BLOCK], block[BLOCK:]
                self._largest.insert(at, block[BLOCK - 1])

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[float]:
        return chain.from_iterable(self._blocks)

    def __getitem__(self, place: int) -> float:  # type: ignore[override]
        for block in self._blocks:
            if place < len(block):
                return block[place]
            place -= len(block)
        raise IndexError(place)
