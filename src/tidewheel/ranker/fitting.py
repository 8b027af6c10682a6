"""What encoders learn from training rows: vocabularies, and moments of numeric features."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from tidewheel.contracts.schema import FeatureKind, FeatureSpec
from tidewheel.errors import ContractError
from tidewheel.ranker.columns import Coded, Columns
from tidewheel.ranker.encoding import Encoders, Moments, transformed, vocabulary_name


class Fitting:
    """Learns encoders from training rows that come in parts: memory does not grow with their number."""

    def __init__(self, features: Sequence[FeatureSpec]) -> None:
        self.features = tuple(features)
        self._names: dict[str, set[str]] = {f.name: set() for f in features if f.kind is FeatureKind.VOCABULARY}
        self._sums: dict[str, _Sums] = {f.name: _Sums() for f in features if f.kind is FeatureKind.NUMERIC}

    def add(self, columns: Columns, weights: np.ndarray) -> None:
        """Learn from rows: the raw column of each feature (B,), and their weights (B,).

        Raises:
            ContractError: a column is missing.
        """
        for feature in self.features:
            if missing := [name for name in feature.columns if name not in columns]:
                raise ContractError(f"features: column {missing[0]} is missing from the training rows")
            column = columns[feature.name]
            if feature.kind is FeatureKind.VOCABULARY:
                self._names[feature.name].update(map(vocabulary_name, _distinct(column)))
            elif feature.kind is FeatureKind.NUMERIC:
                self._sums[feature.name].add(transformed(feature, np.asarray(column)), weights)

    def done(self) -> Encoders:
        """The encoders of all rows so far. Moments are weighted, so that a sampled log standardizes like the whole one.

        Raises:
            ContractError: no row of a numeric feature has a value, or a sequence is of a feature that is not among these.
        """
        hashed = {feature.name for feature in self.features if feature.kind is FeatureKind.HASHED}
        if lost := [f"{x.name} is of {x.of}" for x in self.features if x.is_sequence and x.of not in hashed]:
            raise ContractError(f"features: {', '.join(lost)}; expected a hashed feature among those that the model takes")
        return Encoders(
            features=self.features,
            vocabularies={name: tuple(sorted(found - {""})) for name, found in self._names.items()},
            moments={name: sums.moments(name) for name, sums in self._sums.items()},
        )


class _Sums:
    """Weight, mean and sum of squared distances of the values so far (Chan, Golub, LeVeque 1979, eq. 2.1, with weights)."""

    def __init__(self) -> None:
        self.weight = self.mean = self.squares = 0.0
        self.has_nulls = False

    def add(self, values: np.ndarray, weights: np.ndarray) -> None:
        present = ~np.isnan(values)
        self.has_nulls |= not present.all()
        values, weights = values[present], np.asarray(weights, dtype=np.float64)[present]
        if (weight := float(weights.sum())) <= 0:
            return
        # Sums, not dot products: a threaded BLAS would make the last bits depend on the machine.
        mean = float((values * weights).sum()) / weight
        squares = float(((values - mean) ** 2 * weights).sum())
        distance, total = mean - self.mean, self.weight + weight
        self.squares += squares + distance * distance * self.weight * weight / total
        self.mean += distance * weight / total
        self.weight = total

    def moments(self, name: str) -> Moments:
        if self.weight <= 0:
            raise ContractError(f"feature {name}: no training row has a value; drop the feature or repair its source")
        variance = self.squares / self.weight
        # A feature that never varied tells nothing; a deviation of 1 keeps it finite should it vary later.
        deviation = math.sqrt(variance) if variance > 1e-12 else 1.0
        return Moments(mean=self.mean, deviation=deviation, has_nulls=self.has_nulls)


def fit(columns: Columns, weights: np.ndarray, features: Sequence[FeatureSpec]) -> Encoders:
    """Learn encoders from rows that are all here, see `Fitting`.

    Raises:
        ContractError: a column is missing, or no row of a numeric feature has a value.
    """
    fitting = Fitting(features)
    fitting.add(columns, weights)
    return fitting.done()


def _distinct(column: np.ndarray | Coded) -> list[Any]:
    if isinstance(column, Coded):
        present = np.bincount(column.codes, minlength=len(column.values)) > 0  # a dictionary may know more than the rows
        return [value for value, is_present in zip(column.values, present.tolist(), strict=True) if is_present]
    values = np.asarray(column)
    return np.unique(values).tolist() if values.dtype.kind in "iufU" else list(set(values.tolist()))
