"""Intervals by bootstrap, clustered on user: whole users are drawn again, since rows of one user resemble each other.

What benches compare networks with, and what the product's intervals (`tidewheel.evaluation.intervals`) are checked against.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import numpy as np

from tidewheel.evaluation.metrics.weighted_sum import weighted_sum

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


class PresortedAuc:
    """The AUC of fixed scores and labels under many weightings: sorts once, then each weighting costs a cumulative sum."""

    def __init__(self, scores: np.ndarray, labels: np.ndarray) -> None:
        """Args: scores (B,) finite numbers, labels (B,) 0 or 1."""
        is_positive = labels == 1
        order = np.argsort(scores, kind="stable")
        self._positives = order[is_positive[order]]
        self._negatives = order[~is_positive[order]]
        below = np.searchsorted(scores[self._negatives], scores[self._positives], side="left")
        not_above = np.searchsorted(scores[self._negatives], scores[self._positives], side="right")
        self._below, self._not_above = below, not_above
        self._has_ties = bool((below != not_above).any())

    def __call__(self, weight: np.ndarray) -> float:
        """The weighted AUC for row weights (B,), not negative; NaN where a class has no weight, for there is no pair."""
        cumulative = np.concatenate(([0.0], np.cumsum(weight.take(self._negatives))))
        positive = weight.take(self._positives)
        pairs = positive.sum() * cumulative[-1]
        if not pairs > 0:
            return float("nan")
        won = weighted_sum(positive, cumulative.take(self._below))
        if self._has_ties:
            won = 0.5 * (won + weighted_sum(positive, cumulative.take(self._not_above)))
        return float(won / pairs)
