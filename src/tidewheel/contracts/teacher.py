"""Which earlier bundle teaches the next one: the newest that every guard lets through, and why the newer ones may not."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta

from pydantic import Field

from tidewheel.contracts.base import Contract
from tidewheel.contracts.ledger import Decision, LedgerEntry, untrusted
from tidewheel.contracts.retraining import retraining_after
from tidewheel.contracts.window import iso

RELEASED = (Decision.BOOTSTRAP, Decision.PROMOTED)
CANARIED = (*RELEASED, Decision.ROLLED_BACK)


class TeacherRules(Contract):
    """Guards against learning from oneself for ever, and from what is no longer true.

    A model learns from a teacher that learned from a teacher, and so do its mistakes; after `max_generations` the next model
    is trained from labels alone. `max_age_days` is from the end of the teacher's window to the end of the new one. A teacher
    whose AUC of a label on the new window's randomized rows is surely below `min_randomized_auc` does not teach; 0: not asked.
    """

    enabled: bool = True  # false: the kill switch, no model has a teacher
    max_generations: int = Field(default=8, ge=1)
    max_age_days: int = Field(default=90, ge=1)
    min_randomized_auc: float = Field(default=0.5, ge=0, lt=1)


class TeacherChoice(Contract):
    """`bundle` and its `generation` are null where no bundle teaches; `reason` says why either way.

    `passed_over`: digest -> why not, of the released and canaried bundles that are newer than the one chosen, newest first.
    """

    bundle: str | None = None
    generation: int | None = None
    reason: str
    passed_over: dict[str, str] = {}


def choose_teacher(
    entries: Sequence[LedgerEntry],
    rules: TeacherRules,
    window_end: datetime,
    misfit: Callable[[LedgerEntry], str | None] = lambda entry: None,
) -> TeacherChoice:
    """The newest eligible bundle of a ledger.

    Eligible: released after a Successful verdict, neither itself nor an ancestor taken back or quarantined, trained on a
    window that ended at most `rules.max_age_days` before `window_end`, and no misfit. Where that bundle is
    `rules.max_generations` away from labels alone nobody teaches: an older one would be as far away, or staler. Nobody does
    either while a reversion asks for labels alone (`retraining_after`).

    Args:
        misfit: why a bundle cannot teach this model, or None; may do IO; asked of bundles that pass everything else.
    """
    if not rules.enabled:
        return TeacherChoice(reason="switched off by train.teaching.enabled")
    if (retraining := retraining_after(entries)).is_reanchored:
        return TeacherChoice(reason=f"re-anchored on labels until the next release: {retraining.explain()}")
    bad = untrusted(entries)
    passed_over: dict[str, str] = {}
    for entry in reversed(entries):
        if entry.decision not in CANARIED or entry.bundle in passed_over:
            continue
        fault = bad.get(entry.bundle) or _fault(entry, rules, window_end) or misfit(entry)
        if fault is not None:
            passed_over[entry.bundle] = fault
            continue
        if entry.generation + 1 > rules.max_generations:
            far = f"{entry.bundle[:12]} is {entry.generation} generations from labels alone, limit {rules.max_generations}"
            return TeacherChoice(reason=f"{far} with the new one: re-anchored on labels", passed_over=passed_over)
        told = f"the newest release that may teach, generation {entry.generation} (ledger entry {entry.number})"
        return TeacherChoice(bundle=entry.bundle, generation=entry.generation, reason=told, passed_over=passed_over)
    return TeacherChoice(
        reason="none of the releases may teach" if passed_over else "nothing was released yet", passed_over=passed_over
    )


def standings(entries: Sequence[LedgerEntry]) -> dict[str, str | None]:
    """Canaried bundle -> why it teaches nobody, whatever the rules; None: nothing is against it. Newest first."""
    bad = untrusted(entries)
    newest: dict[str, LedgerEntry] = {}
    for entry in reversed(entries):
        if entry.decision in CANARIED:
            newest.setdefault(entry.bundle, entry)
    return {bundle: bad.get(bundle) or _flaw(entry) for bundle, entry in newest.items()}


def _flaw(entry: LedgerEntry) -> str | None:
    if not entry.verdict.is_successful:
        return f"its verdict was {entry.verdict.phase.value} (entry {entry.number})"
    if entry.window is None:
        return f"its window is not known (entry {entry.number})"
    return None


def _fault(entry: LedgerEntry, rules: TeacherRules, window_end: datetime) -> str | None:
    if (flaw := _flaw(entry)) is not None or entry.window is None:
        return flaw
    age = window_end - entry.window.end
    if age > timedelta(days=rules.max_age_days):
        return f"its window ended {iso(entry.window.end)}, {age.days} days before this one, limit {rules.max_age_days}"
    return None
