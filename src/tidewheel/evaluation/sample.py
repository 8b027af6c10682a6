"""Evaluation rows as arrays, and what a model may not say about them. Legend: B rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from tidewheel.contracts.schema import WEIGHT, label_column
from tidewheel.errors import ContractError
from tidewheel.evaluation.intervals import Users
from tidewheel.evaluation.metrics import effective_rows

if TYPE_CHECKING:
    import pyarrow as pa

Scores = Mapping[str, Mapping[str, np.ndarray]]  # model -> label -> probabilities (B,)


@dataclass(frozen=True)
class Sample:
    """Rows as arrays (B,): codes of user and request, weight, 0/1 of each label; `has_lists`: requests are there as a whole."""

    users: Users
    requests: np.ndarray
    weight: np.ndarray
    labels: Mapping[str, np.ndarray]
    has_lists: bool = False

    @classmethod
    def of(cls, table: pa.Table, labels: Sequence[str], needed: Sequence[str] = ()) -> Sample:
        """Of a table with `user_id`, `request_id`, `weight` and the labels.

        Raises:
            ContractError: one of these columns, or of `needed`, is missing.
        """
        wanted = ["user_id", "request_id", WEIGHT, *map(label_column, labels), *needed]
        if missing := [name for name in wanted if name not in table.column_names]:
            raise ContractError(f"evaluation rows: columns {', '.join(missing)} are missing; sample again")
        weight = table[WEIGHT].to_numpy().astype(np.float64)
        return cls(
            users=Users.of(table["user_id"].to_numpy()),
            requests=codes_of(table["request_id"])[0],
            weight=weight,
            labels={label: table[label_column(label)].to_numpy() for label in labels},
            has_lists=bool((weight == 1.0).all()),
        )

    def take(self, rows: np.ndarray) -> Sample:
        """The rows at these indexes: parts of lists."""
        labels = {name: values[rows] for name, values in self.labels.items()}
        return Sample(Users.of(self.users.codes[rows]), self.requests[rows], self.weight[rows], labels)

    @property
    def effective_rows(self) -> float:
        return effective_rows(self.weight)

    def is_judgeable(self, label: str, at_least: int) -> bool:
        """Whether there are enough rows of either class for an interval to mean something."""
        positives = int((self.labels[label] == 1).sum())
        return min(positives, len(self.weight) - positives) >= at_least


def codes_of(column: pa.ChunkedArray) -> tuple[np.ndarray, list[object]]:
    """(B,) a code for each value, null included, and the values."""
    encoded = column.combine_chunks().dictionary_encode(null_encoding="encode")
    return encoded.indices.to_numpy(), encoded.dictionary.to_pylist()


def fault_of_rows(tables: Sequence[pa.Table], what: str) -> str:
    """Why nothing can be measured on these rows, or nothing: weights that are none, or the same row twice."""
    for table in tables:
        weight = table[WEIGHT].to_numpy().astype(np.float64)
        if broken := int((~(np.isfinite(weight) & (weight > 0))).sum()):
            return f"{what}: weight of {broken:,} of {len(weight):,} rows is not finite and above 0"
    keys = [table["row_key"].to_numpy() for table in tables if "row_key" in table.column_names]
    if keys:
        every = np.concatenate(keys)
        if repeated := len(every) - len(np.unique(every)):
            return f"{what}: {repeated:,} of {len(every):,} rows are there twice (row_key); each impression may count once"
    return ""


def fault_of(probabilities: np.ndarray) -> str:
    """What is wrong with these probabilities (B,), or nothing."""
    broken = int((~np.isfinite(probabilities)).sum())
    if broken:
        return f"{broken} of {len(probabilities)} scores are not finite"
    outside = int(((probabilities < 0) | (probabilities > 1)).sum())
    if outside:
        return f"{outside} of {len(probabilities)} scores are not in [0, 1]"
    if len(probabilities) > 1 and (probabilities == probabilities[0]).all():
        return f"all {len(probabilities)} scores are {probabilities[0]:.6g}: nothing is ranked"
    return ""


def checked(scores: Scores, rows: int, what: str) -> dict[str, dict[str, np.ndarray]]:
    """The scores as float64.

    Raises:
        ContractError: a model's scores are not one a row: the arms were scored on different rows.
    """
    for model, by in scores.items():
        for name, values in by.items():
            if values.shape != (rows,):
                raise ContractError(
                    f"{what}: scores of {model} for {name}: shape {values.shape}; expected ({rows},), one a row"
                )
    return {model: {name: found.astype(np.float64) for name, found in by.items()} for model, by in scores.items()}
