"""The ledger: append-only, numbered record of every release decision. Everything else is a projection of it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from enum import StrEnum
from typing import Literal

from pydantic import AwareDatetime, Field

from tidewheel.contracts.base import Contract
from tidewheel.contracts.verdict import Verdict
from tidewheel.contracts.window import Window


class Decision(StrEnum):
    BOOTSTRAP = "bootstrap"  # the first production: nothing to compare with
    PROMOTED = "promoted"  # the canary was Successful
    REJECTED = "rejected"  # evaluate was not Successful: no traffic was given
    ROLLED_BACK = "rolled_back"  # the canary was not Successful: production stayed
    REVERTED = "reverted"  # by hand: an earlier production was made production again


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


def production_after(entries: Sequence[LedgerEntry]) -> str | None:
    """Digest of the bundle that serves, or None before the first release."""
    return entries[-1].production if entries else None


def production_at(entries: Sequence[LedgerEntry], time: datetime) -> str | None:
    """Digest of the bundle that served at `time`, or None before the first release."""
    return production_after([entry for entry in entries if entry.time <= time])


def previous_production(entries: Sequence[LedgerEntry]) -> str | None:
    """Digest of the newest bundle that served before the one that serves now and was not taken back, or None."""
    bad, serving = taken_back(entries), production_after(entries)
    for entry in reversed(entries):
        if entry.production not in (None, serving) and entry.production not in bad:
            return entry.production
    return None


def taken_back(entries: Sequence[LedgerEntry]) -> set[str]:
    """Bundles that were rolled back or reverted from: they never teach, nor does what learned from them.

    Going back to an earlier bundle skips every release since it last served; none of those is trusted any more.
    Only grows: a bundle that was taken back once stays so, also if the same bytes are released again.
    """
    bad = {entry.bundle for entry in entries if entry.decision is Decision.ROLLED_BACK}
    for at, entry in enumerate(entries):
        if entry.decision is Decision.REVERTED:
            bad |= _served_since(entries[:at], entry.bundle)
    teachings = {(entry.bundle, entry.teacher) for entry in entries}
    while learned := {bundle for bundle, teacher in teachings if teacher in bad and bundle not in bad}:
        bad |= learned
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


def eligible_teacher(
    entries: Sequence[LedgerEntry], wanted_feature_digest: str | None, max_generations: int
) -> LedgerEntry | None:
    """The newest released bundle that may teach, or None.

    Eligible: released (bootstrap or promoted), not taken back, no ancestor taken back, fewer than `max_generations`
    generations from a model trained without a teacher, and, where `wanted_feature_digest` is given, the same features.
    When the newest released bundle has reached `max_generations` there is no teacher at all: the next one re-anchors.
    """
    bad = taken_back(entries)
    released = (Decision.BOOTSTRAP, Decision.PROMOTED)
    for entry in reversed(entries):
        if entry.decision not in released or entry.bundle in bad:
            continue
        if wanted_feature_digest is not None and entry.feature_digest != wanted_feature_digest:
            continue
        return entry if entry.generation + 1 <= max_generations else None
    return None
