"""What the arms of a canary have seen, as arrays, and the statistics that signals are made of. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from tidewheel.contracts.rollout import ArmBatch
from tidewheel.rollout.sequence import Estimate, clustered_error, ratio_of_sums


@dataclass(frozen=True)
class ArmEvidence:
    """What one arm has seen.

    `requests`, `errors` and `latencies` (n,) are of this step. The others are of all steps so far, one value for each of
    N answered requests: `users` int64, `engagement` = goal labels of what was shown, `predicted` and `actual` = sums over
    what was shown of the goal label, `losses` label -> sums of log-loss, `impressions` = how many were shown, `scored` = mean
    score of the goal label over all candidates, `missing` feature -> share of its values that the server did not get, less
    that of production's server for the same request where it is known.
    `expected` is what production would have expected of the request, asked for both arms alike: it explains away which
    users and requests an arm happened to get (see `adjusted`).
    """

    requests: int
    errors: int
    latencies: np.ndarray
    users: np.ndarray
    engagement: np.ndarray
    predicted: np.ndarray
    actual: np.ndarray
    impressions: np.ndarray
    scored: np.ndarray
    expected: np.ndarray
    losses: Mapping[str, np.ndarray] = field(default_factory=dict)
    missing: Mapping[str, np.ndarray] = field(default_factory=dict)

    @cached_property
    def clusters(self) -> np.ndarray:
        """(N,) the users, numbered from 0."""
        return np.unique(self.users, return_inverse=True)[1]

    @property
    def num_users(self) -> int:
        return int(self.clusters.max()) + 1 if len(self.users) else 0


@dataclass(frozen=True)
class Evidence:
    """Both arms. Closed loop: different requests by different users. Replay: row i of both arms is the same request,
    which both servers scored. `control` is None in the first release, which has nothing to be compared with."""

    candidate: ArmEvidence
    control: ArmEvidence | None
    is_closed_loop: bool


SERIES = ("engagement", "predicted", "actual", "impressions", "scored", "expected")


def joined(before: Sequence[ArmBatch], step: Sequence[ArmBatch]) -> ArmEvidence:
    """One arm's batches of earlier steps and of this one. A feature that a batch does not name was missing nowhere in it."""
    batches = [*before, *step]

    def series(name: str) -> np.ndarray:
        return np.concatenate([np.asarray(getattr(batch, name), dtype=np.float64) for batch in batches] or [np.empty(0)])

    def of(mappings: Sequence[Mapping[str, Sequence[float]]], name: str) -> np.ndarray:
        found = zip(mappings, batches, strict=True)
        return np.concatenate([np.asarray(each.get(name, np.zeros(len(batch.users)))) for each, batch in found])

    losses, missing = [batch.losses for batch in batches], [batch.missing for batch in batches]
    return ArmEvidence(
        requests=sum(batch.requests for batch in step),
        errors=sum(batch.errors for batch in step),
        latencies=np.array([seconds for batch in step for seconds in batch.latencies], dtype=np.float64),
        users=np.array([user for batch in batches for user in batch.users], dtype=np.int64),
        losses={label: of(losses, label) for label in sorted({label for each in losses for label in each})},
        missing={name: of(missing, name) for name in sorted({name for each in missing for name in each})},
        **{name: series(name) for name in SERIES},
    )


def fault_of(evidence: Evidence) -> str | None:
    """Why the evidence cannot be judged at all, or None."""
    for name, arm in (("candidate", evidence.candidate), ("control", evidence.control)):
        if arm is not None and (fault := arm_fault(arm)):
            return f"{name} arm: {fault}"
    control = evidence.control
    if control is None or evidence.is_closed_loop:
        return None
    if not np.array_equal(evidence.candidate.users, control.users):
        return "replay: the arms do not hold the same requests"
    if not evidence.candidate.losses or set(evidence.candidate.losses) != set(control.losses):
        return "replay: the arms do not hold the log-loss of the same labels"
    return None


def arm_fault(arm: ArmEvidence) -> str | None:
    """A series that is too short, or a number in it that is none."""
    series = {name: getattr(arm, name) for name in SERIES}
    series |= {f"logloss {label}": values for label, values in arm.losses.items()}
    series |= {f"coverage of {name}": values for name, values in arm.missing.items()}
    for what, values in series.items():
        if len(values) != len(arm.users):
            return f"{what} has {len(values)} values for {len(arm.users)} answered requests"
    for what, values in (series | {"latency": arm.latencies}).items():
        if not np.isfinite(values).all():
            return f"{what} is not finite in {int((~np.isfinite(values)).sum())} of {len(values)} requests"
    return None


def relative_difference(evidence: Evidence, series: str) -> Estimate | None:
    """Mean of a series in the candidate's arm over control's, minus 1; None where control's mean is not above 0.

    In replay the arms share requests, so the difference is paired; else both means are `adjusted`.
    """
    candidate, control = evidence.candidate, evidence.control
    assert control is not None
    mine, other = getattr(candidate, series), getattr(control, series)
    if not (len(mine) and len(other)) or other.sum() <= 0.0:
        return None
    if not evidence.is_closed_loop:
        found = ratio_of_sums(mine, other, candidate.clusters)
        return Estimate(found.value - 1.0, found.standard_error)
    (a, b) = adjusted(candidate, control, series)
    if b.value <= 0.0:
        return None
    # Delta method for a / b of independent arms.
    ratio = a.value / b.value
    return Estimate(ratio - 1.0, math.hypot(a.standard_error, ratio * b.standard_error) / b.value)


def adjusted(candidate: ArmEvidence, control: ArmEvidence, series: str = "engagement") -> tuple[Estimate, Estimate]:
    """Mean of a series in each arm had both got requests with the mean `expected` of all, clustered on users.

    `expected` is a covariate that the treatment cannot touch (Deng, Xu, Kohavi, Walker 2013, "Improving the sensitivity of
    online controlled experiments by utilizing pre-experiment data"; Lin 2013, Annals of Applied Statistics 7(1)): users differ
    much more than bundles do, and a small share has few of them.
    """
    arms = (candidate, control)
    values = [getattr(arm, series) for arm in arms]
    centred = [(y - y.mean(), arm.expected - arm.expected.mean()) for y, arm in zip(values, arms, strict=True)]
    spread = sum(float(np.square(x).sum()) for _, x in centred)
    slope = sum(float((y * x).sum()) for y, x in centred) / spread if spread > 0.0 else 0.0
    overall = float(np.concatenate([arm.expected for arm in arms]).mean())
    estimates = [
        Estimate(
            float(raw.mean()) - slope * (float(arm.expected.mean()) - overall),
            clustered_error((y - slope * x) / len(y), arm.clusters),
        )
        for raw, arm, (y, x) in zip(values, arms, centred, strict=True)
    ]
    return estimates[0], estimates[1]


def log_calibration(arm: ArmEvidence) -> Estimate:
    """log(predicted / actual) of the goal label, clustered on users; both sums are above 0."""
    value = math.log(float(arm.predicted.sum()) / float(arm.actual.sum()))
    return Estimate(value, clustered_error(_calibration_influence(arm), arm.clusters))


def calibration_against_control(evidence: Evidence) -> Estimate:
    """Difference of the arms' log(predicted / actual); in replay the arms share requests, so their errors cancel."""
    candidate, control = evidence.candidate, evidence.control
    assert control is not None
    mine, other = log_calibration(candidate), log_calibration(control)
    if evidence.is_closed_loop:
        return Estimate(mine.value - other.value, math.hypot(mine.standard_error, other.standard_error))
    influence = _calibration_influence(candidate) - _calibration_influence(control)
    # The same outcomes stand in both arms; rounding may leave an error of exactly zero where the bundles answer alike.
    return Estimate(mine.value - other.value, max(clustered_error(influence, candidate.clusters), 1e-12))


def _calibration_influence(arm: ArmEvidence) -> np.ndarray:
    """(N,) linearization of log(sum predicted / sum actual)."""
    return arm.predicted / arm.predicted.sum() - arm.actual / arm.actual.sum()


def rise_of_missing(candidate: ArmEvidence, control: ArmEvidence, feature: str) -> Estimate:
    """How much larger the share of missing values of a feature is in the candidate's arm, clustered on users.

    An arm that misses nothing, or all, has no spread; its error is then that of one more request to the contrary, as in the
    rule of succession: absence of a fault in n requests is no proof of its absence.
    """
    shares, errors = [], []
    for arm in (candidate, control):
        values, count = arm.missing.get(feature, np.zeros(len(arm.users))), len(arm.users)
        share = float(values.mean())
        succession = math.sqrt(1 / (count + 2) * (1 - 1 / (count + 2)) / count)
        errors.append(max(clustered_error((values - share) / count, arm.clusters), succession))
        shares.append(share)
    return Estimate(shares[0] - shares[1], math.hypot(*errors))
