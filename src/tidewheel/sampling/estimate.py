"""What a weighted sample says of the rows that it stands for: totals, their variance, and how many rows it is worth."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Total:
    """An estimated total and the variance of that estimate."""

    value: float
    variance: float

    def interval(self, quantile: float = 1.959964) -> tuple[float, float]:
        """value -+ quantile standard errors; the default covers the truth in 95% of large samples."""
        half = quantile * math.sqrt(self.variance)
        return self.value - half, self.value + half


def horvitz_thompson(weights: np.ndarray, values: np.ndarray | float = 1.0) -> Total:
    """The total of `values` over all rows, from those that were kept independently of each other.

    value = sum w y, variance = sum w (w - 1) y^2: Särndal, Swensson and Wretman 1992, "Model assisted survey sampling",
    section 3.5 (Poisson sampling), with w = 1 / inclusion probability. Both are unbiased where that probability does not
    depend on the draw, i.e. for rules, caps and hashes of this package. A log that keeps or drops whole users or requests
    is not independent by row: its variance is larger than this. Intervals from it are for large samples: where a few heavy
    rows make up a slice (under some 50 effective rows) they are too narrow.

    Args:
        weights: (N,) 1 / probability with which the row was logged and kept.
        values: (N,) or one number for all; 1 estimates how many rows there were.
    """
    scaled = weights * values
    return Total(float(scaled.sum()), float((scaled * (weights - 1.0) * values).sum()))


def effective_rows(weights_sum: float, squares_sum: float) -> float:
    """Kish's effective sample size (sum w)^2 / sum w^2 (Kish 1965, section 11.7); 0 without weight."""
    return weights_sum**2 / squares_sum if squares_sum > 0 else 0.0
