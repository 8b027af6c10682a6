"""Held-out requests of a recorded log as traffic: nobody sees the new ranking, but every outcome is known."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from tidewheel.contracts.schema import WEIGHT, Entity, FeatureKind, FeatureSpec, feature_columns, label_column
from tidewheel.errors import ContractError
from tidewheel.rollout.traffic import Outcome, Request

if TYPE_CHECKING:
    import pyarrow as pa


class ReplayTraffic:
    """The requests of a canonical impression table, each once, in the order of time. Implements `SelectiveTraffic`."""

    is_closed_loop = False

    def __init__(self, table: pa.Table, features: Sequence[FeatureSpec], labels: Sequence[str]) -> None:
        """Group the table's rows by `request_id`.

        Args:
            table: canonical impressions (contracts.schema), e.g. the evaluation split; each counts with its `weight`, where
                the table has that.
            features: the columns that servers get.
            labels: labels without their prefix.

        Raises:
            ContractError: a column is missing, or the table is empty.
        """
        wanted = ["request_id", "user_id", "item_id", "event_time"]
        wanted += [*feature_columns(features)] + [label_column(label) for label in labels]
        if missing := sorted(set(wanted) - set(table.column_names)):
            raise ContractError(
                f"replay: column {', '.join(missing)} is missing; the table has {', '.join(table.column_names)}"
            )
        wanted += [WEIGHT] if WEIGHT in table.column_names else []
        if table.num_rows == 0:
            raise ContractError("replay: the table has no rows; nothing could be replayed")
        table = table.select(list(dict.fromkeys(wanted))).sort_by([("event_time", "ascending"), ("request_id", "ascending")])
        self._starts, self._rows = _groups(np.asarray(table["request_id"].to_pylist(), dtype=object))
        self._ids = table["request_id"].to_pylist()
        self._users = table["user_id"].to_numpy().astype(np.int64)
        self._items = table["item_id"].to_numpy().astype(np.int64)
        self._columns = {name: _column(table, feature, name) for feature in features for name in feature.columns}
        self._is_item = {name: feature.entity is Entity.ITEM for feature in features for name in feature.columns}
        self._labels = {label: table[label_column(label)].to_numpy().astype(np.int8) for label in labels}
        self._weights = table[WEIGHT].to_numpy().astype(np.float64) if WEIGHT in table.column_names else np.ones(table.num_rows)
        self._request_users = self._users[self._rows[self._starts[:-1]]]
        times = table["event_time"].to_numpy().astype("datetime64[us]").astype(np.int64)
        self._seconds = (times[self._rows[self._starts[:-1]]] - times[0]) / 1e6
        self._next = 0
        self._rows_of: dict[str, np.ndarray] = {}

    def __len__(self) -> int:
        """How many requests are left."""
        return len(self._request_users) - self._next

    @property
    def seconds(self) -> float:
        return float(self._seconds[self._next - 1]) if self._next else 0.0

    def take(self, count: int) -> Sequence[Request]:
        return self.take_of(count, lambda users: np.ones(len(users), dtype=bool))

    def take_of(self, count: int, is_wanted: Callable[[np.ndarray], np.ndarray]) -> Sequence[Request]:
        places = self._next + np.flatnonzero(is_wanted(self._request_users[self._next :]))[:count]
        self._next = int(places[-1]) + 1 if len(places) == count else len(self._request_users)
        return [self._request(int(place)) for place in places]

    def served_features(self, request: Request, is_candidate: bool) -> Mapping[str, np.ndarray]:
        return request.features

    def react(self, request: Request, scores: Mapping[str, np.ndarray]) -> Outcome:
        """All candidates in the log's order with their recorded labels, whatever the scores."""
        rows = self._rows_of[request.request_id]
        labels = {label: values[rows] for label, values in self._labels.items()}
        return Outcome(shown=np.arange(len(rows), dtype=np.int64), labels=labels, weights=self._weights[rows])

    def _request(self, place: int) -> Request:
        rows = self._rows[self._starts[place] : self._starts[place + 1]]
        first = rows[:1]
        features = {name: _at(column, rows if self._is_item[name] else first) for name, column in self._columns.items()}
        request_id = str(self._ids[int(first[0])])
        self._rows_of[request_id] = rows
        return Request(request_id, int(self._users[first[0]]), self._items[rows], features)


def _groups(keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows (N,) put together by key in the order of each key's first row, and where each of the G keys starts (G + 1,)."""
    _, first, inverse, counts = np.unique(keys, return_index=True, return_inverse=True, return_counts=True)
    order_of_key = np.empty(len(first), dtype=np.int64)
    order_of_key[np.argsort(first)] = np.arange(len(first))
    rows = np.argsort(order_of_key[inverse], kind="stable")
    starts = np.concatenate([[0], np.cumsum(counts[np.argsort(first)])])
    return starts, rows


def _at(column: np.ndarray | pa.Array, rows: np.ndarray) -> np.ndarray:
    """Some rows of a column: (R,), and of lists, which are a user's and so of one length, (R, k)."""
    if isinstance(column, np.ndarray):
        return column[rows]
    return np.array([column[int(row)].as_py() or [] for row in rows], dtype=np.int64)


def _column(table: pa.Table, feature: FeatureSpec, name: str) -> np.ndarray | pa.Array:
    """(N,) float64 with NaN for null, int64, or object where integers have nulls or values are text; a sequence's lists."""
    column = table.column(name)
    if feature.is_sequence:
        return column.combine_chunks()
    if feature.kind is FeatureKind.NUMERIC:
        return column.cast("float64", safe=False).to_numpy().astype(np.float64)
    if column.null_count or not str(column.type).startswith(("int", "uint")):
        return np.array(column.to_pylist(), dtype=object)
    return column.to_numpy().astype(np.int64)
