"""The one place that decides what is production: an entry in the ledger first, then its projections."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from tidewheel.contracts.bundle import BundleManifest
from tidewheel.contracts.experiment import Experiment, HoldoutConfig
from tidewheel.contracts.ledger import (
    OF_RUNS,
    AfterRollback,
    Decision,
    LedgerEntry,
    experiment_after,
    previous_production,
    production_after,
    untrusted,
)
from tidewheel.contracts.retraining import policy_after, retraining_after
from tidewheel.contracts.target import Target
from tidewheel.contracts.verdict import Phase, Verdict
from tidewheel.errors import ConfigError, PausedError, RetryableError
from tidewheel.registry.assignment import next_experiment
from tidewheel.registry.ledger import Ledger
from tidewheel.registry.projections import project, projections_of
from tidewheel.registry.versions import Registry

Clock = Callable[[], datetime]


def _now() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True)
class Release:
    """What was decided and what had to be changed outside the ledger. `unprojected` says why not all that follows could be
    changed, else it is empty; the decision stands either way and `reconcile` makes up for it."""

    entry: LedgerEntry
    repaired: tuple[str, ...]
    unprojected: str = ""


def decision_of(verdict: Verdict, is_canaried: bool, production: str | None) -> Decision:
    """What follows from the last verdict: only `Successful` of a canary releases anything."""
    if not is_canaried:
        return Decision.REJECTED
    if not verdict.is_successful:
        return Decision.ROLLED_BACK
    return Decision.BOOTSTRAP if production is None else Decision.PROMOTED


def release(
    ledger: Ledger,
    registry: Registry | None,
    *,
    bundle: str,
    manifest: BundleManifest,
    verdict: Verdict,
    is_canaried: bool,
    seen_number: int,
    run_id: str,
    reason: str = "",
    retraining: AfterRollback | None = None,
    holdout: HoldoutConfig | None = None,
    target: Target | None = None,
    clock: Clock = _now,
) -> Release:
    """Write the decision on a candidate into the ledger, then let everything else follow. Idempotent for a run and a bundle:
    a retry finds the decision that was made and makes up for what followed no more.

    Args:
        verdict: of the canary; of `evaluate` where `is_canaried` is false because no traffic was given.
        seen_number: number of the last ledger entry when the run pinned its baseline, 0 for none.
        run_id: of the run that decides; the bundle may have been made by an earlier one.
        reason: empty: the verdict's own words.
        retraining: what the recipe wants of it should this release be taken back; None: not known here.
        holdout: the rules of the experiment that a promotion begins; None: nobody is held out.
        target: where production is served; None: not known here.

    Raises:
        RetryableError: production changed since the baseline was pinned: the comparison is with the wrong bundle.
    """
    entries = ledger.entries()
    if (made := decided_by(entries, run_id, bundle)) is not None:
        return _projected(ledger, registry, made)
    if len(entries) != seen_number:
        raise RetryableError(
            f"ledger: entry {len(entries)} ({entries[-1].run_id if entries else 'none'}) was written after this run "
            f"compared with entry {seen_number}; run again"
        )
    production = production_after(entries)
    decision = decision_of(verdict, is_canaried, production)
    is_released = decision in (Decision.BOOTSTRAP, Decision.PROMOTED)
    lineage = manifest.lineage
    entry = LedgerEntry(
        number=seen_number + 1,
        time=clock(),
        decision=decision,
        recipe=lineage.recipe,
        run_id=run_id,
        window=lineage.window,
        bundle=bundle,
        production=bundle if is_released else production,
        previous=production,
        teacher=lineage.teacher,
        generation=lineage.generation,
        feature_digest=manifest.feature_digest,
        verdict=verdict,
        reason=reason or verdict.explain(),
        retraining=retraining,
        experiment=next_experiment(entries, decision, lineage.recipe, bundle, lineage.window, holdout),
        target=target,
    )
    return _projected(ledger, registry, ledger.append(entry))


def decided_by(entries: Sequence[LedgerEntry], run_id: str, bundle: str) -> LedgerEntry | None:
    """What a run decided about its candidate already, or None."""
    by_run = (entry for entry in entries if (entry.run_id, entry.bundle) == (run_id, bundle))
    return next((entry for entry in by_run if entry.decision in OF_RUNS), None)


def expect_open(entries: Sequence[LedgerEntry], recipe: str) -> None:
    """Refuse to begin a run while retraining is paused.

    Raises:
        PausedError: a reversion paused it, and nobody resumed.
    """
    if (found := retraining_after(entries)).is_paused:
        raise PausedError(
            f"recipe {recipe}: retraining is paused since {found.explain()}; look into it, then tidewheel resume --reason WHY"
        )


def rollback(
    ledger: Ledger,
    registry: Registry | None,
    *,
    reason: str,
    to: str | None = None,
    check: Callable[[str], object] = lambda bundle: None,
    run_id: str = "rollback",
    retraining: AfterRollback | None = None,
    clock: Clock = _now,
) -> Release:
    """Make an earlier production serve again, by hand or by whoever watches production.

    Args:
        to: digest or unique beginning of one; None: the newest earlier production that was not taken back.
        check: called with the target's digest before anything is written; raises where it could not serve.
        retraining: what becomes of it; None: what the recipe said when it last decided.

    Raises:
        ConfigError: there is nothing to go back to, or `to` never was production or is so already.
    """
    entries = ledger.entries()
    target = _released(entries, to)
    check(target)
    policy = retraining or policy_after(entries)
    entry = _back(entries, target, time=clock(), run_id=run_id, reason=reason, retraining=policy)
    return _projected(ledger, registry, ledger.append(entry))


def resume(ledger: Ledger, registry: Registry | None, *, reason: str, run_id: str = "resume", clock: Clock = _now) -> Release:
    """Let runs begin and teachers teach again, which a reversion held up. What serves stays.

    Raises:
        ConfigError: nothing is held up.
    """
    entries = ledger.entries()
    serving = production_after(entries)
    if (held := retraining_after(entries)).entry is None or serving is None:
        raise ConfigError(f"resume: nothing is held up, {held.explain()}")
    entry = _by_hand(entries, serving, decision=Decision.RESUMED, time=clock(), run_id=run_id, reason=reason)
    return _projected(ledger, registry, ledger.append(entry))


def quarantine(
    ledger: Ledger,
    registry: Registry | None,
    *,
    bundle: str,
    reason: str,
    run_id: str = "quarantine",
    clock: Clock = _now,
) -> Release:
    """Never again learn from a bundle, nor from what learned from it. What serves stays: `rollback` changes that.

    Args:
        bundle: digest or unique beginning of one that was decided about.

    Raises:
        ConfigError: no decision, or several, are about such a bundle, or it is not trusted already.
    """
    entries = ledger.entries()
    decided = tuple(dict.fromkeys(entry.bundle for entry in entries))
    matching = sorted(digest for digest in decided if digest.startswith(bundle))
    if len(matching) != 1:
        known = ", ".join(digest[:12] for digest in decided) or "none"
        raise ConfigError(f"quarantine: {bundle} names {len(matching)} bundles of the ledger; expected one of {known}")
    (digest,) = matching
    if why := untrusted(entries).get(digest):
        raise ConfigError(f"quarantine: {digest[:12]} teaches nobody already: it was {why}")
    entry = _by_hand(entries, digest, decision=Decision.QUARANTINED, time=clock(), run_id=run_id, reason=reason)
    return _projected(ledger, registry, ledger.append(entry))


def _by_hand(entries: Sequence[LedgerEntry], bundle: str, **changes: object) -> LedgerEntry:
    """The next entry, about a bundle that a run decided about; what serves stays unless `changes` say otherwise."""
    made = next(entry for entry in reversed(entries) if entry.bundle == bundle and entry.decision in OF_RUNS)
    serving = production_after(entries)
    known = {"number": len(entries) + 1, "previous": serving, "production": serving, "retraining": None, "experiment": None}
    return made.model_copy(update=known | changes)


def end_experiment(
    ledger: Ledger,
    registry: Registry | None,
    *,
    experiment: Experiment,
    verdict: Verdict,
    seen_number: int,
    run_id: str = "watch",
    check: Callable[[str], object] = lambda bundle: None,
    clock: Clock = _now,
) -> Release:
    """What follows from the verdict on an experiment that is decided or over: harm goes back, all else is concluded.

    Args:
        verdict: `Failed`: the bundle of the held-out users serves everybody again, and the new one and what learned from it are
            not trusted any more. Else production serves everybody.
        seen_number: number of the last ledger entry when the evidence was read.
        check: called with the digest that is gone back to before anything is written; raises where it could not serve.

    Raises:
        RetryableError: something was decided since the evidence was read: it is about another production.
    """
    entries = ledger.entries()
    if len(entries) != seen_number or experiment_after(entries) != experiment:
        raise RetryableError(
            f"ledger: found entry {len(entries)}, the experiment was judged at entry {seen_number}; run tidewheel watch again"
        )
    if verdict.phase is Phase.FAILED:
        check(experiment.previous)
        reason, policy = f"delayed harm: {verdict.explain()}", policy_after(entries)
        entry = _back(
            entries, experiment.previous, time=clock(), run_id=run_id, reason=reason, verdict=verdict, retraining=policy
        )
    else:
        reason = f"holdout experiment {experiment.number} is over: {verdict.phase.value}: {verdict.explain()}"
        told = {"decision": Decision.CONCLUDED, "time": clock(), "run_id": run_id}
        entry = _by_hand(entries, experiment.new, verdict=verdict, reason=reason, **told)
    return _projected(ledger, registry, ledger.append(entry))


def _back(entries: Sequence[LedgerEntry], target: str, **changes: object) -> LedgerEntry:
    """The next entry, which makes an earlier production serve again."""
    return _by_hand(entries, target, decision=Decision.REVERTED, production=target, **changes)


def _released(entries: Sequence[LedgerEntry], to: str | None) -> str:
    current = production_after(entries)
    if current is None:
        raise ConfigError("rollback: nothing was ever released; there is nothing to go back to")
    if to is None:
        earlier = previous_production(entries)
        if earlier is None:
            raise ConfigError(f"rollback: {current[:12]} has no earlier production that is still trusted; name one with --to")
        return earlier
    served = {entry.production for entry in entries if entry.production}
    matching = sorted(bundle for bundle in served if bundle.startswith(to))
    known = ", ".join(sorted(bundle[:12] for bundle in served - {current})) or "none"
    if len(matching) != 1:
        raise ConfigError(f"rollback: {to} names {len(matching)} bundles that were production; expected one of {known}")
    if matching[0] == current:
        raise ConfigError(f"rollback: {current[:12]} is production already; expected one of {known}")
    return matching[0]


def _projected(ledger: Ledger, registry: Registry | None, entry: LedgerEntry) -> Release:
    repaired, faults = project(ledger, projections_of(ledger, registry))
    unprojected = f"{'; '.join(faults)}; `tidewheel reconcile` repairs it" if faults else ""
    return Release(entry, tuple(repaired), unprojected)
