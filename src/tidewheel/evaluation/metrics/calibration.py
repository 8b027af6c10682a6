"""Whether probabilities mean what they say: overall (ratio) and along their range (ECE)."""

from __future__ import annotations

import numpy as np

from tidewheel.evaluation.metrics.weighted_sum import weighted_sum

NUM_BINS = 15  # as in Guo et al. 2017


def calibration_ratio(probabilities: np.ndarray, labels: np.ndarray, weight: np.ndarray) -> float:
    """Predicted over actual positives, sum w p / sum w y; 1 is calibrated, NaN without positives."""
    actual = float(weight[labels == 1].sum())
    return weighted_sum(weight, probabilities) / actual if actual > 0 else float("nan")


def equal_mass_edges(probabilities: np.ndarray, weight: np.ndarray, num_bins: int = NUM_BINS) -> np.ndarray:
    """Inner edges (E,), E <= num_bins - 1, ascending: bins between them hold equal weight, as far as ties allow.

    An edge belongs to the bin that it ends, see `bin_of`.
    """
    order = np.argsort(probabilities, kind="stable")
    cumulative = np.cumsum(weight[order])
    if not len(order) or cumulative[-1] <= 0:
        return np.empty(0)
    wanted = cumulative[-1] * np.arange(1, num_bins) / num_bins
    # half a unit in the last place of the sum: 1/3 + 1/3 + 1/3 must reach 1
    reached = np.searchsorted(cumulative * (1 + 1e-12), wanted)
    return np.unique(probabilities[order[np.minimum(reached, len(order) - 1)]])


def ece(probabilities: np.ndarray, labels: np.ndarray, weight: np.ndarray, num_bins: int = NUM_BINS) -> float:
    """Expected calibration error: sum over bins of |sum w p - sum w y| / sum w (Guo et al. 2017, eq. 3).

    Bins hold equal weight (Nguyen & O'Connor 2015), so the rare high scores of a ranker do not sit in bins of a few rows.
    Noise makes it positive even for perfect probabilities: about sqrt(2 p (1 - p) num_bins / (pi B)).
    """
    if not weight.sum() > 0:
        return float("nan")
    bins = bin_of(probabilities, equal_mass_edges(probabilities, weight, num_bins))
    return binned_error(bins, weight * (probabilities - (labels == 1)), float(weight.sum()))


def bin_of(probabilities: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Index of each row's bin (B,), 0 to len(edges)."""
    return np.searchsorted(edges, probabilities, side="left")


def binned_error(bins: np.ndarray, gaps: np.ndarray, total: float) -> float:
    """ECE from each row's bin (B,) and its weighted gap w (p - y) (B,); `total` is the sum of the weights."""
    return float(np.abs(np.bincount(bins, weights=gaps)).sum() / total) if total > 0 else float("nan")
