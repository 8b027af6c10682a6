"""Log-loss: mean negative log-likelihood, in nats per row."""

from __future__ import annotations

import numpy as np

from tidewheel.evaluation.metrics.weighted_sum import weighted_sum

EPSILON = float(np.finfo(np.float64).eps)  # a probability of exactly 0 or 1 that is wrong costs 36 nats, not infinity


def row_loss(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """-log of the probability (B,) given to what happened, clipped to [EPSILON, 1 - EPSILON]."""
    clipped = np.clip(probabilities.astype(np.float64, copy=False), EPSILON, 1.0 - EPSILON)
    return -np.log(np.where(labels == 1, clipped, 1.0 - clipped))


def logloss(probabilities: np.ndarray, labels: np.ndarray, weight: np.ndarray) -> float:
    """Weighted mean of `row_loss`; NaN without weight."""
    total = weight.sum()
    return weighted_sum(weight, row_loss(probabilities, labels)) / float(total) if total > 0 else float("nan")
