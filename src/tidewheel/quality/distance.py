"""Distances between weighted samples with intervals that hold whatever the truth is. Pure: numbers in, numbers out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.special import chndtr, chndtrinc

from tidewheel.contracts.evidence import Precision, Quantiles

PSEUDO_ROWS = 0.5  # a bin, Jeffreys: an empty bin on one side gives a large but finite distance


class Interval(NamedTuple):
    """`value` with bounds; each is wrong with at most the probability that was asked for."""

    value: float
    lower: float
    upper: float


def psi(new: Sequence[float] | np.ndarray, old: Sequence[float] | np.ndarray, new_rows: float, old_rows: float) -> float:
    """Population stability index, sum of (p - q) ln(p / q) over bins, of two histograms over the same bins.

    Args:
        new, old: shares of each bin (N,), summing to 1.
        new_rows, old_rows: effective sample sizes; shares are smoothed by `PSEUDO_ROWS` rows a bin.
    """
    p = _smoothed(np.asarray(new, dtype=np.float64), new_rows)
    q = _smoothed(np.asarray(old, dtype=np.float64), old_rows)
    return float(np.sum((p - q) * np.log(p / q)))


def psi_interval(
    new: np.ndarray, old: np.ndarray, new_precision: Precision, old_precision: Precision, level: float
) -> Interval:
    """PSI over the bins that one of the two uses; each bound fails with probability `level`.

    For independent rows and without drift PSI is (1/n + 1/m) times chi-squared with N - 1 degrees of freedom (Yurdakul &
    Naranjo 2020, J. Risk Model Validation 14(4)); with drift it is noncentral, its noncentrality the true index. Weights and
    users that repeat make it a weighted sum of chi-squareds, for which one with the same mean and variance stands (Rao &
    Scott 1981; Satterthwaite 1946). The bounds are the indices under which what was found is as unlikely as `level`.
    """
    used = (new > 0) | (old > 0)
    value = psi(new[used], old[used], new_precision.effective_rows, old_precision.effective_rows)
    if used.sum() < 2:
        return Interval(value, 0.0, 0.0)
    scale, degrees = _scaled_chi_squared(int(used.sum()), new_precision, old_precision)
    if not math.isfinite(scale):
        return Interval(value, 0.0, math.inf)
    lower, upper = (scale * _noncentrality(value / scale, degrees, probability) for probability in (1 - level, level))
    # Samples that share rows lie closer than independent ones may: the interval holds the value all the same.
    return Interval(value, min(value, lower), max(value, upper))


def ks_interval(new: Quantiles, old: Quantiles, level: float) -> Interval:
    """Largest distance of two distribution functions at the points of both; each bound fails with probability `level`.

    The weighted two-sample Kolmogorov-Smirnov distance with effective in place of counted rows (Monahan 2011, Numerical
    Methods of Statistics, 2nd ed.); users are in the effective rows. Chance moves it by at most
    sqrt(ln(2 / level) / 2 (1/n + 1/m)) either way, the tail of Smirnov's limit with Massart's constant (1990). Looking at
    some points only can make the distance smaller than over all of them, never larger.
    """
    value = float(np.max(np.abs(np.asarray(new.cumulative) - np.asarray(old.cumulative))))
    rows = _harmonic(new.effective_rows, old.effective_rows)
    chance = math.sqrt(math.log(2 / level) / (2 * rows)) if rows > 0 else math.inf
    return Interval(value, max(0.0, value - chance), min(1.0, value + chance))


def _scaled_chi_squared(num_bins: int, new: Precision, old: Precision) -> tuple[float, float]:
    """Scale and degrees of the index's distribution without drift.

    Mean and standard deviation of the two samples' parts are added: exact where their covariances are alike, and too wide
    a distribution where they are not (Cauchy-Schwarz).
    """
    if min(new.effective_rows, old.effective_rows) <= 0:
        return math.inf, 1.0
    means = [(num_bins - 1) / precision.effective_rows for precision in (new, old)]
    deviations = [mean / math.sqrt(precision.degrees) for mean, precision in zip(means, (new, old), strict=True)]
    scale = sum(deviations) ** 2 / sum(means)
    return scale, sum(means) / scale


def _noncentrality(found: float, degrees: float, probability: float) -> float:
    """The noncentrality with P(chi-squared <= found) = probability, 0 where even none gives less."""
    if chndtr(found, degrees, 0.0) <= probability:
        return 0.0
    return float(chndtrinc(found, degrees, probability))


def _harmonic(first: float, second: float) -> float:
    return first * second / (first + second) if min(first, second) > 0 else 0.0


def _smoothed(shares: np.ndarray, rows: float) -> np.ndarray:
    return (shares * rows + PSEUDO_ROWS) / (shares.sum() * rows + PSEUDO_ROWS * len(shares))
