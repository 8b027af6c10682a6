"""Intervals without resampling: the delta method over users, since rows of one user resemble each other.

A metric's variance is the sum over users of the square of their rows' summed influence (Binder 1983; for AUC Obuchowski 1997).
The bootstrap over users agrees with it (tests/unit/evaluation/test_intervals.py) and takes hundreds of times as long.
Legend: B rows, U users.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Self

import numpy as np

from tidewheel.contracts.comparison import Estimate
from tidewheel.evaluation.metrics import Measured

CONFIDENCE = 0.95


class Interval(NamedTuple):
    """(NaN, NaN) where the metric, or its error, is not defined."""

    lower: float
    upper: float


UNDEFINED = Interval(math.nan, math.nan)


class Scale(NamedTuple):
    """Where a metric's error is closer to normal: there the interval is symmetric. `slope` is that of `to`."""

    to: Callable[[float], float]
    back: Callable[[float], float]
    slope: Callable[[float], float]


PLAIN = Scale(lambda x: x, lambda x: x, lambda x: 1.0)
SHARE = Scale(lambda x: math.log(x / (1 - x)), lambda x: 0.5 + 0.5 * math.tanh(x / 2), lambda x: 1 / (x * (1 - x)))  # logit
POSITIVE = Scale(math.log, math.exp, lambda x: 1 / x)


@dataclass(frozen=True)
class Users:
    """(B,) code of each row's user, 0 to `number` - 1, each of them in use."""

    codes: np.ndarray
    number: int

    @classmethod
    def of(cls, ids: np.ndarray) -> Self:
        """Of any ids (B,)."""
        known, codes = np.unique(ids, return_inverse=True)
        return cls(codes, len(known))

    def totals(self, influence: np.ndarray) -> np.ndarray:
        """(U,) sum over each user's rows."""
        return np.bincount(self.codes, weights=influence, minlength=self.number)


def interval(found: Measured, users: Users, scale: Scale = PLAIN, confidence: float = CONFIDENCE) -> Interval:
    """Two-sided interval of a metric.

    Student's t, with the degrees of freedom that the users' totals allow: few users, or few that carry most of the variance (a
    sampled log's heavy rows), say less about it (Satterthwaite 1946; Bell & McCaffrey 2002).
    """
    if not math.isfinite(found.value) or users.number < 2:
        return UNDEFINED
    from scipy.special import stdtrit  # late: who only renders a report loads this module, too

    totals = users.totals(found.influence)
    squares = totals * totals
    variance = float(squares.sum())
    if variance == 0.0:
        return Interval(found.value, found.value)
    spread = float((squares * squares).sum()) / variance**2 - 1 / users.number  # twice the inverse of the degrees
    degrees = min(users.number - 1.0, max(1.0, 2 / spread)) if spread > 0 else users.number - 1.0
    error = math.sqrt(variance * users.number / (users.number - 1))
    reach = float(stdtrit(degrees, (1 + confidence) / 2)) * error * scale.slope(found.value)
    middle = scale.to(found.value)
    return Interval(scale.back(middle - reach), scale.back(middle + reach))


def as_estimate(value: float, bounds: Interval, effective_rows: float) -> Estimate:
    """As a contract: null for what is not finite."""
    numbers = [float(x) if math.isfinite(x) else None for x in (value, *bounds)]
    return Estimate(value=numbers[0], lower=numbers[1], upper=numbers[2], effective_rows=effective_rows)
