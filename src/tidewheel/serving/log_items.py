"""Answered requests on their way from the server to the writer of its log: bytes of their columns, many answers at once. Pure.

The server packs what it answered meanwhile, the writer joins what was packed, column by column. Both make the layout of the
same features and labels.
"""

from __future__ import annotations

import itertools
import marshal
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from tidewheel.contracts.schema import FeatureSpec, feature_columns
from tidewheel.serving.rows import TENSORS, About, Answers, Joined

VERSION = 2  # of marshal: later ones look for repeats, of which there are none
ABSENT, MATRIX = "-", "m"  # beside the kinds of arrays; whole numbers of a sequence
_NUMBERS = {"i": np.int64, "f": np.float64}  # what `tensors` makes of a request, by the kind of its type
_WIDTHS = {kind: np.dtype(number).itemsize for kind, number in _NUMBERS.items()}
_SCORE_BYTES = 4
_DAY = len("2026-01-05")


@dataclass(frozen=True, slots=True)
class Answered:
    """One answer as the server has it. `served_time`: ISO 8601, UTC; columns are of length C or 1, scores (C,) float32."""

    about: About
    served_time: str
    columns: Mapping[str, np.ndarray]
    scores: Mapping[str, np.ndarray]

    @property
    def num_rows(self) -> int:
        return len(next(iter(self.scores.values())))


class Item(NamedTuple):
    """Answers of one UTC day that say the same kinds of things, as they were packed.

    values, lengths: of each column of the layout all that the answers say, and how many rows of it each answer has; numbers are
        bytes, a sequence is shape and bytes an answer, others a list.
    counts: candidates of each answer.
    scores: bytes, a label.
    """

    about: list[tuple[Any, ...]]
    served_times: list[str]
    counts: list[int]
    kinds: str
    values: list[Any]
    lengths: list[list[int]]
    scores: list[bytes]

    @property
    def num_rows(self) -> int:
        return sum(self.counts)

    def apart(self) -> Iterator[Item]:
        """Each answer alone."""
        row, starts = 0, [0] * len(self.kinds)
        for number, count in enumerate(self.counts):
            values: list[Any] = []
            lengths: list[list[int]] = []
            for at, kind in enumerate(self.kinds):
                length = 0 if kind == ABSENT else self.lengths[at][number]
                end = starts[at] + (1 if kind == MATRIX else length * _WIDTHS.get(kind, 1))
                values.append(None if kind == ABSENT else self.values[at][starts[at] : end])
                lengths.append([length])
                starts[at] = end
            scores = [raw[_SCORE_BYTES * row : _SCORE_BYTES * (row + count)] for raw in self.scores]
            row += count
            yield Item([self.about[number]], [self.served_times[number]], [count], self.kinds, values, lengths, scores)


class Layout:
    """Which columns an item has, and in which order."""

    def __init__(self, features: Sequence[FeatureSpec], labels: Sequence[str]) -> None:
        self.columns = tuple(dict.fromkeys((*feature_columns(features), *TENSORS)))
        self.labels = tuple(labels)

    def pack(self, answers: Iterable[Answered]) -> Iterator[tuple[int, bytes]]:
        """(rows, bytes) of items that hold all answers in their order."""
        for (_, kinds), alike in itertools.groupby(answers, key=lambda one: (one.served_time[:_DAY], self._kinds(one))):
            item = self._item(kinds, list(alike))
            yield item.num_rows, marshal.dumps(item[:], VERSION)

    def unpack(self, packed: bytes) -> Item:
        """The item of its bytes."""
        return Item(*marshal.loads(packed))

    def join(self, items: Sequence[Item]) -> Iterator[Answers]:
        """All answers in order, those together that follow each other and say the same kinds of things."""
        for _, alike in itertools.groupby(items, key=_sort_of):
            yield self._joined(list(alike))

    def _kinds(self, one: Answered) -> str:
        """Of each column, and whether the user and the propensity are said once."""
        found = [one.columns.get(name) for name in self.columns]
        kinds = "".join([ABSENT if column is None else column.dtype.kind if column.ndim == 1 else MATRIX for column in found])
        return f"{kinds}{'u' if one.about.user_id is None else 'U'}{'p' if one.about.propensity is None else 'P'}"

    def _item(self, kinds: str, answers: Sequence[Answered]) -> Item:
        values, lengths = [], []
        for name, kind in zip(self.columns, kinds, strict=False):
            column = [] if kind == ABSENT else [one.columns[name] for one in answers]
            values.append(_raw(kind, column))
            lengths.append([len(part) for part in column])
        scores = [_bytes([one.scores[label] for one in answers]) for label in self.labels]
        about = [one.about[:] for one in answers]
        return Item(
            about,
            [one.served_time for one in answers],
            [one.num_rows for one in answers],
            kinds[: len(self.columns)],
            values,
            lengths,
            scores,
        )

    def _joined(self, items: Sequence[Item]) -> Answers:
        parameters = [About(*about) for item in items for about in item.about]
        columns = {
            name: _column(kind, [item.values[at] for item in items], [item.lengths[at] for item in items])
            for at, (name, kind) in enumerate(zip(self.columns, items[0].kinds, strict=True))
            if kind != ABSENT
        }
        for name in ("user_id", "propensity"):
            if getattr(parameters[0], name) is not None:
                once = np.ones(len(parameters), dtype=np.int64)
                columns[name] = Joined(np.array([getattr(one, name) for one in parameters]), once)
        scores = {
            label: np.frombuffer(b"".join([item.scores[at] for item in items]), dtype=np.float32)
            for at, label in enumerate(self.labels)
        }
        counts = np.array([count for item in items for count in item.counts])
        return Answers(parameters, [time for item in items for time in item.served_times], columns, scores, counts)


def _sort_of(item: Item) -> tuple[object, ...]:
    about = About(*item.about[0])
    return item.kinds, about.user_id is None, about.propensity is None


def _raw(kind: str, parts: Sequence[np.ndarray]) -> Any:
    """What marshal writes of a column of several answers."""
    if kind == ABSENT:
        return None
    if kind in _NUMBERS:
        return _bytes(parts)
    if kind == MATRIX:
        return [(part.shape, part.tobytes()) for part in parts]
    return list(itertools.chain.from_iterable([part.tolist() for part in parts]))


def _bytes(arrays: Any) -> bytes:
    """Of arrays one after the other: `join` takes each for the bytes that it is."""
    return b"".join(arrays)


def _column(kind: str, values: Sequence[Any], lengths: Sequence[Sequence[int]]) -> Joined:
    """One column of several items, of which each is of the same kind."""
    counts = np.array(list(itertools.chain.from_iterable(lengths)))
    if kind in _NUMBERS:
        return Joined(np.frombuffer(b"".join(values), dtype=_NUMBERS[kind]), counts)
    if kind == MATRIX:  # (R, k), as R lists: k may differ between answers
        values = [np.frombuffer(raw, dtype=np.int64).reshape(shape).tolist() for item in values for shape, raw in item]
    listed = list(itertools.chain.from_iterable(values))
    joined = np.empty(len(listed), dtype=object)
    joined[:] = listed
    return Joined(joined, counts)
