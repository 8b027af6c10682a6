"""Weighted histograms of a table: what drift is measured with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tidewheel.contracts.evidence import Precision, Profile, Quantiles
from tidewheel.contracts.schema import WEIGHT, FeatureKind, FeatureSpec, label_column
from tidewheel.quality.lists import is_list, number_of
from tidewheel.quality.precision import group_totals, shares_precision, user_groups, worst_point_rows
from tidewheel.quality.rows import Rows

NUM_NUMERIC_BINS = 10
NUM_QUANTILES = 100
MAX_CATEGORICAL_VALUES = 50
MAX_QUANTILE_ROWS = 500_000


def profile(table: Rows, features: Sequence[FeatureSpec], labels: Sequence[str]) -> Profile:
    """Histograms of every feature, weighted by column `weight`, in bins chosen from this table.

    Numeric bins end at the weighted deciles (fewer where values repeat), categorical bins are the heaviest values. Deciles
    and percentiles are those of `MAX_QUANTILE_ROWS` rows evenly taken; what lies between them is counted on all rows. Of a
    sequence it is the length. Judging is somewhere else, so nothing in the data raises: a column that is missing or holds no
    weight is left out, a weight that is not finite and positive counts as 0, and without the column every row counts once.
    """
    sample = _Sample.of(table)
    for feature in features if sample.total > 0 else ():
        if feature.name not in table.column_names:
            continue
        if feature.kind is FeatureKind.NUMERIC or feature.is_sequence:
            numbers = numbers_of(table[feature.name])
            points = percentiles(numbers, sample.weight)
            sample.add_numeric(feature.name, numbers, points, weighted_quantiles(numbers, sample.weight, NUM_NUMERIC_BINS))
        else:
            sample.add_categorical(feature.name, *_categories(table[feature.name]), None)
    return sample.profile(table, labels)


def profile_on(table: Rows, baseline: Profile, labels: Sequence[str]) -> Profile:
    """Histograms of this table in the bins of `baseline`, so that the shares of both can be compared one by one.

    Features that the table lacks, or that hold no weight, are left out; nothing in the data raises.
    """
    sample = _Sample.of(table)
    if sample.total > 0:
        for name, edges in baseline.numeric_edges.items():
            if name in table.column_names:
                known = baseline.quantiles.get(name)
                points = np.asarray(known.points if known else edges, dtype=np.float64)
                sample.add_numeric(name, numbers_of(table[name]), points, np.asarray(edges, dtype=np.float64))
        for name, values in baseline.categorical_values.items():
            if name in table.column_names:
                sample.add_categorical(name, *_categories(table[name]), values)
    return sample.profile(table, labels)


@dataclass
class _Sample:
    """One table's weights (B,) and user groups (B,), and what was counted with them so far."""

    weight: np.ndarray
    groups: np.ndarray
    total: float
    edges: dict[str, tuple[float, ...]] = field(default_factory=dict)
    values: dict[str, tuple[str, ...]] = field(default_factory=dict)
    shares: dict[str, tuple[float, ...]] = field(default_factory=dict)
    quantiles: dict[str, Quantiles] = field(default_factory=dict)
    precision: dict[str, Precision] = field(default_factory=dict)

    @classmethod
    def of(cls, table: Rows) -> Self:
        weight = row_weights(table)
        return cls(weight=weight, groups=user_groups(table), total=float(weight.sum()))

    def add_numeric(self, name: str, numbers: np.ndarray, points: np.ndarray, edges: np.ndarray) -> None:
        """Bins (-inf, e1), [e1, e2), ..., [eE, inf) and null; the distribution function of what is known at `points`."""
        self.edges[name] = tuple(edges.tolist())
        cuts = np.union1d(points, edges)
        cells = np.searchsorted(cuts, numbers, side="right")
        cells[np.isnan(numbers)] = len(cuts) + 1
        fine = group_totals(self.groups, cells, self.weight, len(cuts) + 2)
        self._count(name, _merged(fine, np.searchsorted(cuts, edges)))
        known = _merged(fine[:, :-1], np.searchsorted(cuts, points), has_null=False)
        if len(points) and known.sum() > 0:
            below = np.cumsum(known.sum(axis=0))[:-1] / known.sum()
            effective = min(worst_point_rows(known), effective_rows(self.weight))
            self.quantiles[name] = Quantiles(points=points.tolist(), cumulative=below.tolist(), effective_rows=effective)

    def add_categorical(self, name: str, values: pa.Array, codes: np.ndarray, wanted: Sequence[str] | None) -> None:
        """Bins of each of the `wanted` values (None: the heaviest here), of all others, and of null."""
        self.values[name] = tuple(wanted) if wanted is not None else _heaviest(values, codes, self.weight)
        place = pc.index_in(values.cast(pa.string()), value_set=pa.array(self.values[name], pa.string()))
        others = len(self.values[name])
        bins = np.append(pc.fill_null(place, others).to_numpy(zero_copy_only=False), others + 1).astype(np.int64)
        self._count(name, group_totals(self.groups, bins[codes], self.weight, others + 2))

    def _count(self, name: str, totals: np.ndarray) -> None:
        self.shares[name] = tuple((totals.sum(axis=0) / totals.sum()).tolist())
        self.precision[name] = shares_precision(totals)

    def profile(self, table: Rows, labels: Sequence[str]) -> Profile:
        rates: dict[str, float] = {}
        for label in labels:
            name = label_column(label)
            if name in table.column_names:
                positive = numbers_of(table[name])
                known = self.weight * np.isfinite(positive)
                if known.sum() > 0:
                    totals = group_totals(self.groups, (positive == 1.0).astype(np.int64), known, 2)
                    rates[label] = float(totals[:, 1].sum() / totals.sum())
                    self.precision[name] = shares_precision(totals)
        return Profile(
            numeric_edges=self.edges,
            categorical_values=self.values,
            shares=self.shares,
            label_rates=rates,
            rows=table.num_rows,
            effective_rows=effective_rows(self.weight),
            weight_sum=self.total,
            quantiles=self.quantiles,
            precision=self.precision,
        )


def _merged(fine: np.ndarray, cuts: np.ndarray, has_null: bool = True) -> np.ndarray:
    """Totals by group and cell (G, C), the cells between `cuts` (E,) added up: (G, E + 1), and a last one for null."""
    values = fine[:, :-1] if has_null else fine
    starts = np.concatenate([[0], cuts + 1]).astype(np.int64)
    merged = np.add.reduceat(values, starts, axis=1)
    return np.hstack([merged, fine[:, -1:]]) if has_null else merged


def row_weights(table: Rows) -> np.ndarray:
    """Weights (B,) float64, 0 where the column does not hold a finite positive number, 1 where there is no column."""
    if WEIGHT not in table.column_names:
        return np.ones(table.num_rows)
    weight = numbers_of(table[WEIGHT])
    return np.where(np.isfinite(weight) & (weight > 0), weight, 0.0)


def effective_rows(weight: np.ndarray) -> float:
    """Kish's effective sample size (sum w)^2 / sum w^2 (Kish 1965, section 11.7); 0 without weight."""
    squares = float(np.square(weight).sum())
    return float(weight.sum()) ** 2 / squares if squares > 0 else 0.0


def numbers_of(column: pa.ChunkedArray) -> np.ndarray:
    """The column as float64 (B,), lists as their lengths; null, and text that is not a number, become NaN."""
    if is_list(column.type):
        return number_of("", column)
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        return np.array([_number(value) for value in column.to_pylist()], dtype=np.float64)
    if pa.types.is_boolean(column.type):
        column = column.cast(pa.int8())
    if pa.types.is_integer(column.type) or pa.types.is_floating(column.type):
        # The cast may round integers beyond 2^53: bins do not need their last digits.
        return pc.fill_null(column.cast(pa.float64(), safe=False), np.nan).to_numpy()
    return np.full(len(column), np.nan)


def _number(value: str | None) -> float:
    try:
        return float("nan") if value is None else float(value)
    except ValueError:
        return float("nan")


def weighted_quantiles(numbers: np.ndarray, weight: np.ndarray, num_bins: int) -> np.ndarray:
    """Ascending and distinct: the smallest values with at least 1/N, 2/N, ... (N - 1)/N of the weight of the known ones."""
    step = max(1, len(numbers) // MAX_QUANTILE_ROWS)
    numbers, weight = numbers[::step], weight[::step]
    known = np.isfinite(numbers) & (weight > 0)
    numbers, weight = numbers[known], weight[known]
    if not len(numbers):
        return np.empty(0)
    order = np.argsort(numbers)
    cumulative = np.cumsum(weight[order])
    wanted = cumulative[-1] * np.arange(1, num_bins) / num_bins
    return np.unique(numbers[order[np.searchsorted(cumulative, wanted)]])


def percentiles(numbers: np.ndarray, weight: np.ndarray) -> np.ndarray:
    return weighted_quantiles(numbers, weight, NUM_QUANTILES)


def _categories(column: pa.ChunkedArray) -> tuple[pa.Array, np.ndarray]:
    """Distinct values (V,) and the code of each row (B,), V for null."""
    encoded = column.combine_chunks()
    if not pa.types.is_dictionary(encoded.type):
        encoded = encoded.dictionary_encode()
    codes = pc.fill_null(encoded.indices.cast(pa.int64()), len(encoded.dictionary)).to_numpy(zero_copy_only=False)
    return encoded.dictionary, codes


def _heaviest(values: pa.Array, codes: np.ndarray, weight: np.ndarray) -> tuple[str, ...]:
    """The values with the most weight, heaviest first; equal weights in the order of their text."""
    totals = np.bincount(codes, weights=weight, minlength=len(values) + 1)[: len(values)]
    heavy = np.argsort(-totals, kind="stable")[: 4 * MAX_CATEGORICAL_VALUES]
    names = dict(zip(heavy.tolist(), values.take(pa.array(heavy)).cast(pa.string()).to_pylist(), strict=True))
    order = sorted(names, key=lambda i: (-totals[i], names[i]))
    return tuple(str(names[i]) for i in order[:MAX_CATEGORICAL_VALUES] if totals[i] > 0)
