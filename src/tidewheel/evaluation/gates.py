"""Gates: numbers in, reasons out. Pure; never raises on data. Nothing passes for lack of evidence."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from tidewheel.contracts.comparison import Estimate, Replay
from tidewheel.contracts.evaluation import ClaimKind, EvaluateConfig
from tidewheel.contracts.verdict import Phase, Reason, Severity
from tidewheel.evaluation.against import CHANCE, against_production, against_releases, replayed, stability, tightened
from tidewheel.evaluation.claims import bounds_of, reason_of, undefined

# A bootstrap over fewer clusters than this claims more than it knows (Cameron, Gelbach & Miller 2008: "few" is 5 to 30).
MIN_USERS = 30


@dataclass(frozen=True)
class LabelEvidence:
    """What is known about one label of the candidate.

    `difference` is candidate minus production, paired, by metric; None where there is no production or it does not
    predict this label. `releases`: the same against earlier releases, by digest. `replay` is None without randomized rows,
    `stability` empty without production. `fault` says what is wrong with the scores themselves, else it is empty.
    """

    label: str
    is_gated: bool
    positives: int
    negatives: int
    candidate: Mapping[str, Estimate]
    difference: Mapping[str, Estimate] | None
    releases: Mapping[str, Mapping[str, Estimate]] = field(default_factory=dict)
    replay: Replay | None = None
    stability: Mapping[str, Estimate] = field(default_factory=dict)
    fault: str = ""


@dataclass(frozen=True)
class Evidence:
    """What is known about a candidate: `rows` and `users` of the evaluation split, and its labels.

    `incompatible` says why production could not be measured as it was when it was released, else it is empty; `unmeasured` the
    same of earlier releases, by digest.
    """

    rows: int
    users: int
    has_production: bool
    labels: tuple[LabelEvidence, ...]
    incompatible: str = ""
    unmeasured: Mapping[str, str] = field(default_factory=dict)


def judge(evidence: Evidence, config: EvaluateConfig) -> list[Reason]:
    """Every gate of every label. Labels that are not gated are reported as Successful, marked so, with their numbers.

    A gate has three ends: its limit is met by the interval's unfavourable bound (Successful), missed even by its
    favourable bound (Failed: proven), or lies within the interval (Inconclusive: neither proven). Calibration gates
    fail only when proven, see `EvaluateConfig`. Production is never needed for a first release.
    """
    if evidence.rows == 0:
        return [reason_of("evidence", Phase.INCONCLUSIVE, "the evaluation split has no rows")]
    if evidence.users < MIN_USERS:
        message = f"{evidence.users} users < {MIN_USERS}: an interval over users would claim more than it knows"
        return [reason_of("evidence", Phase.INCONCLUSIVE, message, evidence.users, MIN_USERS)]
    reasons = []
    for label in evidence.labels:
        found = _label(label, evidence, config)
        reasons += found if label.is_gated else [_reported(one) for one in found]
    if not any(label.is_gated for label in evidence.labels):
        reasons.append(reason_of("evidence", Phase.INCONCLUSIVE, "no label is gated: nothing was judged"))
    if not evidence.has_production:
        message = "no production yet: nothing to compare with, absolute gates only"
        reasons.append(reason_of("production", Phase.SUCCESSFUL, message))
    if evidence.incompatible:
        reasons.append(_warning("baseline", f"BASELINE_INCOMPATIBLE: {evidence.incompatible}; absolute gates are tighter"))
    reasons += [
        _warning("releases", f"release {one[:12]}: not compared with: {why}") for one, why in evidence.unmeasured.items()
    ]
    return reasons


def _label(evidence: LabelEvidence, whole: Evidence, config: EvaluateConfig) -> list[Reason]:
    name = evidence.label
    if evidence.fault:
        return [reason_of(f"scores {name}", Phase.ERROR, f"{name}: {evidence.fault}")]
    for side, count in (("positive", evidence.positives), ("negative", evidence.negatives)):
        if count < config.min_positives:
            message = f"{name}: {count} {side} rows < {config.min_positives}, too rare to judge"
            return [reason_of(f"evidence {name}", Phase.INCONCLUSIVE, message, count, config.min_positives)]
    is_new = whole.has_production and evidence.difference is None
    limits = tightened(name, config) if whole.incompatible or is_new else config
    reasons = [
        min_auc(name, evidence.candidate.get("auc"), limits.min_auc.get(name)),
        calibration(name, evidence.candidate.get("calibration_ratio"), limits.max_calibration_error),
        calibration_error(name, evidence.candidate.get("ece"), limits.max_ece),
    ]
    if is_new:
        message = f"{name}: production does not predict it: nothing to compare with, its absolute gates are tighter"
        return [*reasons, reason_of(f"auc {name} vs production", Phase.SUCCESSFUL, message)]
    return [*reasons, *_against(evidence, evidence.difference, config)] if evidence.difference is not None else reasons


def _against(evidence: LabelEvidence, difference: Mapping[str, Estimate], config: EvaluateConfig) -> list[Reason]:
    name = evidence.label
    claims = [claim for claim in config.claims if not claim.labels or name in claim.labels]
    reasons = [against_production(name, claim, difference.get(claim.metric)) for claim in claims]
    if evidence.releases:
        not_worse = [claim for claim in claims if claim.kind is ClaimKind.NON_INFERIOR]
        reasons += [against_releases(name, claim, evidence.releases) for claim in not_worse]
    reasons.append(stability(name, evidence.stability, difference, config.min_rank_agreement))
    if config.replay == "required":
        reasons.append(replayed(name, evidence.replay, config))
    return reasons


def min_auc(label: str, auc: Estimate | None, limit: float | None) -> Reason:
    """The ranking is good enough: AUC >= `limit`, or better than a coin where the recipe gives no limit."""
    check = f"auc {label}"
    note = "" if limit is not None else " (no min_auc in the recipe: better than chance)"
    limit = CHANCE if limit is None else limit
    lower, upper = bounds_of(auc)
    if lower is None or upper is None:
        return undefined(check, limit)
    if lower >= limit:
        return reason_of(check, Phase.SUCCESSFUL, f"{check}: lower bound {lower:.4f} >= {limit:.4f}{note}", lower, limit)
    if upper < limit:
        return reason_of(check, Phase.FAILED, f"{check}: upper bound {upper:.4f} < {limit:.4f}{note}", upper, limit)
    message = f"{check}: {limit:.4f} lies within [{lower:.4f}, {upper:.4f}], neither met nor missed{note}"
    return reason_of(check, Phase.INCONCLUSIVE, message, lower, limit)


def calibration(label: str, ratio: Estimate | None, limit: float) -> Reason:
    """Predicted / actual is not proven to be off by more than `limit`: its bound nearest to 1 is within 1 +- limit."""
    check = f"calibration {label}"
    lower, upper = bounds_of(ratio)
    if lower is None or upper is None:
        return undefined(check, limit)
    nearest = min(max(1.0, lower), upper)
    error = abs(nearest - 1.0)
    phase, sign = (Phase.SUCCESSFUL, "<=") if error <= limit else (Phase.FAILED, ">")
    message = f"{check}: predicted/actual in [{lower:.4f}, {upper:.4f}], nearest bound off by {error:.4f} {sign} {limit:.4f}"
    return reason_of(check, phase, message, error, limit)


def calibration_error(label: str, ece: Estimate | None, limit: float) -> Reason:
    """ECE is not proven to be above `limit`: its lower bound is not."""
    check = f"ece {label}"
    lower, upper = bounds_of(ece)
    if lower is None or upper is None:
        return undefined(check, limit)
    phase, sign = (Phase.SUCCESSFUL, "<=") if lower <= limit else (Phase.FAILED, ">")
    return reason_of(check, phase, f"{check}: lower bound {lower:.4f} {sign} {limit:.4f}", lower, limit)


def _warning(check: str, message: str) -> Reason:
    return Reason(check=check, phase=Phase.INCONCLUSIVE, message=message, severity=Severity.WARNING)


def _reported(found: Reason) -> Reason:
    note = "" if found.phase is Phase.SUCCESSFUL else f", would be {found.phase.value}"
    return found.model_copy(update={"phase": Phase.SUCCESSFUL, "message": f"{found.message} (not gated{note})"})
