"""One answered request on its way from the server to the writer of its log: bytes of its columns, decoded once. Pure.

The server packs, on the core that answers; the writer unpacks. Both make the layout of the same features and labels.
"""

from __future__ import annotations

import marshal
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import numpy as np

from tidewheel.contracts.schema import FeatureSpec, feature_columns
from tidewheel.serving.rows import TENSORS, About, Served

VERSION = 2  # of marshal: later ones look for repeats, of which there are none
ABSENT = "-"
_NUMBERS = {"i": np.int64, "f": np.float64}  # what `tensors` makes of a request, by the kind of its type
_NULL = np.array([None], dtype=object)


class Layout:
    """Which columns an item has, and in which order."""

    def __init__(self, features: Sequence[FeatureSpec], labels: Sequence[str]) -> None:
        self.columns = tuple(dict.fromkeys((*feature_columns(features), *TENSORS)))
        self.labels = tuple(labels)

    def pack(
        self, about: About, served_time: str, columns: Mapping[str, np.ndarray], scores: Mapping[str, np.ndarray]
    ) -> bytes:
        """An item. `served_time`: ISO 8601, UTC; scores are (C,) float32 by label."""
        found = [columns.get(name) for name in self.columns]
        kinds = [ABSENT if column is None else column.dtype.kind for column in found]
        values = [
            column if kind in _NUMBERS and column.ndim == 1 else _raw(kind, column)  # type: ignore[union-attr]
            for kind, column in zip(kinds, found, strict=True)
        ]
        return marshal.dumps((about[:], served_time, "".join(kinds), values, [scores[label] for label in self.labels]), VERSION)

    def unpack(self, item: bytes) -> Served:
        """The rows of an item."""
        about, served_time, kinds, values, raw_scores = marshal.loads(item)
        columns = {
            name: _column(kind, value) for name, kind, value in zip(self.columns, kinds, values, strict=True) if kind != ABSENT
        }
        parameters = About(*about)
        columns |= {
            name: np.array([value]) for name in ("user_id", "propensity") if (value := getattr(parameters, name)) is not None
        }
        scores = {label: np.frombuffer(raw, dtype=np.float32) for label, raw in zip(self.labels, raw_scores, strict=True)}
        num_rows = len(next(iter(scores.values())))
        nothing = {"position": _NULL, "propensity": _NULL}
        return Served(parameters, nothing | columns, scores, datetime.fromisoformat(served_time), num_rows)


def _raw(kind: str, column: np.ndarray | None) -> Any:
    """What marshal writes of anything but plain numbers: it takes an array for the bytes that it is."""
    if column is None:
        return None
    return (column.shape, column) if kind in _NUMBERS else column.tolist()


def _column(kind: str, value: Any) -> np.ndarray:
    if kind not in _NUMBERS:
        column = np.empty(len(value), dtype=object)
        column[:] = value
        return column
    if isinstance(value, tuple):
        return np.frombuffer(value[1], dtype=_NUMBERS[kind]).reshape(value[0])
    return np.frombuffer(value, dtype=_NUMBERS[kind])
