"""Gates: numbers in, reasons out. Pure; never raises on data. Nothing passes for lack of evidence."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from tidewheel.contracts.comparison import Estimate
from tidewheel.contracts.evaluation import Claim, ClaimKind, EvaluateConfig
from tidewheel.contracts.verdict import Phase, Reason
from tidewheel.evaluation.planning import detectable, rows_to_detect

# A bootstrap over fewer clusters than this claims more than it knows (Cameron, Gelbach & Miller 2008: "few" is 5 to 30).
MIN_USERS = 30
CHANCE = 0.5  # the AUC of a coin: the floor of a gated label that the recipe gives none


@dataclass(frozen=True)
class LabelEvidence:
    """What is known about one label of the candidate.

    `difference` is candidate minus production, paired, by metric; None where there is no production or it does not
    predict this label. `fault` says what is wrong with the scores themselves, else it is empty.
    """

    label: str
    is_gated: bool
    positives: int
    negatives: int
    candidate: Mapping[str, Estimate]
    difference: Mapping[str, Estimate] | None
    fault: str = ""


@dataclass(frozen=True)
class Evidence:
    """What is known about a candidate: `rows` and `users` of the evaluation split, and its labels."""

    rows: int
    users: int
    has_production: bool
    labels: tuple[LabelEvidence, ...]


def judge(evidence: Evidence, config: EvaluateConfig) -> list[Reason]:
    """Every gate of every label. Labels that are not gated are reported as Successful, marked so, with their numbers.

    A gate has three ends: its limit is met by the interval's unfavourable bound (Successful), missed even by its
    favourable bound (Failed: proven), or lies within the interval (Inconclusive: neither proven). Calibration gates
    fail only when proven, see `EvaluateConfig`. Production is never needed for a first release.
    """
    if evidence.rows == 0:
        return [_reason("evidence", Phase.INCONCLUSIVE, "the evaluation split has no rows")]
    if evidence.users < MIN_USERS:
        message = f"{evidence.users} users < {MIN_USERS}: an interval over users would claim more than it knows"
        return [_reason("evidence", Phase.INCONCLUSIVE, message, evidence.users, MIN_USERS)]
    reasons = []
    for label in evidence.labels:
        found = _label(label, evidence.has_production, config)
        reasons += found if label.is_gated else [_reported(reason) for reason in found]
    if not any(label.is_gated for label in evidence.labels):
        reasons.append(_reason("evidence", Phase.INCONCLUSIVE, "no label is gated: nothing was judged"))
    if not evidence.has_production:
        reasons.append(
            _reason("production", Phase.SUCCESSFUL, "no production yet: nothing to compare with, absolute gates only")
        )
    return reasons


def _label(evidence: LabelEvidence, has_production: bool, config: EvaluateConfig) -> list[Reason]:
    name = evidence.label
    if evidence.fault:
        return [_reason(f"scores {name}", Phase.ERROR, f"{name}: {evidence.fault}")]
    for side, count in (("positive", evidence.positives), ("negative", evidence.negatives)):
        if count < config.min_positives:
            message = f"{name}: {count} {side} rows < {config.min_positives}, too rare to judge"
            return [_reason(f"evidence {name}", Phase.INCONCLUSIVE, message, count, config.min_positives)]
    reasons = [
        min_auc(name, evidence.candidate.get("auc"), config.min_auc.get(name)),
        calibration(name, evidence.candidate.get("calibration_ratio"), config.max_calibration_error),
        calibration_error(name, evidence.candidate.get("ece"), config.max_ece),
    ]
    if evidence.difference is not None:
        reasons += [
            against_production(name, claim, evidence.difference.get(claim.metric))
            for claim in config.claims
            if not claim.labels or name in claim.labels
        ]
    elif has_production:
        message = f"{name}: production does not predict it, nothing to compare with"
        reasons.append(_reason(f"auc {name} vs production", Phase.SUCCESSFUL, message))
    return reasons


def min_auc(label: str, auc: Estimate | None, limit: float | None) -> Reason:
    """The ranking is good enough: AUC >= `limit`, or better than a coin where the recipe gives no limit."""
    check = f"auc {label}"
    note = "" if limit is not None else " (no min_auc in the recipe: better than chance)"
    limit = CHANCE if limit is None else limit
    lower, upper = _bounds(auc)
    if lower is None or upper is None:
        return _undefined(check, limit)
    if lower >= limit:
        return _reason(check, Phase.SUCCESSFUL, f"{check}: lower bound {lower:.4f} >= {limit:.4f}{note}", lower, limit)
    if upper < limit:
        return _reason(check, Phase.FAILED, f"{check}: upper bound {upper:.4f} < {limit:.4f}{note}", upper, limit)
    message = f"{check}: {limit:.4f} lies within [{lower:.4f}, {upper:.4f}], neither met nor missed{note}"
    return _reason(check, Phase.INCONCLUSIVE, message, lower, limit)


def calibration(label: str, ratio: Estimate | None, limit: float) -> Reason:
    """Predicted / actual is not proven to be off by more than `limit`: its bound nearest to 1 is within 1 +- limit."""
    check = f"calibration {label}"
    lower, upper = _bounds(ratio)
    if lower is None or upper is None:
        return _undefined(check, limit)
    nearest = min(max(1.0, lower), upper)
    error = abs(nearest - 1.0)
    phase, sign = (Phase.SUCCESSFUL, "<=") if error <= limit else (Phase.FAILED, ">")
    message = f"{check}: predicted/actual in [{lower:.4f}, {upper:.4f}], nearest bound off by {error:.4f} {sign} {limit:.4f}"
    return _reason(check, phase, message, error, limit)


def calibration_error(label: str, ece: Estimate | None, limit: float) -> Reason:
    """ECE is not proven to be above `limit`: its lower bound is not."""
    check = f"ece {label}"
    lower, upper = _bounds(ece)
    if lower is None or upper is None:
        return _undefined(check, limit)
    phase, sign = (Phase.SUCCESSFUL, "<=") if lower <= limit else (Phase.FAILED, ">")
    return _reason(check, phase, f"{check}: lower bound {lower:.4f} {sign} {limit:.4f}", lower, limit)


def against_production(label: str, claim: Claim, difference: Estimate | None) -> Reason:
    """A claim about student minus production: proven where the whole interval is on its side of the margin.

    What is neither proven nor refuted says how many rows would prove it, if the difference stays what it seems to be now.
    """
    name = "" if claim.kind is ClaimKind.NON_INFERIOR else f" {claim.kind.value}"
    check = f"{claim.metric} {label} vs production{name}"
    lower, upper = _bounds(difference)
    if difference is None or lower is None or upper is None:
        return _undefined(check, claim.margin)
    sign = 1 if claim.metric.is_better_when_higher else -1
    worst, best = sorted((sign * lower, sign * upper))  # in the better direction
    if claim.kind is ClaimKind.EQUIVALENT:
        is_met, is_missed = -claim.margin < worst and best < claim.margin, best <= -claim.margin or worst >= claim.margin
        distance = claim.margin - abs(difference.value or 0.0)
        wanted, limit = f"within ±{claim.margin:.4f}", claim.margin
    else:
        threshold = claim.margin if claim.kind is ClaimKind.SUPERIOR else -claim.margin
        is_met, is_missed = worst > threshold, best <= threshold
        distance = sign * (difference.value or 0.0) - threshold
        limit = sign * threshold
        wanted = f"{'above' if sign > 0 else 'below'} {limit:+.4f}"
    shown = f"{check}: [{lower:+.4f}, {upper:+.4f}]"
    bound = sign * worst
    if is_met:
        return _reason(check, Phase.SUCCESSFUL, f"{shown} is {wanted}", bound, limit)
    if is_missed:
        return _reason(check, Phase.FAILED, f"{shown} is not {wanted}", sign * best, limit)
    message = f"{shown} is neither proven nor disproven to be {wanted}; {_what_would_settle(difference, distance)}"
    return _reason(check, Phase.INCONCLUSIVE, message, bound, limit)


def _what_would_settle(difference: Estimate, distance: float) -> str:
    smallest, rows = detectable(difference), rows_to_detect(difference, distance)
    found = f"{difference.effective_rows:,.0f} effective rows show differences of {smallest:.4f} or more in 9 of 10 logs"
    return found if rows is None else f"{found}; if it stays as it is, about {rows:,.0f} would prove it"


def _bounds(estimate: Estimate | None) -> tuple[float | None, float | None]:
    if estimate is None or estimate.value is None or estimate.lower is None or estimate.upper is None:
        return None, None
    if not all(map(math.isfinite, (estimate.value, estimate.lower, estimate.upper))):
        return None, None
    return estimate.lower, estimate.upper


def _undefined(check: str, limit: float) -> Reason:
    return _reason(check, Phase.ERROR, f"{check}: no finite interval to compare with {limit:g}", None, limit)


def _reported(reason: Reason) -> Reason:
    note = "" if reason.phase is Phase.SUCCESSFUL else f", would be {reason.phase.value}"
    return reason.model_copy(update={"phase": Phase.SUCCESSFUL, "message": f"{reason.message} (not gated{note})"})


def _reason(check: str, phase: Phase, message: str, value: float | None = None, limit: float | None = None) -> Reason:
    return Reason(check=check, phase=phase, message=message, value=value, limit=limit)
