"""Parquet to tensors, and tensors to batches whose order is a function of (seed, epoch) and nothing else."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from tidewheel.contracts.schema import WEIGHT, FeatureSpec, feature_columns, label_column
from tidewheel.errors import ContractError
from tidewheel.ranker.encoding import Encoded, Encoders, columns_of


@dataclass(frozen=True)
class Rows:
    """N rows as tensors: ids (N, F_c) int64, numbers (N, F_n), labels (N, T), weights (N,), soft_labels (N, T) or None.

    `weights` are scaled to mean 1, so that a learning rate means the same whatever the sampling rate.
    """

    ids: Tensor
    numbers: Tensor
    labels: Tensor
    weights: Tensor
    soft_labels: Tensor | None = None

    def __len__(self) -> int:
        return len(self.ids)

    def take(self, index: Tensor) -> Rows:
        """The rows of `index`, in its order."""
        soft = None if self.soft_labels is None else self.soft_labels[index]
        return Rows(self.ids[index], self.numbers[index], self.labels[index], self.weights[index], soft)

    def with_soft_labels(self, soft_labels: np.ndarray) -> Rows:
        """These rows with (N, T) probabilities to learn from."""
        return Rows(self.ids, self.numbers, self.labels, self.weights, torch.from_numpy(soft_labels.astype(np.float32)))

    def to(self, device: str) -> Rows:
        soft = None if self.soft_labels is None else self.soft_labels.to(device)
        return Rows(self.ids.to(device), self.numbers.to(device), self.labels.to(device), self.weights.to(device), soft)


def read_table(folder: Path, features: Sequence[FeatureSpec], labels: Sequence[str]) -> pa.Table:
    """The columns that training needs of all Parquet files under `folder`, in the order of their names.

    Raises:
        ContractError: there is no Parquet file, one is damaged, a column is missing, or there are no rows.
    """
    wanted = [*feature_columns(features)] + [label_column(label) for label in labels] + [WEIGHT]
    parts = []
    for path in sorted(folder.rglob("*.parquet")):
        try:
            with pq.ParquetFile(path) as file:
                if missing := sorted(set(wanted) - set(file.schema_arrow.names)):
                    raise ContractError(f"{path}: column {', '.join(missing)} is missing; run sample again with this recipe")
                parts.append(file.read(columns=wanted))
        except (OSError, pa.ArrowInvalid) as error:
            raise ContractError(
                f"{path}: is not readable Parquet ({str(error).splitlines()[0]}); restore it or run again"
            ) from error
    if not parts or not sum(part.num_rows for part in parts):
        raise ContractError(f"{folder}: no rows to train on; widen the window or the sampling rates")
    return pa.concat_tables(parts, promote_options="permissive")


def weights_of(table: pa.Table, where: Path) -> np.ndarray:
    """(N,) float64 row weights as stored.

    Raises:
        ContractError: one is null, not finite or negative, or all are 0.
    """
    weights: np.ndarray = table.column(WEIGHT).to_numpy().astype(np.float64)
    if not np.isfinite(weights).all() or weights.min() < 0 or weights.sum() <= 0:
        raise ContractError(f"{where}: weights must be finite, not negative and not all 0; run sample again")
    return weights


def labels_of(table: pa.Table, labels: Sequence[str]) -> np.ndarray:
    """(N, T) float32 labels, 0 or 1."""
    return np.stack([table.column(label_column(label)).to_numpy().astype(np.float32) for label in labels], axis=1)


def rows_of(
    table: pa.Table, encoders: Encoders, labels: Sequence[str], where: Path, soft_labels: np.ndarray | None = None
) -> Rows:
    """Encode a table; `soft_labels` are (N, T) probabilities aligned with it."""
    encoded: Encoded = encoders.encode(columns_of(table, encoders.features))
    weights = weights_of(table, where)
    return Rows(
        ids=torch.from_numpy(encoded.ids),
        numbers=torch.from_numpy(encoded.numbers),
        labels=torch.from_numpy(labels_of(table, labels)),
        weights=torch.from_numpy((weights / weights.mean()).astype(np.float32)),
        soft_labels=None if soft_labels is None else torch.from_numpy(soft_labels.astype(np.float32)),
    )


def order(rows: int, seed: int, epoch: int) -> Tensor:
    """A permutation of `rows` (N,) int64: equal arguments, equal order, on any machine."""
    return torch.from_numpy(np.random.Generator(np.random.PCG64([seed, epoch])).permutation(rows))


def num_batches(rows: int, batch_size: int) -> int:
    return -(-rows // batch_size)


def batches(
    rows: Rows, batch_size: int, seed: int, epoch: int, skip: int = 0, rank: int = 0, workers: int = 1
) -> Iterator[Rows]:
    """The batches of one epoch from batch `skip` on; worker `rank` of `workers` gets every workers-th row of each.

    All workers see as many batches, so that none waits for another at the end.
    """
    permutation = order(len(rows), seed, epoch)
    for at in range(skip, num_batches(len(rows), batch_size)):
        index = permutation[at * batch_size : (at + 1) * batch_size]
        mine = index[rank::workers]
        yield rows.take(mine if len(mine) else index[:1])
