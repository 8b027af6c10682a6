"""Answered requests on their way from the server to the writer of its log: bytes of their columns, decoded once. Pure.

The server packs each, on the core that answers; the writer joins many of them, column by column. Both make the layout of the
same features and labels.
"""

from __future__ import annotations

import itertools
import marshal
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from tidewheel.contracts.schema import FeatureSpec, feature_columns
from tidewheel.serving.rows import TENSORS, About, Answers, Joined

VERSION = 2  # of marshal: later ones look for repeats, of which there are none
ABSENT, MATRIX, TEXTS = "-", "m", "t"  # beside the kinds of arrays; whole numbers of a sequence, texts as one
_BETWEEN = "\0"  # texts that are one
_NUMBERS = {"i": np.int64, "f": np.float64}  # what `tensors` makes of a request, by the kind of its type
_NUMBER_BYTES, _SCORE_BYTES = 8, 4


class Item(NamedTuple):
    """One answer as it was packed: of each column of the layout its kind, and bytes, shape and bytes, or values."""

    about: tuple[Any, ...]
    served_time: str
    kinds: str
    values: list[Any]
    scores: list[bytes]

    @property
    def num_rows(self) -> int:
        return len(self.scores[0]) // _SCORE_BYTES


class Layout:
    """Which columns an item has, and in which order."""

    def __init__(self, features: Sequence[FeatureSpec], labels: Sequence[str]) -> None:
        self.columns = tuple(dict.fromkeys((*feature_columns(features), *TENSORS)))
        self.labels = tuple(labels)

    def pack(
        self, about: About, served_time: str, columns: Mapping[str, np.ndarray], scores: Mapping[str, np.ndarray]
    ) -> bytes:
        """An item. `served_time`: ISO 8601, UTC; scores are (C,) float32 by label."""
        kinds, values = [], []
        for column in map(columns.get, self.columns):
            kind: str = ABSENT
            value: Any = column  # marshal takes an array for the bytes that it is
            if column is not None and column.ndim > 1:
                kind, value = MATRIX, (column.shape, column)
            elif column is not None and (kind := column.dtype.kind) not in _NUMBERS:
                kind, value = _packed(kind, column.tolist())
            kinds.append(kind)
            values.append(value)
        return marshal.dumps((about[:], served_time, "".join(kinds), values, [scores[label] for label in self.labels]), VERSION)

    def unpack(self, packed: bytes) -> Item:
        """The item of its bytes."""
        return Item(*marshal.loads(packed))

    def join(self, items: Sequence[Item]) -> Iterator[Answers]:
        """All answers in order, those together that follow each other and say the same kinds of things."""
        for _, alike in itertools.groupby(items, key=_sort_of):
            yield self._joined(list(alike))

    def _joined(self, items: Sequence[Item]) -> Answers:
        parameters = [About(*item.about) for item in items]
        columns = {
            name: _column(kind, [item.values[at] for item in items])
            for at, (name, kind) in enumerate(zip(self.columns, items[0].kinds, strict=True))
            if kind != ABSENT
        }
        for name in ("user_id", "propensity"):
            if getattr(parameters[0], name) is not None:
                once = np.ones(len(items), dtype=np.int64)
                columns[name] = Joined(np.array([getattr(one, name) for one in parameters]), once)
        scores = {
            label: np.frombuffer(b"".join([item.scores[at] for item in items]), dtype=np.float32)
            for at, label in enumerate(self.labels)
        }
        counts = np.array([item.num_rows for item in items])
        return Answers(parameters, [item.served_time for item in items], columns, scores, counts)


def _sort_of(item: Item) -> tuple[object, ...]:
    about = About(*item.about)
    return item.kinds, about.user_id is None, about.propensity is None


def _packed(kind: str, values: list[Any]) -> tuple[str, Any]:
    """The kind and the value of a column of objects."""
    try:
        text = _BETWEEN.join(values)
    except TypeError:  # a null, or numbers among them
        return kind, values
    return (TEXTS, text) if text.count(_BETWEEN) == len(values) - 1 else (kind, values)


def _column(kind: str, values: Sequence[Any]) -> Joined:
    """One column of several items, of which each is of the same kind."""
    if kind in _NUMBERS:
        lengths = np.array([len(value) for value in values]) // _NUMBER_BYTES
        return Joined(np.frombuffer(b"".join(values), dtype=_NUMBERS[kind]), lengths)
    if kind == TEXTS:
        joined = np.array(_BETWEEN.join(values).split(_BETWEEN), dtype=object)
        return Joined(joined, np.array([value.count(_BETWEEN) + 1 for value in values]))
    if kind == MATRIX:  # rows of a sequence, (R, k), as R lists: k may differ between requests
        values = [np.frombuffer(raw, dtype=np.int64).reshape(shape).tolist() for shape, raw in values]
    listed = list(itertools.chain.from_iterable(values))
    joined = np.empty(len(listed), dtype=object)
    joined[:] = listed
    return Joined(joined, np.array([len(value) for value in values]))
