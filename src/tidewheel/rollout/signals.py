"""Every signal of a canary: what it proves, from the evidence of both arms. Pure; `analysis` has the table."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

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
    Estimate,
    bounds,
    log_evidence_above,
    log_evidence_below,
    median_bounds,
    rate_bounds,
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
    phase = _phase(
        log_evidence_below(arm.errors, arm.requests, limit) >= -math.log(config.alpha),
        log_evidence_above(arm.errors, arm.requests, limit) >= -math.log(plan.harm_alpha),
    )
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
    phase = _phase(upper < limit, ratio_bounds(plan.harm_alpha)[0] > limit)
    median, control_median = _median(candidate.latencies), _median(control.latencies)
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
    proof, harm = _proof(plan, difference, config.alpha), _harm(plan, difference, plan.harm_alpha)
    phase = _phase(proof[0] > (0.0 if plan.role is Role.GOAL else plan.limit), harm[1] < 0.0)
    mine, other = candidate.outcomes.mean("engagement"), control.outcomes.mean("engagement")
    means = f"{mine:.4f} {config.goal_label} a request against {other:.4f}"
    interval = f"[{proof[0]:+.1%}, {proof[1]:+.1%}]"
    asked = _asked(plan, f"{plan.limit:+.1%}")
    message = f"engagement {means}: {difference.value:+.1%} in {interval} at equal requests, {asked}"
    return _signal(plan, phase, message, difference.value, proof)


def logloss(plan: PlannedSignal, evidence: Evidence, config: DeployConfig) -> Signal:
    """Log-loss per impression, paired on the same requests: non-inferiority by `max_logloss_rise`, superiority as a goal."""
    if few := _few_users(evidence.candidate):
        return _unseen(plan, few)
    difference = evidence.pairs.ratio(f"{plan.name} rise", "impressions")
    proof, harm = _proof_and_harm(plan, difference, config)
    phase = _phase(proof[1] < (0.0 if plan.role is Role.GOAL else plan.limit), harm[0] > 0.0)
    interval = f"[{proof[0]:+.4f}, {proof[1]:+.4f}]"
    message = f"{plan.name} {difference.value:+.4f} an impression in {interval}, " + _asked(plan, f"{plan.limit:+g}")
    return _signal(plan, phase, message, difference.value, proof)


def calibration(plan: PlannedSignal, evidence: Evidence, config: DeployConfig) -> Signal:
    """Predicted over actual of the candidate: near 1, or else near control's, so that a world that moved blames nobody.

    Two ways to pass and two that must both fail: each has half of the level to pass, and all of it to fail.
    """
    candidate, control = evidence.candidate, evidence.control
    arms = [candidate] if control is None else [candidate, control]
    if few := _few_users(*arms):
        return _unseen(plan, few)
    if any(arm.outcomes.total(name) <= 0.0 for arm in arms for name in ("actual", "predicted")):
        return _unseen(plan, f"no {config.goal_label} seen in an arm yet")
    margin = plan.limit
    own = log_calibration(candidate)
    estimates = [own] if control is None else [own, calibration_against_control(evidence)]
    floor, ceiling = math.log(max(1.0 - margin, 1e-9)), math.log1p(margin)
    proofs = [_proof(plan, estimate, config.alpha / len(estimates)) for estimate in estimates]
    harms = [_harm(plan, estimate, plan.harm_alpha) for estimate in estimates]
    is_inside = [floor < lower and upper < ceiling for lower, upper in proofs]
    is_above = harms[0][0] > ceiling and all(lower > 0.0 for lower, _ in harms[1:])
    is_below = harms[0][1] < floor and all(upper < 0.0 for _, upper in harms[1:])
    phase = _phase(any(is_inside), is_above or is_below)
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
    (lower, upper), harm = _proof_and_harm(plan, difference, config)
    phase = _phase(-margin < lower and upper < margin, harm[0] > margin or harm[1] < -margin)
    mine, other = candidate.outcomes.mean("scored"), control.outcomes.mean("scored")
    message = (
        f"scores of {config.goal_label}: mean {mine:.4f} against {other:.4f}, "
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
    names = sorted(candidate.features | control.features) or [""]  # nothing was ever missing: any name says so
    rises = {name: rise_of_missing(candidate, control, name) for name in names}
    proofs = {name: _proof(plan, rise, config.alpha) for name, rise in rises.items()}
    worst = max(rises, key=lambda name: (round(rises[name].value, 9), proofs[name][1]))  # rounding decides nothing
    harms = [_harm(plan, rise, plan.harm_alpha / len(names)) for rise in rises.values()]
    phase = _phase(all(upper < margin for _, upper in proofs.values()), any(lower > margin for lower, _ in harms))
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
    users = min(arm.outcomes.num_users for arm in arms)
    return f"{users} users < {MIN_USERS}" if users < MIN_USERS else None


def _proof(plan: PlannedSignal, estimate: Estimate, alpha: float) -> Bounds:
    """Bounds for showing that an estimate is within the signal's margin."""
    return bounds(estimate, alpha, abs(plan.limit) / PRECISION)


def _harm(plan: PlannedSignal, estimate: Estimate, alpha: float) -> Bounds:
    """Bounds for showing that it is harmful."""
    return bounds(estimate, alpha, abs(plan.limit) / PRECISION, abs(plan.limit))


def _proof_and_harm(plan: PlannedSignal, difference: Estimate, config: DeployConfig) -> tuple[Bounds, Bounds]:
    """Both; of two bundles that answer every request alike the difference is known: that is no lack of evidence."""
    if difference.value == 0.0 and difference.standard_error == 0.0:
        return (0.0, 0.0), (0.0, 0.0)
    return _proof(plan, difference, config.alpha), _harm(plan, difference, plan.harm_alpha)


def _phase(is_harmless: bool, is_harmful: bool) -> Phase:
    if is_harmless:
        return Phase.SUCCESSFUL
    return Phase.FAILED if is_harmful else Phase.RUNNING


def _median(ordered: Sequence[float]) -> float:
    return (ordered[(len(ordered) - 1) // 2] + ordered[len(ordered) // 2]) / 2.0


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
