"""What can go wrong in the world without leaving a trace in its logs.

`served_features`: the candidate's servers are deployed against a broken online feature source. Its batch read of items
answers in the reverse order of the keys, so that every candidate gets another one's features, and it gives rates in percent.
The log, from which offline features are made, is right: no offline evaluation can see it.

`inverted_labels`: the client sends its flags the wrong way round, so that the log says the opposite of what users did. An
evaluation on such days is as wrong as the training; users see the slates as they are, and a canary knows.

The faults of production (tidewheel.contracts.faults.ProductionFault) change what its servers do on whole days of the log, and
so what they rank and which scores they write down. Features of the log stay what they truly were: `tidewheel diagnose` has to
find the fault in the scores and in what users did.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TypeVar

import numpy as np

from tidewheel.contracts.faults import (
    AnyFault,
    BrokenCalibrator,
    LayoutChange,
    MissingFeature,
    ProductionFault,
    ScaledFeature,
    StaleFeatures,
    TrafficShift,
)
from tidewheel.contracts.schema import Entity, FeatureKind, FeatureSpec
from tidewheel.errors import ConfigError

_KEY = "item_id"  # comes with the request, not from the source
_PERCENT = 100.0
_COUNTED = ("_rate", "_impressions")  # how the names of counters end: they and sequences can be out of date

P = TypeVar("P", bound=ProductionFault)
Columns = Mapping[str, np.ndarray]


def is_active(faults: Iterable[AnyFault], kind: str, moment: datetime) -> bool:
    """Whether a fault of this kind has started and not ended: `start <= moment < end`."""
    return any(fault.kind == kind and fault.start <= moment < fault.end for fault in faults)


def broken_features(columns: Mapping[str, np.ndarray], features: tuple[FeatureSpec, ...]) -> dict[str, np.ndarray]:
    """The columns of one request as the broken source serves them; the request's own columns stay as they are."""
    broken = {name: columns[name] for name in columns}
    for feature in features:
        if feature.entity is Entity.ITEM and feature.name != _KEY:
            broken[feature.name] = np.ascontiguousarray(broken[feature.name][::-1])
        if feature.name.endswith("_rate"):
            broken[feature.name] = broken[feature.name] * _PERCENT
    return broken


def check_faults(faults: Iterable[AnyFault], features: tuple[FeatureSpec, ...]) -> None:
    """Every feature that a fault names can have it.

    Raises:
        ConfigError: it is not a feature of the recipe, or not one of the kind that the fault is about.
    """
    by_name = {feature.name: feature for feature in features}
    for fault in faults:
        named = fault.features if isinstance(fault, StaleFeatures) else (getattr(fault, "feature", ""),)
        for name in filter(None, named):
            if name not in by_name:
                raise ConfigError(f"source.faults: {fault.kind} names {name}; expected one of {', '.join(sorted(by_name))}")
            feature = by_name[name]
            if isinstance(fault, ScaledFeature) and feature.kind is not FeatureKind.NUMERIC:
                raise ConfigError(f"source.faults: {fault.kind} names {name}, which is {feature.kind.value}; expected a number")
            if isinstance(fault, StaleFeatures) and not (feature.is_sequence or name.endswith(_COUNTED)):
                raise ConfigError(f"source.faults: {fault.kind} names {name}; expected counters or sequences")


@dataclass(frozen=True)
class ProductionFaults:
    """Those of production's faults that are active on one day."""

    active: tuple[AnyFault, ...]
    features: tuple[FeatureSpec, ...]

    @classmethod
    def at(cls, faults: Iterable[AnyFault], features: tuple[FeatureSpec, ...], moment: datetime) -> ProductionFaults:
        """Those with `start <= moment < end`."""
        found = (fault for fault in faults if isinstance(fault, ProductionFault) and fault.start <= moment < fault.end)
        return cls(tuple(found), features)

    def _of(self, kind: type[P]) -> list[P]:
        return [fault for fault in self.active if isinstance(fault, kind)]

    @property
    def surface_share(self) -> tuple[str, float] | None:
        """A surface and its share of the requests, where that is not the usual one."""
        shifts = self._of(TrafficShift)
        return (shifts[-1].surface, shifts[-1].share) if shifts else None

    @property
    def power(self) -> float | None:
        """How fast looking falls with the position, where that is not the usual one."""
        changes = self._of(LayoutChange)
        return changes[-1].power if changes else None

    def served(self, columns: Columns, past: Callable[[int, tuple[str, ...]], Columns], rng: np.random.Generator) -> Columns:
        """The columns (B, ...) as the servers get them.

        Args:
            past: (days, names) -> the same rows' columns as they were so many days earlier.
        """
        found = dict(columns)
        for stale in self._of(StaleFeatures):
            found |= past(stale.days, self._columns(stale.features))
        for scaled in self._of(ScaledFeature):
            found[scaled.feature] = np.asarray(found[scaled.feature], dtype=np.float64) * scaled.factor
        for missing in self._of(MissingFeature):
            rows = len(next(iter(found.values())))
            is_gone = rng.random(rows) < missing.share
            found |= {name: without(found[name], is_gone) for name in self._columns((missing.feature,))}
        return found

    def scores(self, found: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
        """Probabilities as the servers answer with them."""
        for broken in self._of(BrokenCalibrator):
            found = {label: _recalibrated(p, broken.slope, broken.shift) for label, p in found.items()}
        return found

    def _columns(self, names: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(column for feature in self.features if feature.name in names for column in feature.columns)


def without(column: np.ndarray, is_gone: np.ndarray) -> np.ndarray:
    """The column with null, in the form of its type, where the value is gone; a sequence is empty there."""
    if column.ndim == 2:
        return np.where(is_gone[:, None], -1, column)
    if column.dtype.kind == "f":
        return np.where(is_gone, np.nan, column)
    found = column.astype(object)
    found[is_gone] = None
    return found


def _recalibrated(probabilities: np.ndarray, slope: float, shift: float) -> np.ndarray:
    odds = np.asarray(probabilities, dtype=np.float64)
    logits = np.log(odds) - np.log1p(-odds)
    return 1.0 / (1.0 + np.exp(-(slope * logits + shift)))
