"""Judges the evidence of a canary at every look: values in, signals with their numbers out. Pure.

| signal | proven harmless | proven harmful |
| --- | --- | --- |
| engagement (closed loop) | candidate / control - 1 > -max_engagement_drop | < 0, and not proven harmless |
| logloss of a label (replay) | candidate - control < max_logloss_rise | > 0, and not proven harmless |
| calibration | predicted / actual within max_calibration_error of 1, or of control's | beyond both |
| errors | share of failed requests < max_error_rate | > max_error_rate |
| latency | median / control's median < max_latency_ratio | > max_latency_ratio |

To pass, *all* signals must be proven harmless, so each may use all of `alpha`: a candidate that is truly harmful in one
of them has to fool that one (intersection-union test; Berger 1982, "Multiparameter hypothesis testing and acceptance
sampling", Technometrics 24(4)). To fail, *one* proof of harm is enough, so `alpha` is split over signals, and over steps
where a signal starts anew in each. Hence: P(harmful passes) <= alpha and P(harmless is called harmful) <= alpha.

Engagement, log-loss and calibration belong to the model, which does not change between steps: their evidence
accumulates. Errors and latency depend on the load, which does change: they start anew in every step.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from tidewheel.contracts.recipe import DeployConfig
from tidewheel.contracts.rollout import Signal
from tidewheel.contracts.verdict import Phase
from tidewheel.rollout.sequence import (
    Estimate,
    bounds,
    clustered_error,
    log_evidence_above,
    log_evidence_below,
    median_bounds,
    rate_bounds,
    ratio_of_sums,
)

MIN_USERS = 50  # an arm with fewer is not judged: clustered standard errors of few users are too small
PRECISION = 3.0  # bounds are tightest at the standard error that is this many times smaller than the margin


@dataclass(frozen=True)
class ArmEvidence:
    """What one arm has seen.

    `requests`, `errors` and `latencies` (n,) are of this step. The others are of all steps so far, one value for each of
    N answered requests: `users` int64, `engagement` = goal labels of what was shown, `predicted` and `actual` = sums over
    what was shown of the goal label, `losses` label -> sums of log-loss, `impressions` = how many were shown. `expected`
    is what production would have expected of the request, asked for both arms alike: it explains away which users and
    requests an arm happened to get (see `engagement`).
    """

    requests: int
    errors: int
    latencies: np.ndarray
    users: np.ndarray
    engagement: np.ndarray
    predicted: np.ndarray
    actual: np.ndarray
    impressions: np.ndarray
    expected: np.ndarray
    losses: Mapping[str, np.ndarray] = field(default_factory=dict)


@dataclass(frozen=True)
class Evidence:
    """Both arms. Closed loop: different requests by different users. Replay: row i of both arms is the same request,
    which both servers scored. `control` is None in the first release, which has nothing to be compared with."""

    candidate: ArmEvidence
    control: ArmEvidence | None
    is_closed_loop: bool


def assess(evidence: Evidence, config: DeployConfig) -> tuple[Signal, ...]:
    """Every signal of this canary at this look. Never raises on data: what is not finite is an `Error`."""
    steps = len(config.steps)
    candidate, control = evidence.candidate, evidence.control
    if fault := _fault(evidence):
        return (Signal(name="evidence", phase=Phase.ERROR, message=fault),)
    compared = [] if evidence.is_closed_loop or control is None else sorted(candidate.losses)
    num_signals = 2 if control is None else 4 if evidence.is_closed_loop else 3 + len(compared)
    harm = config.alpha / num_signals
    signals = [errors(candidate, config, harm / steps), calibration(evidence, config, harm)]
    if control is not None:
        signals.append(latency(candidate, control, config, harm / steps))
        if evidence.is_closed_loop:
            signals.append(engagement(candidate, control, config, harm))
        signals += [logloss(label, candidate, control, config, harm) for label in compared]
    return tuple(signals)


def errors(arm: ArmEvidence, config: DeployConfig, harm_alpha: float) -> Signal:
    """Share of the candidate's requests of this step without a usable answer."""
    limit = config.max_error_rate
    lower, upper = rate_bounds(arm.errors, arm.requests, config.alpha)
    if log_evidence_above(arm.errors, arm.requests, limit) >= -math.log(harm_alpha):
        phase = Phase.FAILED
    elif log_evidence_below(arm.errors, arm.requests, limit) >= -math.log(config.alpha):
        phase = Phase.SUCCESSFUL
    else:
        phase = Phase.RUNNING
    rate = arm.errors / arm.requests if arm.requests else None
    message = f"errors {arm.errors} of {arm.requests} requests, rate in [{lower:.4f}, {upper:.4f}], limit {limit:g}"
    return Signal(name="errors", phase=phase, message=message, estimate=rate, lower=lower, upper=upper, limit=limit)


def latency(candidate: ArmEvidence, control: ArmEvidence, config: DeployConfig, harm_alpha: float) -> Signal:
    """Median latency of the candidate's answers of this step over control's."""
    limit, sharpest_at = config.max_latency_ratio, config.steps[0].min_requests

    def ratio_bounds(alpha: float) -> tuple[float, float]:
        low, high = median_bounds(candidate.latencies, alpha / 2, sharpest_at)
        control_low, control_high = median_bounds(control.latencies, alpha / 2, sharpest_at)
        return max(low, 0.0) / control_high, high / control_low if control_low > 0.0 else math.inf

    lower, upper = ratio_bounds(config.alpha)
    if ratio_bounds(harm_alpha)[0] > limit:
        phase = Phase.FAILED
    else:
        phase = Phase.SUCCESSFUL if upper < limit else Phase.RUNNING
    if not (len(candidate.latencies) and len(control.latencies)):
        return _unseen("latency", "no answers in both arms yet", limit)
    median, control_median = float(np.median(candidate.latencies)), float(np.median(control.latencies))
    ratio = median / control_median if control_median > 0.0 else math.inf
    message = (
        f"latency {median * 1e3:.2f} ms against {control_median * 1e3:.2f} ms, "
        f"ratio {ratio:.2f} in [{lower:.2f}, {upper:.2f}], limit {limit:g}"
    )
    return _signal("latency", phase, message, ratio, (lower, upper), limit)


def engagement(candidate: ArmEvidence, control: ArmEvidence, config: DeployConfig, harm_alpha: float) -> Signal:
    """Goal labels per request, relative to control's: non-inferiority by `max_engagement_drop`.

    Both means are adjusted to the same `expected`, a covariate that the treatment cannot touch (Deng, Xu, Kohavi, Walker
    2013, "Improving the sensitivity of online controlled experiments by utilizing pre-experiment data"; Lin 2013, Annals
    of Applied Statistics 7(1)): users differ much more than bundles do, and a small share has few of them.
    """
    name, margin = "engagement", config.max_engagement_drop
    if few := _few_users(candidate, control):
        return _unseen(name, f"engagement: {few}", margin)
    mine, other = adjusted(candidate, control)
    if control.engagement.sum() <= 0.0 or other.value <= 0.0:
        return _unseen(name, f"engagement: no {config.goal_label} seen in the control arm", margin)
    # Delta method for mine / other of independent arms.
    relative = mine.value / other.value
    error = math.hypot(mine.standard_error, relative * other.standard_error) / other.value
    difference = Estimate(relative - 1.0, error)
    proof = bounds(difference, config.alpha, margin / PRECISION)
    harm = bounds(difference, harm_alpha, margin / PRECISION)
    if proof[0] > -margin:
        phase = Phase.SUCCESSFUL
    else:
        phase = Phase.FAILED if harm[1] < 0.0 else Phase.RUNNING
    message = (
        f"engagement {mine.value:.4f} {config.goal_label} a request against {other.value:.4f}: "
        f"{difference.value:+.1%} in [{proof[0]:+.1%}, {proof[1]:+.1%}], margin -{margin:.1%}"
    )
    return _signal(name, phase, message, difference.value, proof, -margin)


def adjusted(candidate: ArmEvidence, control: ArmEvidence) -> tuple[Estimate, Estimate]:
    """Mean engagement of each arm had both got requests with the mean `expected` of all, clustered on users."""
    arms = (candidate, control)
    centred = [(arm.engagement - arm.engagement.mean(), arm.expected - arm.expected.mean()) for arm in arms]
    spread = sum(float(np.square(x).sum()) for _, x in centred)
    slope = sum(float((y * x).sum()) for y, x in centred) / spread if spread > 0.0 else 0.0
    overall = float(np.concatenate([arm.expected for arm in arms]).mean())
    estimates = [
        Estimate(
            float(arm.engagement.mean()) - slope * (float(arm.expected.mean()) - overall),
            clustered_error((y - slope * x) / len(y), arm.users),
        )
        for arm, (y, x) in zip(arms, centred, strict=True)
    ]
    return estimates[0], estimates[1]


def logloss(label: str, candidate: ArmEvidence, control: ArmEvidence, config: DeployConfig, harm_alpha: float) -> Signal:
    """Log-loss per impression, paired on the same requests: non-inferiority by `max_logloss_rise`."""
    name, margin = f"logloss {label}", config.max_logloss_rise
    difference = ratio_of_sums(candidate.losses[label] - control.losses[label], candidate.impressions, candidate.users)
    if few := _few_users(candidate):
        return _unseen(name, f"{name}: {few}", margin)
    if difference.value == 0.0 and difference.standard_error == 0.0:
        proof, phase = (0.0, 0.0), Phase.SUCCESSFUL  # both bundles answer alike: the same losses, not a lack of evidence
    else:
        proof = bounds(difference, config.alpha, margin / PRECISION)
        harm = bounds(difference, harm_alpha, margin / PRECISION)
        if proof[1] < margin:
            phase = Phase.SUCCESSFUL
        else:
            phase = Phase.FAILED if harm[0] > 0.0 else Phase.RUNNING
    message = f"{name} {difference.value:+.4f} an impression in [{proof[0]:+.4f}, {proof[1]:+.4f}], margin {margin:+g}"
    return _signal(name, phase, message, difference.value, proof, margin)


def calibration(evidence: Evidence, config: DeployConfig, harm_alpha: float) -> Signal:
    """Predicted over actual of the candidate: near 1, or else near control's, so that a world that moved blames nobody.

    Two ways to pass and two that must both fail: each has half of the level to pass, and all of it to fail.
    """
    name, margin = "calibration", config.max_calibration_error
    candidate, control = evidence.candidate, evidence.control
    arms = [candidate] if control is None else [candidate, control]
    if few := _few_users(*arms):
        return _unseen(name, f"calibration: {few}", margin)
    if any(arm.actual.sum() <= 0.0 or arm.predicted.sum() <= 0.0 for arm in arms):
        return _unseen(name, f"calibration: no {config.goal_label} seen in an arm yet", margin)
    own = log_calibration(candidate)
    estimates = [own] if control is None else [own, _against_control(evidence)]
    floor, ceiling = math.log(max(1.0 - margin, 1e-9)), math.log1p(margin)
    proofs = [bounds(estimate, config.alpha / len(estimates), margin / PRECISION) for estimate in estimates]
    harms = [bounds(estimate, harm_alpha, margin / PRECISION) for estimate in estimates]
    is_inside = [floor < lower and upper < ceiling for lower, upper in proofs]
    if any(is_inside):
        phase = Phase.SUCCESSFUL
    else:
        phase = Phase.FAILED if all(upper < floor or lower > ceiling for lower, upper in harms) else Phase.RUNNING
    texts = [
        f"{math.exp(estimate.value):.3f} in [{_exp(lower):.3f}, {_exp(upper):.3f}]"
        for estimate, (lower, upper) in zip(estimates, proofs, strict=True)
    ]
    against = "" if control is None else f", {texts[1]} of control's"
    message = f"calibration of {config.goal_label}: predicted / actual {texts[0]}{against}, limit 1 ± {margin:g}"
    shown = is_inside.index(True) if any(is_inside) else 0
    lower, upper = proofs[shown]
    return _signal(name, phase, message, math.exp(estimates[shown].value), (_exp(lower), _exp(upper)), margin)


def log_calibration(arm: ArmEvidence) -> Estimate:
    """log(predicted / actual) of the goal label, clustered on users."""
    value = math.log(float(arm.predicted.sum()) / float(arm.actual.sum()))
    return Estimate(value, clustered_error(_calibration_influence(arm), arm.users))


def _against_control(evidence: Evidence) -> Estimate:
    """Difference of the arms' log(predicted / actual); in replay the arms share requests, so their errors cancel."""
    candidate, control = evidence.candidate, evidence.control
    assert control is not None
    mine, other = log_calibration(candidate), log_calibration(control)
    if evidence.is_closed_loop:
        return Estimate(mine.value - other.value, math.hypot(mine.standard_error, other.standard_error))
    influence = _calibration_influence(candidate) - _calibration_influence(control)
    # The same outcomes stand in both arms; rounding may leave an error of exactly zero where the bundles answer alike.
    return Estimate(mine.value - other.value, max(clustered_error(influence, candidate.users), 1e-12))


def _calibration_influence(arm: ArmEvidence) -> np.ndarray:
    """(N,) linearization of log(sum predicted / sum actual)."""
    return arm.predicted / arm.predicted.sum() - arm.actual / arm.actual.sum()


def _few_users(*arms: ArmEvidence) -> str | None:
    users = min(len(np.unique(arm.users)) for arm in arms)
    return f"{users} users < {MIN_USERS}" if users < MIN_USERS else None


def _fault(evidence: Evidence) -> str | None:
    """Why the evidence cannot be judged at all, or None."""
    for name, arm in (("candidate", evidence.candidate), ("control", evidence.control)):
        if arm is None:
            continue
        series = {"engagement": arm.engagement, "predicted": arm.predicted, "actual": arm.actual}
        series |= {"expected": arm.expected}
        series |= {"impressions": arm.impressions} | {f"logloss {label}": values for label, values in arm.losses.items()}
        for what, values in series.items():
            if len(values) != len(arm.users):
                return f"{name} arm: {what} has {len(values)} values for {len(arm.users)} answered requests"
        for what, values in (series | {"latency": arm.latencies}).items():
            if not np.isfinite(values).all():
                return f"{name} arm: {what} is not finite in {int((~np.isfinite(values)).sum())} of {len(values)} requests"
    control = evidence.control
    if control is None or evidence.is_closed_loop:
        return None
    if not np.array_equal(evidence.candidate.users, control.users):
        return "replay: the arms do not hold the same requests"
    if not evidence.candidate.losses or set(evidence.candidate.losses) != set(control.losses):
        return "replay: the arms do not hold the log-loss of the same labels"
    return None


def _signal(name: str, phase: Phase, message: str, estimate: float, interval: tuple[float, float], limit: float) -> Signal:
    lower, upper = interval
    return Signal(
        name=name,
        phase=phase,
        message=message,
        estimate=_finite(estimate),
        lower=_finite(lower),
        upper=_finite(upper),
        limit=limit,
    )


def _unseen(name: str, message: str, limit: float) -> Signal:
    return Signal(name=name, phase=Phase.RUNNING, message=message, limit=limit)


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _exp(value: float) -> float:
    return math.exp(value) if value < 700.0 else math.inf
