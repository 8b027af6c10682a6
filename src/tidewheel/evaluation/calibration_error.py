"""Expected calibration error without what noise adds to it, with an interval. Legend: B rows, U users, K bins, R draws.

The plain ECE is a sum of absolute gaps: noise makes it positive where nothing is wrong, and a bootstrap around it calls most
perfect models wrong. Here the sum that was seen is set against the sums that true gaps of every size would show (inversion of a
test: Davison & Hinkley 1997, section 5.4; the normal model of the gaps is that of Kumar et al. 2019, section 4.1).
"""

from __future__ import annotations

import math

import numpy as np

from tidewheel.evaluation.intervals import CONFIDENCE, UNDEFINED, Interval, Users
from tidewheel.evaluation.metrics import bin_of, equal_mass_edges, gaps

DRAWS = 2000
HALVINGS = 20
SHAPE_DEGREE = 2  # of the curve that gaps are pulled toward


def debiased_ece(
    probabilities: np.ndarray, labels: np.ndarray, weight: np.ndarray, users: Users, confidence: float = CONFIDENCE
) -> tuple[float, Interval]:
    """The estimate is the size of the true gaps at which half of the sums would be larger than the one seen, 0 where noise
    alone shows as much; a bound is the size at which only so few would be. Gaps of other sizes keep the shape along the bins.

    Returns:
        NaN without weight or with one user.
    """
    total = float(weight.sum())
    if not total > 0 or users.number < 2:
        return math.nan, UNDEFINED
    bins = bin_of(probabilities, equal_mass_edges(probabilities, weight))
    found = gaps(probabilities, labels, weight, bins)
    covariance = _covariance(weight * (probabilities - (labels == 1)) / total, bins, weight / total, found, users)
    noise = np.random.default_rng(0).multivariate_normal(np.zeros(len(found)), covariance, DRAWS, method="eigh")
    seen, shape = float(np.abs(found).sum()), _shape(found, np.sqrt(np.diag(covariance)))
    tail = (1 - confidence) / 2
    middle, lower, upper = (_size_at(seen, share, shape, noise) for share in (0.5, 1 - tail, tail))
    return middle, Interval(lower, upper)


def _covariance(gap: np.ndarray, bins: np.ndarray, share: np.ndarray, found: np.ndarray, users: Users) -> np.ndarray:
    """(K, K) of the bins' gaps, over users."""
    cells = users.codes * len(found) + bins
    by_user = np.bincount(cells, weights=gap, minlength=users.number * len(found)).reshape(users.number, len(found))
    by_user -= np.outer(users.totals(share), found)
    return by_user.T @ by_user * (users.number / (users.number - 1))


def _shape(found: np.ndarray, error: np.ndarray) -> np.ndarray:
    """(K,) gaps pulled toward a smooth curve along the bins, the more so the less they stray from it beyond their errors
    (James & Stein 1961): with the noise of single bins left in, the noise that is to be taken out would be counted twice.
    """
    if len(found) <= SHAPE_DEGREE + 3 or not (error > 0).all():
        return found
    curve = np.vander(np.linspace(-1, 1, len(found)), SHAPE_DEGREE + 1)
    smooth = curve @ np.linalg.lstsq(curve / error[:, None], found / error, rcond=None)[0]
    strayed = float((((found - smooth) / error) ** 2).sum())
    kept = max(0.0, 1 - (len(found) - SHAPE_DEGREE - 3) / strayed) if strayed > 0 else 0.0
    return smooth + kept * (found - smooth)


def _size_at(seen: float, share: float, shape: np.ndarray, noise: np.ndarray) -> float:
    """The size of true gaps, sum of their absolute values, at which `share` of the draws (R, K) sum up to less than `seen`."""

    def quantile(times: float) -> float:
        return float(np.quantile(np.abs(times * shape + noise).sum(axis=1), share))

    if not np.abs(shape).sum() > 0 or quantile(0.0) >= seen:
        return 0.0
    low, high = 0.0, 1.0
    while quantile(high) < seen:
        low, high = high, 2 * high
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if quantile(middle) < seen else (low, middle)
    return high * float(np.abs(shape).sum())
