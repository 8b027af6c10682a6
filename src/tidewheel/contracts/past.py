"""What was in production at a time, and what became of it: a pure function of the ledger."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Literal

from pydantic import AwareDatetime, Field

from tidewheel.contracts.base import Contract
from tidewheel.contracts.ledger import Decision, LedgerEntry, production_after, untrusted
from tidewheel.contracts.teacher import RELEASED
from tidewheel.contracts.verdict import Verdict
from tidewheel.contracts.window import Window, iso


class Ancestor(Contract):
    """A bundle that a bundle learned from; `window` is null where the ledger does not know it."""

    bundle: str
    generation: int
    window: Window | None


class Event(Contract):
    """Something that the ledger says of a bundle."""

    number: int = Field(ge=1)
    time: AwareDatetime
    what: str


class ServedThen(Contract):
    """The bundle that served at `at`; null before the first release, then only `note` says something.

    `began` is how it came to serve then, `later` what became of it. `teachers` lead from its teacher to the model that learned
    from labels alone. `verdicts` are those of the run that released it, by step, `datasets` those it was made from; `notes` say
    which records are gone. `untrusted` is why it teaches nobody now, empty where it may.
    """

    schema_: Literal["tidewheel/past/v1"] = Field(default="tidewheel/past/v1", alias="schema")
    recipe: str
    at: AwareDatetime
    bundle: str | None = None
    began: Event | None = None
    run_id: str | None = None
    window: Window | None = None
    generation: int | None = None
    datasets: dict[str, str] = {}
    teachers: tuple[Ancestor, ...] = ()
    verdicts: dict[str, Verdict] = {}
    later: tuple[Event, ...] = ()
    untrusted: str = ""
    notes: tuple[str, ...] = ()


def served_then(entries: Sequence[LedgerEntry], recipe: str, at: datetime) -> ServedThen:
    """What a ledger says of the bundle that served at a time."""
    before = [entry for entry in entries if entry.time <= at]
    bundle = production_after(before)
    if bundle is None:
        return ServedThen(recipe=recipe, at=at, notes=(_nothing_yet(entries, at),))
    began = next(entry for entry in reversed(before) if entry.previous != bundle and entry.production == bundle)
    made = next(entry for entry in reversed(before) if entry.bundle == bundle and entry.decision in RELEASED)
    return ServedThen(
        recipe=recipe,
        at=at,
        bundle=bundle,
        began=_event(began, f"{began.decision.value}: {began.reason}"),
        run_id=made.run_id,
        window=made.window,
        generation=made.generation,
        teachers=_ancestors(entries, made),
        verdicts={"deploy": made.verdict},
        later=tuple(_event(entry, what) for entry in entries[len(before) :] if (what := _told(entry, bundle))),
        untrusted=untrusted(entries).get(bundle, ""),
    )


def _nothing_yet(entries: Sequence[LedgerEntry], at: datetime) -> str:
    first = next((entry for entry in entries if entry.production is not None), None)
    released = f"the first release was entry {first.number} at {iso(first.time)}" if first else "nothing was released yet"
    return f"nothing served at {iso(at)}: {released}"


def _ancestors(entries: Sequence[LedgerEntry], made: LedgerEntry) -> tuple[Ancestor, ...]:
    """From a bundle's teacher to labels alone. A teacher was released before its pupil, so this ends."""
    known = {entry.bundle: entry for entry in reversed(entries) if entry.decision in RELEASED}
    found: list[Ancestor] = []
    teacher = made.teacher
    while teacher is not None and teacher not in {ancestor.bundle for ancestor in found}:
        entry = known.get(teacher)
        generation = made.generation - len(found) - 1
        found.append(Ancestor(bundle=teacher, generation=generation, window=entry.window if entry else None))
        teacher = entry.teacher if entry else None
    return tuple(found)


def _event(entry: LedgerEntry, what: str) -> Event:
    return Event(number=entry.number, time=entry.time, what=what)


def _told(entry: LedgerEntry, bundle: str) -> str:
    """What a later entry did to the bundle, empty if nothing."""
    if entry.previous == bundle and entry.production != bundle and entry.production is not None:
        if entry.decision is Decision.REVERTED:
            return f"reverted to {entry.production[:12]}: {entry.reason}"
        return f"replaced by {entry.production[:12]}"
    if entry.production == bundle and entry.previous != bundle:
        return f"serves again, {entry.decision.value}: {entry.reason}"
    if entry.bundle == bundle and entry.decision is Decision.QUARANTINED:
        return f"quarantined: {entry.reason}"
    return ""
