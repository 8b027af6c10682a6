"""Whether probabilities mean what they say: overall (ratio) and along their range (ECE)."""

from __future__ import annotations

import numpy as np

from tidewheel.evaluation.metrics.measured import Measured, ratio

NUM_BINS = 15  # as in Guo et al. 2017


def calibration_ratio(probabilities: np.ndarray, labels: np.ndarray, weight: np.ndarray) -> Measured:
    """Predicted over actual positives, sum w p / sum w y; 1 is calibrated, undefined without positives."""
    return ratio(weight, probabilities, (labels == 1).astype(np.float64))


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


def bin_of(probabilities: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Index of each row's bin (B,), 0 to len(edges)."""
    return np.searchsorted(edges, probabilities, side="left")


def gaps(probabilities: np.ndarray, labels: np.ndarray, weight: np.ndarray, bins: np.ndarray) -> np.ndarray:
    """(K,) of each bin sum w (p - y) / sum of all w; the sum of their absolute values is the ECE (Guo et al. 2017, eq. 3)."""
    return np.bincount(bins, weights=weight * (probabilities - (labels == 1))) / weight.sum()


def ece(probabilities: np.ndarray, labels: np.ndarray, weight: np.ndarray, num_bins: int = NUM_BINS) -> float:
    """Expected calibration error in bins of equal weight (Nguyen & O'Connor 2015); NaN without weight.

    Equal weight, so that the rare high scores of a ranker do not sit in bins of a few rows. Noise makes it positive even for
    perfect probabilities: `calibration_error.debiased_ece` takes that out.
    """
    if not weight.sum() > 0:
        return float("nan")
    bins = bin_of(probabilities, equal_mass_edges(probabilities, weight, num_bins))
    return float(np.abs(gaps(probabilities, labels, weight, bins)).sum())
