"""Intervals by bootstrap, clustered on user: whole users are drawn again, since rows of one user resemble each other."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import numpy as np

# Row weights (B,) in, one number out; NaN where it is not defined under these weights.
Statistic = Callable[[np.ndarray], float]

CONFIDENCE = 0.95
MAX_UNDEFINED_SHARE = 0.05  # of replicates; beyond it an interval would describe the lucky draws only


def resampled_weights(users: np.ndarray, weight: np.ndarray, replicates: int, seed: int) -> Iterator[np.ndarray]:
    """Row weights of each replicate: the row's weight times how often its user was drawn.

    Each replicate draws as many users as there are, with replacement (cluster bootstrap: Davison & Hinkley 1997,
    section 3.8; Field & Welsh 2007). One replicate exists at a time, so memory does not grow with their number.

    Args:
        users: (B,) code of each row's user, 0 to U - 1.
        weight: (B,).

    Yields:
        (B,) float64.
    """
    num_users = int(users.max()) + 1 if len(users) else 0
    generator = np.random.default_rng(seed)
    for _ in range(replicates if num_users else 0):
        drawn = np.bincount(generator.integers(0, num_users, num_users), minlength=num_users)
        yield drawn.take(users) * weight


def bootstrap(
    statistics: Mapping[str, Statistic], users: np.ndarray, weight: np.ndarray, replicates: int, seed: int = 0
) -> dict[str, np.ndarray]:
    """Every statistic on the same replicates, so that differences between any two of them are paired.

    Returns:
        Name -> (replicates,) float64; empty arrays where there are no rows.
    """
    found: dict[str, list[float]] = {name: [] for name in statistics}
    for resampled in resampled_weights(users, weight, replicates, seed):
        for name, statistic in statistics.items():
            found[name].append(statistic(resampled))
    return {name: np.asarray(values, dtype=np.float64) for name, values in found.items()}


def interval(values: np.ndarray, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Percentile interval (Efron & Tibshirani 1993, chapter 13) of a statistic's replicates (R,).

    (NaN, NaN) without replicates, or where more than `MAX_UNDEFINED_SHARE` of them are not finite.
    """
    finite = values[np.isfinite(values)]
    if len(finite) < 2 or len(finite) < (1.0 - MAX_UNDEFINED_SHARE) * len(values):
        return float("nan"), float("nan")
    tail = (1.0 - confidence) / 2
    lower, upper = np.quantile(finite, (tail, 1.0 - tail))
    return float(lower), float(upper)


def reflected_interval(value: float, values: np.ndarray, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Basic interval (Davison & Hinkley 1997, section 5.2) of a statistic that cannot be negative, e.g. an ECE.

    An ECE is biased upward by noise, and its replicates once more by theirs: a percentile interval may lie wholly above
    the value. Mirrored at the value, the second bias takes back the first.
    """
    lower, upper = interval(values, confidence)
    return max(0.0, 2 * value - upper), max(value, 2 * value - lower)
