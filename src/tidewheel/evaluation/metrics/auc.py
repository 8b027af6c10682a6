"""Area under the ROC curve."""

from __future__ import annotations

import numpy as np

from tidewheel.evaluation.metrics.weighted_sum import weighted_sum


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


def auc(scores: np.ndarray, labels: np.ndarray, weight: np.ndarray) -> float:
    """Weighted probability that a positive row scores above a negative one, ties counting one half.

    The Mann-Whitney form (Hanley & McNeil 1982) with each pair weighted by the product of its rows' weights. NaN where
    one class has no weight.

    Args:
        scores: (B,) finite numbers.
        labels: (B,) 0 or 1.
        weight: (B,) not negative.
    """
    return PresortedAuc(scores, labels)(weight)
