"""Gates that set the student beside what served before it: numbers in, reasons out. Pure; never raises on data."""

from __future__ import annotations

from collections.abc import Mapping

from tidewheel.contracts.comparison import KENDALL_TAU, PRODUCTION, SNIPS, Estimate, Replay
from tidewheel.contracts.evaluation import Claim, ClaimKind, Compared, EvaluateConfig
from tidewheel.contracts.verdict import SEVERITY, Phase, Reason
from tidewheel.evaluation.claims import bounds_of, prove, reason_of

MIN_REPLAYED_ROWS = 100.0  # effective ones, as for the precision of a weighted mean
MAX_SHARE_OF_A_ROW = 0.1
CHANCE = 0.5  # the AUC of a coin: the floor of a gated label that the recipe gives none


def against_production(label: str, claim: Claim, difference: Estimate | None) -> Reason:
    """A claim about student minus production."""
    name = "" if claim.kind is ClaimKind.NON_INFERIOR else f" {claim.kind.value}"
    check = f"{claim.metric} {label} vs production{name}"
    return prove(check, claim.kind, claim.margin, difference, claim.metric.is_better_when_higher)


def against_releases(label: str, claim: Claim, differences: Mapping[str, Mapping[str, Estimate]]) -> Reason:
    """Not worse by the margin than any earlier release that can be measured: losses too small to see one by one add up.

    Every one of them has to be passed, so no allowance is needed for their number (Berger 1982, intersection-union test).
    """
    check = f"{claim.metric} {label} vs the last {len(differences) + 1} releases"
    each = {
        digest: prove(check, claim.kind, claim.margin, found.get(claim.metric), claim.metric.is_better_when_higher)
        for digest, found in differences.items()
    }
    sign = 1 if claim.metric.is_better_when_higher else -1
    digest = max(each, key=lambda one: (SEVERITY.index(each[one].phase), -sign * (each[one].value or 0.0)))
    nearest = each[digest]
    advice = "" if nearest.phase is not Phase.FAILED else f"; tidewheel rollback --to {digest[:12]} goes back to it"
    return nearest.model_copy(update={"message": f"{nearest.message} (closest: {digest[:12]}){advice}"})


def replayed(label: str, found: Replay | None, config: EvaluateConfig) -> Reason:
    """What the student puts first on randomized requests is proven to earn not much less than what production does.

    A log that hardly speaks about these rankings is Inconclusive, however narrow an interval it gives.
    """
    check = f"replay {label} vs production"
    if found is None:
        message = (
            f"{check}: no rows of randomized requests with a propensity; nobody can tell what users would do "
            "(evaluate.replay: reported lets students pass without)"
        )
        return reason_of(check, Phase.INCONCLUSIVE, message)
    for model, support in found.support.items():
        if support.smallest_propensity < config.min_propensity:
            smallest = support.smallest_propensity
            message = (
                f"{check}: a propensity of {smallest:.3g} < {config.min_propensity:g}: what was hardly ever shown decides alone"
            )
            return reason_of(check, Phase.INCONCLUSIVE, message, smallest, config.min_propensity)
        if support.effective_rows < MIN_REPLAYED_ROWS:
            message = f"{check}: {support.effective_rows:,.0f} effective rows speak about {model} < {MIN_REPLAYED_ROWS}"
            return reason_of(check, Phase.INCONCLUSIVE, message, support.effective_rows, MIN_REPLAYED_ROWS)
        if support.largest_share > MAX_SHARE_OF_A_ROW:
            message = (
                f"{check}: one row has {support.largest_share:.0%} of the weight of {model} > {MAX_SHARE_OF_A_ROW:.0%}: "
                f"propensities go down to {support.smallest_propensity:.2g}"
            )
            return reason_of(check, Phase.INCONCLUSIVE, message, support.largest_share, MAX_SHARE_OF_A_ROW)
    if found.judged_by == SNIPS and all(support.reached == 1.0 for support in found.support.values()):
        message = f"{check}: requests have no more than evaluate.top = {found.top} rows, both models pick all of them"
        return reason_of(check, Phase.INCONCLUSIVE, message, found.top)
    earned = found.values.get(PRODUCTION, {}).get(found.judged_by)
    if earned is None or not earned.value:
        return reason_of(check, Phase.INCONCLUSIVE, f"{check}: production's picks earned nothing: there is nothing to lose")
    return prove(check, ClaimKind.NON_INFERIOR, config.max_replay_drop * earned.value, found.differences.get(found.judged_by))


def stability(label: str, found: Mapping[str, Estimate], difference: Mapping[str, Estimate], limit: float) -> Reason:
    """Requests are not proven to be reordered more than `limit` allows, unless the student is proven to rank better."""
    check = f"rank agreement {label} with production"
    if KENDALL_TAU not in found:
        return reason_of(check, Phase.SUCCESSFUL, f"{check}: no request has two rows, nothing can be reordered")
    lower, upper = bounds_of(found[KENDALL_TAU])
    if lower is None or upper is None:
        message = f"{check}: not known: a model tells no rows of a request apart, or too few pairs carry the weight of all"
        return reason_of(check, Phase.INCONCLUSIVE, message, None, limit)
    if upper >= limit:
        message = f"{check}: Kendall's tau in [{lower:.4f}, {upper:.4f}], not below {limit:.4f}"
        return reason_of(check, Phase.SUCCESSFUL, message, upper, limit)
    for metric in (Compared.AUC, Compared.REQUEST_AUC, Compared.NDCG):
        gain = bounds_of(difference.get(metric))[0]
        if gain is not None and gain > 0:
            message = f"{check}: Kendall's tau {upper:.4f} < {limit:.4f}, with a proven gain: {metric} by {gain:+.4f} or more"
            return reason_of(check, Phase.SUCCESSFUL, message, upper, limit)
    message = f"{check}: Kendall's tau at most {upper:.4f} < {limit:.4f}, and no gain is proven that would explain it"
    return reason_of(check, Phase.FAILED, message, upper, limit)


def tightened(label: str, config: EvaluateConfig) -> EvaluateConfig:
    """What a label has to show alone where production cannot be measured as it was: calibration limits are halved, and the
    margin that a comparison of AUC would have allowed is asked on top of the floor.
    """
    allowed = [
        claim.margin
        for claim in config.claims
        if claim.metric is Compared.AUC and claim.kind is ClaimKind.NON_INFERIOR and label in (claim.labels or (label,))
    ]
    floor = config.min_auc.get(label, CHANCE) + max(allowed, default=0.0)
    return config.model_copy(
        update={
            "min_auc": config.min_auc | {label: floor},
            "max_calibration_error": config.max_calibration_error / 2,
            "max_ece": config.max_ece / 2,
        }
    )
