"""A metric together with what each row adds to its error. Legend: B rows."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from tidewheel.evaluation.metrics.weighted_sum import weighted_sum


class Measured(NamedTuple):
    """A weighted metric and its influence function (B,) at the rows that it was measured on.

    To first order metric - truth = sum of `influence` over the rows, and that sum is 0 at the estimate itself (Hampel 1974;
    for weighted samples Deville 1999, section 2). Rows of one user are added up before they are squared, see `intervals`.
    """

    value: float
    influence: np.ndarray

    @classmethod
    def undefined(cls, rows: int) -> Measured:
        return cls(float("nan"), np.zeros(rows))

    def __add__(self, other: object) -> Measured:
        """The sum of two metrics of the same rows."""
        assert isinstance(other, Measured)
        return Measured(self.value + other.value, self.influence + other.influence)

    def __sub__(self, other: Measured) -> Measured:
        """The difference of two metrics of the same rows, paired."""
        return Measured(self.value - other.value, self.influence - other.influence)


def ratio(weight: np.ndarray, numerator: np.ndarray, denominator: np.ndarray | float) -> Measured:
    """sum w a / sum w b, undefined where the latter is not above 0 (Särndal et al. 1992, section 5.6)."""
    total = weighted_sum(weight, np.broadcast_to(denominator, weight.shape))
    if not total > 0:
        return Measured.undefined(len(weight))
    value = weighted_sum(weight, numerator) / total
    return Measured(value, weight * (numerator - value * denominator) / total)
