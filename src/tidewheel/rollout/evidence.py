"""What the arms of a canary have seen, folded batch by batch, and the statistics that signals are made of.

A batch costs what it holds and is then forgotten: `moments` keep what estimates need. Only latencies are kept, in order.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from sortedcontainers import SortedList

from tidewheel.contracts.rollout import ArmBatch
from tidewheel.rollout.moments import ONE, Moments
from tidewheel.rollout.sequence import Estimate

SERIES = ("engagement", "predicted", "actual", "impressions", "scored", "expected")


class ArmEvidence:
    """What one arm has seen.

    `requests`, `errors`, `latencies` and `users` are of this step; `outcomes` are of all steps so far. Series of an
    answered request: `engagement` = goal labels of what was shown, `predicted` and `actual` = sums over what was shown of the
    goal label, `logloss LABEL` = sums of log-loss, `impressions` = how many were shown, `scored` = mean score of the goal label
    over all candidates, `coverage of FEATURE` = share of its values that the server did not get, less that of production's
    server for the same request where it is known.
    `expected` is what production would have expected of the request, asked for both arms alike: it explains away which
    users and requests an arm happened to get (see `adjusted`).
    """

    def __init__(self) -> None:
        self.outcomes = Moments()
        self.labels: set[str] = set()  # whose log-loss is known
        self.features: set[str] = set()  # of which values were missing
        self.fault = ""  # why it cannot be judged
        self.start_step()

    def start_step(self) -> None:
        self.requests = self.errors = 0
        self.latencies = SortedList()
        self.users: set[int] = set()
        shown = [ONE, *SERIES, *(f"logloss {label}" for label in self.labels)]
        self._before = {name: self.outcomes.total(name) for name in shown}

    def add(self, batch: ArmBatch) -> None:
        """Take a batch in; one with a `fault` counts its requests only, and the arm is not judged any more."""
        self.requests += batch.requests
        self.errors += batch.errors
        series = series_of(batch)
        self.fault = self.fault or self._fault(batch, series)
        if self.fault:
            return
        self.latencies.update(batch.latencies)
        self.users.update(batch.users)
        self.labels.update(batch.losses)
        self.features.update(batch.missing)
        self.outcomes.add(batch.users, series)

    def step_total(self, name: str) -> float:
        """Sum of a series over this step's answered requests."""
        return self.outcomes.total(name) - self._before.get(name, 0.0)

    def _fault(self, batch: ArmBatch, series: Mapping[str, Sequence[float]]) -> str:
        """A series of the batch that is too short, or a number in it that is none."""
        before, answered = self.outcomes.num_requests, len(batch.users)
        for what, values in series.items():
            if len(values) != answered:
                return f"{what} has {before + len(values)} values for {before + answered} answered requests"
        for what, values in (*series.items(), ("latency", batch.latencies)):
            if not all(map(math.isfinite, values)):
                num = sum(not math.isfinite(value) for value in values)
                of = len(values) + (len(self.latencies) if what == "latency" else before)
                return f"{what} is not finite in {num} of {of} requests"
        return ""


class Evidence:
    """Both arms. Closed loop: different requests by different users. Replay: the n-th request of both arms is the same, which
    both servers scored, and `pairs` has control's series and how far the candidate's lie above them (`SERIES rise`).
    `control` is None in the first release, which has nothing to be compared with."""

    def __init__(self, has_control: bool, is_closed_loop: bool) -> None:
        self.is_closed_loop = is_closed_loop
        self.candidate = ArmEvidence()
        self.control = ArmEvidence() if has_control else None
        self.pairs = Moments()
        self._pair_fault = ""

    @property
    def fault(self) -> str:
        """Why the evidence cannot be judged at all, or an empty text."""
        for name, arm in (("candidate", self.candidate), ("control", self.control)):
            if arm is not None and arm.fault:
                return f"{name} arm: {arm.fault}"
        return self._pair_fault

    def start_step(self) -> None:
        for arm in (self.candidate, self.control):
            if arm is not None:
                arm.start_step()

    def add(self, candidate: ArmBatch | None, control: ArmBatch | None) -> None:
        """Take in what both arms saw between two looks; None where the measurement broke."""
        for arm, batch in ((self.candidate, candidate), (self.control, control)):
            if arm is not None and batch is not None:
                arm.add(batch)
        if self.control is not None and not self.is_closed_loop and not self.fault:
            self._add_pairs(self.control, candidate, control)

    def _add_pairs(self, arm: ArmEvidence, candidate: ArmBatch | None, control: ArmBatch | None) -> None:
        if candidate is None and control is None:
            return
        if candidate is None or control is None or list(candidate.users) != list(control.users):
            self._pair_fault = "replay: the arms do not hold the same requests"
        elif not self.candidate.labels or self.candidate.labels != arm.labels:
            self._pair_fault = "replay: the arms do not hold the log-loss of the same labels"
        else:
            mine, other, none = series_of(candidate), series_of(control), [0.0] * len(control.users)
            both = ((name, zip(mine.get(name, none), other.get(name, none), strict=True)) for name in mine | other)
            self.pairs.add(control.users, other | {f"{name} rise": [a - b for a, b in values] for name, values in both})


def series_of(batch: ArmBatch) -> dict[str, Sequence[float]]:
    """Every series of a batch by its name, one value for each answered request; always in the same order."""
    series: dict[str, Sequence[float]] = {name: getattr(batch, name) for name in SERIES}
    series |= {f"logloss {label}": batch.losses[label] for label in sorted(batch.losses)}
    return series | {f"coverage of {feature}": batch.missing[feature] for feature in sorted(batch.missing)}


def relative_difference(evidence: Evidence, series: str) -> Estimate | None:
    """Mean of a series in the candidate's arm over control's, minus 1; None where control's mean is not above 0.

    In replay the arms share requests, so the difference is paired; else both means are `adjusted`.
    """
    candidate, control = evidence.candidate, evidence.control
    assert control is not None
    if not (candidate.outcomes.num_requests and control.outcomes.num_requests) or control.outcomes.total(series) <= 0.0:
        return None
    if not evidence.is_closed_loop:
        return evidence.pairs.ratio(f"{series} rise", series)
    a, b = adjusted(candidate.outcomes, control.outcomes, series)
    if b.value <= 0.0:
        return None
    # Delta method for a / b of independent arms.
    ratio = a.value / b.value
    return Estimate(ratio - 1.0, math.hypot(a.standard_error, ratio * b.standard_error) / b.value)


def adjusted(candidate: Moments, control: Moments, series: str = "engagement") -> tuple[Estimate, Estimate]:
    """Mean of a series in each arm had both got requests with the mean `expected` of all, clustered on users.

    `expected` is a covariate that the treatment cannot touch (Deng, Xu, Kohavi, Walker 2013, "Improving the sensitivity of
    online controlled experiments by utilizing pre-experiment data"; Lin 2013, Annals of Applied Statistics 7(1)): users differ
    much more than bundles do, and a small share has few of them.
    """
    arms = (candidate, control)
    spread = sum(arm.comoment("expected", "expected") for arm in arms)
    slope = sum(arm.comoment(series, "expected") for arm in arms) / spread if spread > 0.0 else 0.0
    overall = sum(arm.total("expected") for arm in arms) / sum(arm.num_requests for arm in arms)

    def estimate(arm: Moments) -> Estimate:
        mean, expected = arm.mean(series), arm.mean("expected")
        error = arm.error({series: 1.0, "expected": -slope, ONE: slope * expected - mean})
        return Estimate(mean - slope * (expected - overall), error / arm.num_requests)

    return estimate(candidate), estimate(control)


def log_calibration(arm: ArmEvidence) -> Estimate:
    """log(predicted / actual) of the goal label, clustered on users; both sums are above 0."""
    predicted, actual = arm.outcomes.total("predicted"), arm.outcomes.total("actual")
    return Estimate(math.log(predicted / actual), arm.outcomes.error({"predicted": 1.0 / predicted, "actual": -1.0 / actual}))


def calibration_against_control(evidence: Evidence) -> Estimate:
    """Difference of the arms' log(predicted / actual); in replay the arms share requests, so their errors cancel."""
    candidate, control = evidence.candidate, evidence.control
    assert control is not None
    mine, other = log_calibration(candidate), log_calibration(control)
    if evidence.is_closed_loop:
        return Estimate(mine.value - other.value, math.hypot(mine.standard_error, other.standard_error))
    influence: dict[str, float] = {}
    for name, sign in (("predicted", 1.0), ("actual", -1.0)):
        above, below = candidate.outcomes.total(name), control.outcomes.total(name)
        influence |= {f"{name} rise": sign / above, name: sign * (below - above) / (above * below)}
    # The same outcomes stand in both arms; rounding may leave an error of exactly zero where the bundles answer alike.
    return Estimate(mine.value - other.value, max(evidence.pairs.error(influence), 1e-12))


def rise_of_missing(candidate: ArmEvidence, control: ArmEvidence, feature: str) -> Estimate:
    """How much larger the share of missing values of a feature is in the candidate's arm, clustered on users.

    An arm that misses nothing, or all, has no spread; its error is then that of one more request to the contrary, as in the
    rule of succession: absence of a fault in n requests is no proof of its absence.
    """
    shares, errors = [], []
    for arm in (candidate.outcomes, control.outcomes):
        share, count = arm.ratio(f"coverage of {feature}"), arm.num_requests
        succession = math.sqrt(1 / (count + 2) * (1 - 1 / (count + 2)) / count)
        errors.append(max(share.standard_error, succession))
        shares.append(share.value)
    return Estimate(shares[0] - shares[1], math.hypot(*errors))
