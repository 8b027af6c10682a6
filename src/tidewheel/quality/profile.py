"""Weighted histograms of a table: what drift is measured with."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tidewheel.contracts.evidence import Profile
from tidewheel.contracts.schema import WEIGHT, FeatureKind, FeatureSpec, label_column

NUM_NUMERIC_BINS = 10
MAX_CATEGORICAL_VALUES = 50


def profile(table: pa.Table, features: Sequence[FeatureSpec], labels: Sequence[str]) -> Profile:
    """Histograms of every feature, weighted by column `weight`, in bins chosen from this table.

    Numeric bins end at the weighted deciles (fewer where values repeat), categorical bins are the heaviest values.
    Judging is somewhere else, so nothing in the data raises: a column that is missing or holds no weight is left out, a
    weight that is not finite and positive counts as 0, and without the column every row counts once.
    """
    weight = row_weights(table)
    edges: dict[str, tuple[float, ...]] = {}
    values: dict[str, tuple[str, ...]] = {}
    shares: dict[str, tuple[float, ...]] = {}
    for feature in features:
        if feature.name not in table.column_names or not weight.sum() > 0:
            continue
        if feature.kind is FeatureKind.NUMERIC:
            numbers = numbers_of(table[feature.name])
            edges[feature.name] = tuple(_deciles(numbers, weight).tolist())
            shares[feature.name] = _numeric_shares(numbers, weight, edges[feature.name])
        else:
            names, codes = _categories(table[feature.name])
            values[feature.name] = _heaviest(names, codes, weight)
            shares[feature.name] = _categorical_shares(names, codes, weight, values[feature.name])
    return _assemble(table, weight, edges, values, shares, labels)


def profile_on(table: pa.Table, baseline: Profile, labels: Sequence[str]) -> Profile:
    """Histograms of this table in the bins of `baseline`, so that the shares of both can be compared one by one.

    Features that the table lacks, or that hold no weight, are left out; nothing in the data raises.
    """
    weight = row_weights(table)
    shares: dict[str, tuple[float, ...]] = {}
    if weight.sum() > 0:
        for name, edges in baseline.numeric_edges.items():
            if name in table.column_names:
                shares[name] = _numeric_shares(numbers_of(table[name]), weight, edges)
        for name, values in baseline.categorical_values.items():
            if name in table.column_names:
                shares[name] = _categorical_shares(*_categories(table[name]), weight, values)
    return _assemble(table, weight, baseline.numeric_edges, baseline.categorical_values, shares, labels)


def row_weights(table: pa.Table) -> np.ndarray:
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
    """The column as float64 (B,); null, and text that is not a number, become NaN."""
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


def _assemble(
    table: pa.Table,
    weight: np.ndarray,
    edges: dict[str, tuple[float, ...]],
    values: dict[str, tuple[str, ...]],
    shares: dict[str, tuple[float, ...]],
    labels: Sequence[str],
) -> Profile:
    rates: dict[str, float] = {}
    for label in labels:
        if label_column(label) in table.column_names:
            positive = numbers_of(table[label_column(label)])
            known = weight * np.isfinite(positive)
            if known.sum() > 0:
                rates[label] = float(known @ (positive == 1.0) / known.sum())
    return Profile(
        numeric_edges=edges,
        categorical_values=values,
        shares=shares,
        label_rates=rates,
        rows=table.num_rows,
        effective_rows=effective_rows(weight),
    )


def _deciles(numbers: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Inner edges (E,), E <= 9, ascending and distinct: the smallest values with at least 10%, 20%, ... of the weight."""
    known = np.isfinite(numbers) & (weight > 0)
    numbers, weight = numbers[known], weight[known]
    if not len(numbers):
        return np.empty(0)
    order = np.argsort(numbers)
    cumulative = np.cumsum(weight[order])
    wanted = cumulative[-1] * np.arange(1, NUM_NUMERIC_BINS) / NUM_NUMERIC_BINS
    return np.unique(numbers[order[np.searchsorted(cumulative, wanted)]])


def _numeric_shares(numbers: np.ndarray, weight: np.ndarray, edges: Sequence[float]) -> tuple[float, ...]:
    """Shares of (-inf, e1), [e1, e2), ..., [eE, inf) and of null."""
    bins = np.searchsorted(np.asarray(edges, dtype=np.float64), numbers, side="right")
    bins[np.isnan(numbers)] = len(edges) + 1
    return _shares(bins, weight, len(edges) + 2)


def _categories(column: pa.ChunkedArray) -> tuple[np.ndarray, np.ndarray]:
    """Distinct values as text (V,) and the code of each row (B,), V for null."""
    encoded = column.combine_chunks()
    if not pa.types.is_dictionary(encoded.type):
        encoded = encoded.dictionary_encode()
    names = np.asarray(encoded.dictionary.cast(pa.string()).to_pylist(), dtype=object)
    codes = pc.fill_null(encoded.indices.cast(pa.int64()), len(names)).to_numpy(zero_copy_only=False)
    return names, codes


def _heaviest(names: np.ndarray, codes: np.ndarray, weight: np.ndarray) -> tuple[str, ...]:
    """The values with the most weight, heaviest first; equal weights in the order of their text."""
    totals = np.bincount(codes, weights=weight, minlength=len(names) + 1)[: len(names)]
    order = sorted(np.argsort(-totals, kind="stable")[: 4 * MAX_CATEGORICAL_VALUES], key=lambda i: (-totals[i], names[i]))
    return tuple(str(names[i]) for i in order[:MAX_CATEGORICAL_VALUES] if totals[i] > 0)


def _categorical_shares(names: np.ndarray, codes: np.ndarray, weight: np.ndarray, values: Sequence[str]) -> tuple[float, ...]:
    """Shares of each of `values`, of all others, and of null."""
    place = {value: index for index, value in enumerate(values)}
    bins = np.array([*(place.get(name, len(values)) for name in names), len(values) + 1], dtype=np.int64)
    return _shares(bins[codes], weight, len(values) + 2)


def _shares(bins: np.ndarray, weight: np.ndarray, num_bins: int) -> tuple[float, ...]:
    totals = np.bincount(bins, weights=weight, minlength=num_bins)
    return tuple((totals / totals.sum()).tolist())
