"""The ledger: append-only, numbered record of every release decision. Everything else is a projection of it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from enum import StrEnum
from typing import Literal

from pydantic import AwareDatetime, Field

from tidewheel.contracts.base import Contract
from tidewheel.contracts.experiment import Experiment
from tidewheel.contracts.target import Target
from tidewheel.contracts.verdict import Verdict
from tidewheel.contracts.window import Window


class Decision(StrEnum):
    BOOTSTRAP = "bootstrap"  # the first production: nothing to compare with
    PROMOTED = "promoted"  # the canary was Successful
    REJECTED = "rejected"  # evaluate was not Successful: no traffic was given
    ROLLED_BACK = "rolled_back"  # the canary was not Successful: production stayed
    REVERTED = "reverted"  # by hand, or for harm that came late: an earlier production was made production again
    QUARANTINED = "quarantined"  # by hand: the bundle never teaches again, nor does what learned from it; what serves stays
    RESUMED = "resumed"  # by hand: what a reversion held up goes on; what serves stays
    CONCLUDED = "concluded"  # the holdout experiment came to its end without harm: production serves everybody


# A run decides about its candidate; all other decisions are about what it left.
OF_RUNS = (Decision.BOOTSTRAP, Decision.PROMOTED, Decision.REJECTED, Decision.ROLLED_BACK)


class AfterRollback(StrEnum):
    """What becomes of retraining once production was taken back (`reverted`)."""

    REANCHOR = "reanchor"  # models learn from labels alone until one is released
    PAUSE = "pause"  # no run begins before somebody resumes
    CONTINUE = "continue"  # as if nothing had happened


class LedgerEntry(Contract):
    """One decision. `production` is what serves after it; null only before the first release."""

    schema_: Literal["tidewheel/ledger/v1"] = Field(default="tidewheel/ledger/v1", alias="schema")
    number: int = Field(ge=1)
    time: AwareDatetime
    decision: Decision
    recipe: str
    run_id: str
    window: Window | None
    bundle: str  # the bundle that was decided about
    production: str | None
    previous: str | None  # what served before
    teacher: str | None
    generation: int = Field(ge=0)
    feature_digest: str
    verdict: Verdict
    reason: str
    retraining: AfterRollback | None = None  # the recipe's deploy.after_rollback as this decision knew it; null: not said
    experiment: Experiment | None = None  # that begins with this entry; see `experiment_after`
    target: Target | None = None  # where production is served, as the recipe of this decision knew it; null: not said


def production_after(entries: Sequence[LedgerEntry]) -> str | None:
    """Digest of the bundle that serves, or None before the first release."""
    return entries[-1].production if entries else None


def production_at(entries: Sequence[LedgerEntry], time: datetime) -> str | None:
    """Digest of the bundle that served at `time`, or None before the first release."""
    return production_after([entry for entry in entries if entry.time <= time])


def target_after(entries: Sequence[LedgerEntry]) -> Target | None:
    """Where production is served, as far as a decision said it."""
    return next((entry.target for entry in reversed(entries) if entry.target is not None), None)


def previous_production(entries: Sequence[LedgerEntry]) -> str | None:
    """Digest of the newest bundle that served before the one that serves now and is still trusted, or None."""
    return next(iter(earlier_productions(entries)), None)


def earlier_productions(entries: Sequence[LedgerEntry]) -> tuple[str, ...]:
    """Digests of all bundles that served before the one that serves now and are still trusted, the last to serve first."""
    bad, serving = untrusted(entries), production_after(entries)
    served = (entry.production for entry in reversed(entries))
    return tuple(dict.fromkeys(digest for digest in served if digest not in (None, serving) and digest not in bad))


def experiment_after(entries: Sequence[LedgerEntry]) -> Experiment | None:
    """The holdout experiment that runs, or None.

    A release begins one or ends the one before it, a return to an earlier bundle ends it, so does its conclusion. It ends as
    well once the bundle of its held-out users is not trusted any more.
    """
    unchanged = (Decision.REJECTED, Decision.ROLLED_BACK, Decision.QUARANTINED, Decision.RESUMED)
    last = next((entry for entry in reversed(entries) if entry.decision not in unchanged), None)
    if last is None or last.decision is not Decision.PROMOTED or last.experiment is None:
        return None
    return None if last.experiment.previous in untrusted(entries) else last.experiment


def untrusted(entries: Sequence[LedgerEntry]) -> dict[str, str]:
    """Bundles that were rolled back, reverted from or quarantined, and all that learned from them: digest -> why.

    Going back to an earlier bundle skips every release since it last served; none of those is trusted any more.
    Only grows: a bundle that was not trusted once stays so, also if the same bytes are released again.
    """
    bad: dict[str, str] = {}
    for at, entry in enumerate(entries):
        if entry.decision is Decision.ROLLED_BACK:
            bad.setdefault(entry.bundle, f"rolled back by its canary (entry {entry.number})")
        elif entry.decision is Decision.QUARANTINED:
            bad.setdefault(entry.bundle, f"quarantined (entry {entry.number}: {entry.reason})")
        elif entry.decision is Decision.REVERTED:
            for bundle in sorted(_served_since(entries[:at], entry.bundle)):
                bad.setdefault(bundle, f"reverted from (entry {entry.number}: {entry.reason})")
    teachings = {(entry.bundle, entry.teacher) for entry in entries if entry.teacher is not None}
    while learned := {bundle: teacher for bundle, teacher in sorted(teachings) if teacher in bad and bundle not in bad}:
        bad |= {bundle: f"learned from {teacher[:12]}, which was {bad[teacher]}" for bundle, teacher in learned.items()}
    return bad


def _served_since(entries: Sequence[LedgerEntry], bundle: str) -> set[str]:
    """Productions after `bundle` last served."""
    since: set[str] = set()
    for entry in reversed(entries):
        if entry.production == bundle:
            break
        if entry.production is not None:
            since.add(entry.production)
    return since
