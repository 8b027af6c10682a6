"""Is production still calibrated on the new window: predicted / actual and ECE, weighted, with intervals over users."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from scipy.special import chdtri, ndtri

from tidewheel.contracts.evidence import Comparison
from tidewheel.contracts.recipe import ValidateConfig
from tidewheel.contracts.schema import label_column
from tidewheel.contracts.verdict import Reason
from tidewheel.quality.distance import Interval
from tidewheel.quality.drift import compared, judge
from tidewheel.quality.precision import group_totals, product, user_groups
from tidewheel.quality.profile import effective_rows, numbers_of, row_weights, weighted_quantiles
from tidewheel.quality.rows import Rows

NUM_BINS = 15
REPLICATES = 500
SEED = 0


def calibration(
    rows: Rows, scores: Mapping[str, np.ndarray], labels: Sequence[str], config: ValidateConfig, level: float
) -> tuple[list[Reason], list[Comparison]]:
    """Judge production's probabilities, label -> (B,), on rows that it did not learn from.

    Labels that production does not score, or that the rows lack, are left out.

    Args:
        level: false-alarm rate of one comparison; each label makes two.
    """
    weight, groups = row_weights(rows), user_groups(rows)
    reasons, comparisons = [], []
    for label in labels:
        if label not in scores or label_column(label) not in rows.column_names:
            continue
        found = np.asarray(scores[label], dtype=np.float64)
        positive = numbers_of(rows[label_column(label)]) == 1.0
        ratio = calibration_ratio(found, positive, weight, groups, level)
        error = expected_calibration_error(found, positive, weight, groups, level)
        kish = effective_rows(weight * np.isfinite(found))
        for name, interval, limit in (
            ("predicted/actual - 1", away_from_one(ratio), config.max_calibration_error),
            ("ece", error, config.max_ece),
        ):
            check = f"calibration {label}{' ece' if name == 'ece' else ''}"
            comparison = compared(check, label, name, interval, limit, kish, None)
            reasons.append(judge(comparison, config.min_effective_rows))
            comparisons.append(comparison)
    return reasons, comparisons


def calibration_ratio(
    scores: np.ndarray, positive: np.ndarray, weight: np.ndarray, groups: np.ndarray, level: float
) -> Interval:
    """sum w p / sum w y; each bound fails with probability `level`.

    Bounds by the delta method on its logarithm, clustered on users (Wolter 2007, chapter 6): groups' residuals are
    P_g / P - Y_g / Y. NaN without positives.
    """
    predicted = np.bincount(groups, weights=weight * scores)
    actual = np.bincount(groups, weights=weight * positive)
    used = np.bincount(groups, weights=weight) > 0
    if not predicted.sum() > 0 or not actual.sum() > 0 or used.sum() < 2:
        return Interval(math.nan, math.nan, math.nan)
    residuals = (predicted / predicted.sum() - actual / actual.sum())[used]
    deviation = math.sqrt(float(residuals @ residuals) * len(residuals) / (len(residuals) - 1))
    ratio, width = float(predicted.sum() / actual.sum()), float(ndtri(1 - level)) * deviation
    return Interval(ratio, ratio * math.exp(-width), ratio * math.exp(width))


def away_from_one(ratio: Interval) -> Interval:
    """|ratio - 1| with the bounds that those of the ratio leave it."""
    if not math.isfinite(ratio.value):
        return ratio
    ends = abs(ratio.lower - 1), abs(ratio.upper - 1)
    nearest = 0.0 if ratio.lower <= 1 <= ratio.upper else min(ends)
    return Interval(abs(ratio.value - 1), nearest, max(ends))


def expected_calibration_error(
    scores: np.ndarray, positive: np.ndarray, weight: np.ndarray, groups: np.ndarray, level: float
) -> Interval:
    """ECE over bins of equal weight (Guo et al. 2017, eq. 3; Nguyen & O'Connor 2015); each bound fails with `level`.

    Noise alone makes it positive. It is the length of the vector of the bins' gaps, so the truth is off by at most the
    length of the noise vector (triangle inequality), whose distribution is that of users' residuals with random normal
    factors (multiplier bootstrap, fixed seed); its tail is that of the scaled chi-squared with its mean and variance.
    """
    if not weight.sum() > 0 or not np.isfinite(scores).all():
        return Interval(math.nan, math.nan, math.nan)
    bins = np.searchsorted(weighted_quantiles(scores, weight, NUM_BINS), scores, side="left")
    num_bins = int(bins.max()) + 1
    gaps = group_totals(groups, bins, weight * (scores - positive), num_bins) / weight.sum()
    share = group_totals(groups, bins, weight, num_bins) / weight.sum()
    used = share.sum(axis=1) > 0
    residuals = (gaps - share.sum(axis=1, keepdims=True) * gaps.sum(axis=0))[used]
    factors = np.random.default_rng(SEED).normal(size=(REPLICATES, len(residuals)))
    lengths = np.abs(product(factors, residuals)).sum(axis=1)
    mean, variance = float(lengths.mean()), float(lengths.var())
    value = float(np.abs(gaps.sum(axis=0)).sum())
    if not variance > 0:
        return Interval(value, value, value)
    chance = variance / (2 * mean) * float(chdtri(2 * mean**2 / variance, level))
    return Interval(value, max(0.0, value - chance), value + chance)
