"""Training rows from Parquet, in parts. A column that is missing, damaged or not a number is named before training."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tidewheel.contracts.schema import WEIGHT, FeatureKind, FeatureSpec, feature_columns, label_column
from tidewheel.errors import ContractError

PART_ROWS = 65_536  # a part of a few ten MB


def read_parts(folder: Path, features: Sequence[FeatureSpec], labels: Sequence[str]) -> Iterator[pa.Table]:
    """The columns that training needs of all Parquet files under `folder`, in the order of their names, a part at a time.

    Raises:
        ContractError: there is no Parquet file, one is damaged, a column is missing, or there are no rows.
    """
    wanted = [*feature_columns(features)] + [label_column(label) for label in labels] + [WEIGHT]
    texts = [feature.name for feature in features if feature.kind is FeatureKind.VOCABULARY]
    rows = 0
    for path in sorted(folder.rglob("*.parquet")):
        try:
            # Without pre-buffering: it would hold every row group that was read until the file is closed.
            with pq.ParquetFile(path, read_dictionary=texts, pre_buffer=False) as file:
                if missing := sorted(set(wanted) - set(file.schema_arrow.names)):
                    raise ContractError(f"{path}: column {', '.join(missing)} is missing; run sample again with this recipe")
                for batch in file.iter_batches(PART_ROWS, columns=wanted):
                    rows += batch.num_rows
                    yield pa.Table.from_batches([batch])
        except (OSError, pa.ArrowInvalid) as error:
            raise ContractError(
                f"{path}: is not readable Parquet ({str(error).splitlines()[0]}); restore it or run again"
            ) from error
    if not rows:
        raise ContractError(f"{folder}: no rows to train on; widen the window or the sampling rates")


def weights_of(table: pa.Table, where: Path) -> np.ndarray:
    """(N,) float64 row weights as stored.

    Raises:
        ContractError: one is null, not finite or negative.
    """
    weights: np.ndarray = table.column(WEIGHT).to_numpy().astype(np.float64)
    if len(weights) and (not np.isfinite(weights).all() or weights.min() < 0):
        raise ContractError(f"{where}: weights must be finite, not negative and not all 0; run sample again")
    return weights


def labels_of(table: pa.Table, labels: Sequence[str]) -> np.ndarray:
    """(N, T) float32 labels, 0 or 1."""
    return np.stack([table.column(label_column(label)).to_numpy().astype(np.float32) for label in labels], axis=1)


class NumberCheck:
    """Counts the values of numeric features that are no numbers: what is not known is null, NaN is a fault upstream."""

    def __init__(self, features: Sequence[FeatureSpec]) -> None:
        self._broken = {f.name: 0 for f in features if f.kind is FeatureKind.NUMERIC}
        self._rows = 0

    def add(self, table: pa.Table) -> None:
        self._rows += table.num_rows
        for name in self._broken:
            column = table.column(name)
            if pa.types.is_floating(column.type):
                self._broken[name] += pc.sum(pc.invert(pc.is_finite(column))).as_py() or 0

    def expect_none(self, where: Path) -> None:
        """Refuse the rows if there was one.

        Raises:
            ContractError: the message has each column and the share of its rows.
        """
        found = [
            f"{name} in {count:,} of {self._rows:,} rows ({count / self._rows:.2%})"
            for name, count in self._broken.items()
            if count
        ]
        if found:
            raise ContractError(
                f"{where}: NaN or infinite: {'; '.join(found)}; expected numbers or null: run again from ingest on"
            )
