"""Every signal of a canary: what it proves, from the evidence of both arms. Pure; `analysis` has the table."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from tidewheel.contracts.recipe import DeployConfig
from tidewheel.contracts.rollout import PlannedSignal, Role, Signal
from tidewheel.contracts.verdict import Phase
from tidewheel.rollout.evidence import (
    ArmEvidence,
    Evidence,
    calibration_against_control,
    log_calibration,
    relative_difference,
    rise_of_missing,
)
from tidewheel.rollout.sequence import (
    bounds,
    log_evidence_above,
    log_evidence_below,
    median_bounds,
    rate_bounds,
    ratio_of_sums,
)

MIN_USERS = 50  # an arm with fewer is not judged: clustered standard errors of few users are too small
# Bounds of harmlessness are tightest at the standard error that is this many times smaller than the margin. Bounds of harm
# are so there or where it equals the margin, which is where several times the margin is proven.
PRECISION = 3.0

Bounds = tuple[float, float]


def judge(plan: PlannedSignal, evidence: Evidence, config: DeployConfig) -> Signal:
    """The signal that `plan` names, at this look."""
    name = plan.name.partition(" ")[0]
    return _JUDGES[name](plan, evidence, config)


def errors(plan: PlannedSignal, evidence: Evidence, config: DeployConfig) -> Signal:
    """Share of the candidate's requests of this step without a usable answer."""
    arm, limit = evidence.candidate, plan.limit
    lower, upper = rate_bounds(arm.errors, arm.requests, config.alpha)
    if log_evidence_above(arm.errors, arm.requests, limit) >= -math.log(plan.harm_alpha):
        phase = Phase.FAILED
    elif log_evidence_below(arm.errors, arm.requests, limit) >= -math.log(config.alpha):
        phase = Phase.SUCCESSFUL
    else:
        phase = Phase.RUNNING
    rate = arm.errors / arm.requests if arm.requests else None
    message = f"errors {arm.errors} of {arm.requests} requests, rate in [{lower:.4f}, {upper:.4f}], limit {limit:g}"
    return _signal(plan, phase, message, rate, (lower, upper))


def latency(plan: PlannedSignal, evidence: Evidence, config: DeployConfig) -> Signal:
    """Median latency of the candidate's answers of this step over control's."""
    candidate, control = _both(evidence)
    limit, sharpest_at = plan.limit, config.steps[0].min_requests
    if not (len(candidate.latencies) and len(control.latencies)):
        return _unseen(plan, "no answers in both arms yet")

    def ratio_bounds(alpha: float) -> Bounds:
        low, high = median_bounds(candidate.latencies, alpha / 2, sharpest_at)
        control_low, control_high = median_bounds(control.latencies, alpha / 2, sharpest_at)
        return max(low, 0.0) / control_high, high / control_low if control_low > 0.0 else math.inf

    lower, upper = ratio_bounds(config.alpha)
    if ratio_bounds(plan.harm_alpha)[0] > limit:
        phase = Phase.FAILED
    else:
        phase = Phase.SUCCESSFUL if upper < limit else Phase.RUNNING
    median, control_median = float(np.median(candidate.latencies)), float(np.median(control.latencies))
    ratio = median / control_median if control_median > 0.0 else math.inf
    message = (
        f"latency {median * 1e3:.2f} ms against {control_median * 1e3:.2f} ms, "
        f"ratio {ratio:.2f} in [{lower:.2f}, {upper:.2f}], limit {limit:g}"
    )
    return _signal(plan, phase, message, ratio, (lower, upper))


def engagement(plan: PlannedSignal, evidence: Evidence, config: DeployConfig) -> Signal:
    """Goal labels per request, relative to control's: non-inferiority by `max_engagement_drop`, superiority as a goal."""
    candidate, control = _both(evidence)
    if few := _few_users(candidate, control):
        return _unseen(plan, few)
    difference = relative_difference(evidence, "engagement")
    if difference is None:
        return _unseen(plan, f"no {config.goal_label} seen in the control arm")
    margin = -plan.limit
    proof = bounds(difference, config.alpha, margin / PRECISION)
    harm = bounds(difference, plan.harm_alpha, margin / PRECISION, margin)
    if proof[0] > (0.0 if plan.role is Role.GOAL else -margin):
        phase = Phase.SUCCESSFUL
    else:
        phase = Phase.FAILED if harm[1] < 0.0 else Phase.RUNNING
    means = f"{candidate.engagement.mean():.4f} {config.goal_label} a request against {control.engagement.mean():.4f}"
    interval = f"[{proof[0]:+.1%}, {proof[1]:+.1%}]"
    asked = _asked(plan, f"{-margin:+.1%}")
    message = f"engagement {means}: {difference.value:+.1%} in {interval} at equal requests, {asked}"
    return _signal(plan, phase, message, difference.value, proof)


def logloss(plan: PlannedSignal, evidence: Evidence, config: DeployConfig) -> Signal:
    """Log-loss per impression, paired on the same requests: non-inferiority by `max_logloss_rise`, superiority as a goal."""
    candidate, control = _both(evidence)
    if few := _few_users(candidate):
        return _unseen(plan, few)
    label, margin = plan.name.partition(" ")[2], plan.limit
    difference = ratio_of_sums(candidate.losses[label] - control.losses[label], candidate.impressions, candidate.clusters)
    are_alike = difference.value == 0.0 and difference.standard_error == 0.0
    # Both bundles answer alike: the same losses, not a lack of evidence.
    proof = (0.0, 0.0) if are_alike else bounds(difference, config.alpha, margin / PRECISION)
    harm = (0.0, 0.0) if are_alike else bounds(difference, plan.harm_alpha, margin / PRECISION, margin)
    if proof[1] < (0.0 if plan.role is Role.GOAL else margin):
        phase = Phase.SUCCESSFUL
    else:
        phase = Phase.FAILED if harm[0] > 0.0 else Phase.RUNNING
    interval = f"[{proof[0]:+.4f}, {proof[1]:+.4f}]"
    message = f"{plan.name} {difference.value:+.4f} an impression in {interval}, " + _asked(plan, f"{margin:+g}")
    return _signal(plan, phase, message, difference.value, proof)


def calibration(plan: PlannedSignal, evidence: Evidence, config: DeployConfig) -> Signal:
    """Predicted over actual of the candidate: near 1, or else near control's, so that a world that moved blames nobody.

    Two ways to pass and two that must both fail: each has half of the level to pass, and all of it to fail.
    """
    candidate, control = evidence.candidate, evidence.control
    arms = [candidate] if control is None else [candidate, control]
    if few := _few_users(*arms):
        return _unseen(plan, few)
    if any(arm.actual.sum() <= 0.0 or arm.predicted.sum() <= 0.0 for arm in arms):
        return _unseen(plan, f"no {config.goal_label} seen in an arm yet")
    margin = plan.limit
    own = log_calibration(candidate)
    estimates = [own] if control is None else [own, calibration_against_control(evidence)]
    floor, ceiling = math.log(max(1.0 - margin, 1e-9)), math.log1p(margin)
    proofs = [bounds(estimate, config.alpha / len(estimates), margin / PRECISION) for estimate in estimates]
    harms = [bounds(estimate, plan.harm_alpha, margin / PRECISION, margin) for estimate in estimates]
    is_inside = [floor < lower and upper < ceiling for lower, upper in proofs]
    is_above = harms[0][0] > ceiling and all(lower > 0.0 for lower, _ in harms[1:])
    is_below = harms[0][1] < floor and all(upper < 0.0 for _, upper in harms[1:])
    if any(is_inside):
        phase = Phase.SUCCESSFUL
    else:
        phase = Phase.FAILED if is_above or is_below else Phase.RUNNING
    texts = [
        f"{math.exp(estimate.value):.3f} in [{_exp(lower):.3f}, {_exp(upper):.3f}]"
        for estimate, (lower, upper) in zip(estimates, proofs, strict=True)
    ]
    against = "" if control is None else f", {texts[1]} of control's"
    message = f"calibration of {config.goal_label}: predicted / actual {texts[0]}{against}, limit 1 ± {margin:g}"
    shown = is_inside.index(True) if any(is_inside) else 0
    lower, upper = proofs[shown]
    return _signal(plan, phase, message, math.exp(estimates[shown].value), (_exp(lower), _exp(upper)))


def scores(plan: PlannedSignal, evidence: Evidence, config: DeployConfig) -> Signal:
    """Mean score of the goal label over all candidates, relative to control's: what users do is not waited for."""
    candidate, control = _both(evidence)
    if few := _few_users(candidate, control):
        return _unseen(plan, few)
    difference = relative_difference(evidence, "scored")
    if difference is None:
        return _unseen(plan, "control gives no score above 0")
    margin = plan.limit
    are_alike = difference.value == 0.0 and difference.standard_error == 0.0
    lower, upper = (0.0, 0.0) if are_alike else bounds(difference, config.alpha, margin / PRECISION)
    harm = (0.0, 0.0) if are_alike else bounds(difference, plan.harm_alpha, margin / PRECISION, margin)
    if -margin < lower and upper < margin:
        phase = Phase.SUCCESSFUL
    else:
        phase = Phase.FAILED if harm[0] > margin or harm[1] < -margin else Phase.RUNNING
    message = (
        f"scores of {config.goal_label}: mean {candidate.scored.mean():.4f} against {control.scored.mean():.4f}, "
        f"{difference.value:+.1%} in [{lower:+.1%}, {upper:+.1%}] at equal requests, limit 0 ± {margin:.0%}"
    )
    return _signal(plan, phase, message, difference.value, (lower, upper))


def coverage(plan: PlannedSignal, evidence: Evidence, config: DeployConfig) -> Signal:
    """Share of a feature's values that are there, minus control's, of the feature that lost most; harm of F features is tested
    at the F-th part of the level."""
    candidate, control = _both(evidence)
    if few := _few_users(candidate, control):
        return _unseen(plan, few)
    margin = -plan.limit
    names = sorted(candidate.missing.keys() | control.missing.keys()) or [""]  # nothing was ever missing: any name says so
    rises = {name: rise_of_missing(candidate, control, name) for name in names}
    worst = max(rises, key=lambda name: rises[name].value)
    proofs = {name: bounds(rise, config.alpha, margin / PRECISION) for name, rise in rises.items()}
    harms = [bounds(rise, plan.harm_alpha / len(names), margin / PRECISION, margin) for rise in rises.values()]
    if all(upper < margin for _, upper in proofs.values()):
        phase = Phase.SUCCESSFUL
    else:
        phase = Phase.FAILED if any(lower > margin for lower, _ in harms) else Phase.RUNNING
    low, high = proofs[worst]
    which = f" of {worst}" if worst else ""
    fall = 0.0 - rises[worst].value  # not -0.0
    message = f"coverage{which} {fall:+.1%} in [{-high:+.1%}, {-low:+.1%}], margin {-margin:+.1%}"
    return _signal(plan, phase, message, fall, (-high, -low))


_JUDGES: dict[str, Callable[[PlannedSignal, Evidence, DeployConfig], Signal]] = {
    "errors": errors,
    "latency": latency,
    "engagement": engagement,
    "logloss": logloss,
    "calibration": calibration,
    "scores": scores,
    "coverage": coverage,
}


def _both(evidence: Evidence) -> tuple[ArmEvidence, ArmEvidence]:
    assert evidence.control is not None, "a comparison is planned only where there is a control arm"
    return evidence.candidate, evidence.control


def _few_users(*arms: ArmEvidence) -> str | None:
    users = min(arm.num_users for arm in arms)
    return f"{users} users < {MIN_USERS}" if users < MIN_USERS else None


def _asked(plan: PlannedSignal, margin: str) -> str:
    return "goal better than 0" if plan.role is Role.GOAL else f"margin {margin}"


def _signal(plan: PlannedSignal, phase: Phase, message: str, estimate: float | None, interval: Bounds) -> Signal:
    lower, upper = interval
    return Signal(
        name=plan.name,
        phase=phase,
        message=message,
        estimate=None if estimate is None else _finite(estimate),
        lower=_finite(lower),
        upper=_finite(upper),
        limit=plan.limit,
        role=plan.role,
    )


def _unseen(plan: PlannedSignal, why: str) -> Signal:
    return Signal(name=plan.name, phase=Phase.RUNNING, message=f"{plan.name}: {why}", limit=plan.limit, role=plan.role)


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _exp(value: float) -> float:
    return math.exp(value) if value < 700.0 else math.inf
