"""Production on a cluster: the canary that its workload leads, and the projection of the ledger onto it."""

from __future__ import annotations

import math
from collections.abc import Sequence

from tidewheel.contracts.ledger import LedgerEntry, production_after, target_after
from tidewheel.contracts.offer import CanaryOffer
from tidewheel.contracts.progress import Progress, silent
from tidewheel.contracts.recipe import CanaryStep
from tidewheel.contracts.rollout import CanaryResult
from tidewheel.contracts.target import ArgoTarget, EmbeddedTarget, Target
from tidewheel.contracts.verdict import Phase, Reason, combine
from tidewheel.errors import ConfigError, RetryableError, TidewheelError
from tidewheel.registry.ledger import Ledger
from tidewheel.rollout.remote import journal_name, seen
from tidewheel.rollout.workload import Standing, Workload
from tidewheel.steps.offers import offered, publish


def follow(ledger: Ledger, canary: str = "", target: Target | None = None) -> list[str]:
    """Make the cluster serve what the ledger says; a sentence for what was changed, none if all was right. Idempotent.
    A candidate whose canary goes on is left alone.

    Args:
        canary: key of the offer that explains what serves; empty: as before.
        target: where production is to be served; None: where the ledger says it is.

    Raises:
        ConfigError: the workload is not there, or may not be changed.
        RetryableError: the cluster does not answer, or the pods did not come up.
    """
    entries = ledger.entries()
    target, production = target or target_after(entries), production_after(entries)
    if target is None or isinstance(target, EmbeddedTarget) or production is None:
        return []
    workload = Workload(target)
    now = workload.standing()
    if _is_tried(ledger, entries, now) or (now.bundle == production and now.is_settled and not now.is_aborted):
        return []
    workload.serve(production, canary)
    return [f"{workload.where}: serves {production[:12]}, before {now.bundle[:12] or 'nothing'} ({now.words})"]


def followed(ledger: Ledger, canary: str = "") -> list[str]:
    """As `follow`, after a decision: it stands either way, so what could not be changed is said and not raised."""
    try:
        return follow(ledger, canary)
    except TidewheelError as error:
        return [f"{error}; `tidewheel reconcile` repairs it"]


def _is_tried(ledger: Ledger, entries: Sequence[LedgerEntry], now: Standing) -> bool:
    """What the template names is a candidate whose canary may still decide."""
    if not now.canary or now.is_aborted:
        return False
    offer = offered(ledger.store, now.canary)
    return now.bundle == offer.candidate and offer.baseline.ledger_number == len(entries)


def tried_in_steps(
    target: ArgoTarget, offer: CanaryOffer, ledger: Ledger, is_closed_loop: bool, progress: Progress = silent
) -> CanaryResult:
    """Offer the candidate to a Rollout and wait for what its analysis decides. Started again, it goes on where it was.

    What passes without a verdict of ours, because somebody promoted by hand or skipped the analysis, is an `Error`.

    Raises:
        ConfigError: the Rollout is not there, or has other steps than the plan.
        RetryableError: the cluster does not answer, or nothing was decided in time.
    """
    workload, steps = Workload(target), offer.part.deploy.steps
    now = workload.standing()
    expect_steps(workload, now.shares, steps)
    if (now.bundle, now.canary) != (offer.candidate, offer.key):  # else an earlier try offered it, whatever came of it
        publish(ledger.store, offer)
        follow(ledger, offer.key, target)
        workload.offer(offer.candidate, offer.key)
    longest = sum(step.max_seconds + target.start_seconds for step in steps) + target.start_seconds

    def told(standing: Standing) -> None:
        progress(0.5, f"{workload.where}: {standing.words}")

    now = workload.wait(longest, told)
    result, has_ended = seen(ledger.store, journal_name(offer.key, now.revision), offer.part.deploy, is_closed_loop)
    if has_ended:
        return result
    if not now.is_settled:
        raise RetryableError(f"{workload.where}: nothing was decided within {longest:,.0f} s: {now.words}")
    how = "was promoted without a verdict"
    more = ""
    if now.is_aborted:
        how, more = "was aborted", f"; see kubectl --namespace {target.namespace} describe analysisruns"
    missing = Reason(check="rollout", phase=Phase.ERROR, message=f"{workload.where} {how}: {now.words}{more}")
    reasons = [*result.verdict.reasons, missing] if result.steps else [missing]
    return result.model_copy(update={"verdict": combine(reasons)})


def expect_steps(workload: Workload, found: Sequence[float], steps: Sequence[CanaryStep]) -> None:
    """Refuse a Rollout that would not ask about the steps of this plan.

    Raises:
        ConfigError: `found`, its shares, are others.
    """
    if (wanted := shares_of(steps)) != tuple(found):
        raise ConfigError(
            f"{workload.where}: its steps give {_words(found)} of users, the recipe's plan {_words(wanted)}; upgrade the chart "
            "with the values of tidewheel rollout plan --helm"
        )


def shares_of(steps: Sequence[CanaryStep]) -> tuple[float, ...]:
    """The shares of a plan as a Rollout can give them: whole percents, rounded up."""
    return tuple(weight_of(step.share) / 100 for step in steps)


def weight_of(share: float) -> int:
    """A share of users as `setWeight`: 1 to 100."""
    return max(1, math.ceil(round(share * 100, 6)))


def _words(shares: Sequence[float]) -> str:
    return ", ".join(f"{share:.0%}" for share in shares) or "nothing"
