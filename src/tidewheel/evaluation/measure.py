"""Every metric of a model's label on some rows, with its interval. Legend: B rows."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from tidewheel.contracts.comparison import Estimate
from tidewheel.contracts.evaluation import Compared
from tidewheel.evaluation.calibration_error import debiased_ece
from tidewheel.evaluation.intervals import PLAIN, POSITIVE, SHARE, UNDEFINED, as_estimate, interval
from tidewheel.evaluation.metrics import (
    Measured,
    auc,
    base_rate,
    calibration_ratio,
    logloss,
    ndcg,
    normalized_entropy,
    request_auc,
)
from tidewheel.evaluation.sample import Sample

SCALES = {
    "auc": SHARE,
    "request_auc": SHARE,
    "logloss": PLAIN,
    "normalized_entropy": PLAIN,
    "calibration_ratio": POSITIVE,
    "base_rate": SHARE,
    "ndcg": SHARE,
}
ECE = "ece"
METRICS = (*SCALES, ECE)
COMPARED = tuple(metric.value for metric in Compared)


def measure(probabilities: np.ndarray, sample: Sample, label: str, top: int) -> dict[str, Measured]:
    """Every metric of `SCALES`; probabilities (B,) in [0, 1]. NDCG is of the first `top`, where there are whole lists."""
    labels, weight = sample.labels[label], sample.weight
    loss, rate = logloss(probabilities, labels, weight), base_rate(labels, weight)
    return {
        "auc": auc(probabilities, labels, weight),
        "request_auc": request_auc(probabilities, labels, weight, sample.requests),
        "logloss": loss,
        "normalized_entropy": normalized_entropy(loss, rate),
        "calibration_ratio": calibration_ratio(probabilities, labels, weight),
        "base_rate": rate,
        "ndcg": ndcg(probabilities, labels, sample.requests, top) if sample.has_lists else Measured.undefined(len(weight)),
    }


def estimates(found: Mapping[str, Measured], probabilities: np.ndarray, sample: Sample, label: str) -> dict[str, Estimate]:
    """Every metric of `METRICS` with its interval; null where it is not defined, or nothing is known about its error.

    A metric that no row could have changed, like the AUC of rows that are all in the right order, has no interval.
    """
    shown, effective = {}, sample.effective_rows
    for name, scale in SCALES.items():
        bounds = interval(found[name], sample.users, scale)
        shown[name] = as_estimate(found[name].value, bounds if bounds.lower < bounds.upper else UNDEFINED, effective)
    value, bounds = debiased_ece(probabilities, sample.labels[label], sample.weight, sample.users)
    return shown | {ECE: as_estimate(value, bounds, effective)}


def differences(one: Mapping[str, Measured], other: Mapping[str, Measured], sample: Sample) -> dict[str, Estimate]:
    """Of the metrics of `COMPARED`, one minus the other, paired by row."""
    gaps = {name: one[name] - other[name] for name in COMPARED}
    return {name: estimate(gap, sample) for name, gap in gaps.items()}


def unknown(sample: Sample, names: tuple[str, ...] = METRICS) -> dict[str, Estimate]:
    """The same metrics where there was nothing to measure."""
    return dict.fromkeys(names, as_estimate(math.nan, UNDEFINED, sample.effective_rows))


def estimate(found: Measured, sample: Sample) -> Estimate:
    """Any metric of the sample's rows, with its interval; null where it is not defined."""
    return as_estimate(found.value, interval(found, sample.users), sample.effective_rows)
