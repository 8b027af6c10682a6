"""Log-loss, in nats per row, and as a share of what always predicting the base rate loses."""

from __future__ import annotations

import math

import numpy as np

from tidewheel.evaluation.metrics.measured import Measured, ratio

EPSILON = float(np.finfo(np.float64).eps)  # a probability of exactly 0 or 1 that is wrong costs 36 nats, not infinity


def row_loss(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """-log of the probability (B,) given to what happened, clipped to [EPSILON, 1 - EPSILON]."""
    clipped = np.clip(probabilities.astype(np.float64, copy=False), EPSILON, 1.0 - EPSILON)
    return -np.log(np.where(labels == 1, clipped, 1.0 - clipped))


def logloss(probabilities: np.ndarray, labels: np.ndarray, weight: np.ndarray) -> Measured:
    """Weighted mean of `row_loss`."""
    return ratio(weight, row_loss(probabilities, labels), 1.0)


def base_rate(labels: np.ndarray, weight: np.ndarray) -> Measured:
    """Weighted share of positives."""
    return ratio(weight, (labels == 1).astype(np.float64), 1.0)


def normalized_entropy(loss: Measured, rate: Measured) -> Measured:
    """Log-loss over the entropy of the base rate (He et al. 2014, eq. 1): 1 knows nothing but the rate, 0 everything.

    Undefined where only one class is there.
    """
    r = rate.value
    if not 0 < r < 1:
        return Measured.undefined(len(loss.influence))
    entropy = -(r * math.log(r) + (1 - r) * math.log(1 - r))
    slope = math.log((1 - r) / r)  # of the entropy
    value = loss.value / entropy
    return Measured(value, loss.influence / entropy - value * slope / entropy * rate.influence)
