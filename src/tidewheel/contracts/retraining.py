"""What becomes of retraining after production was taken back: a pure function of the ledger."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum

from pydantic import Field

from tidewheel.contracts.base import Contract
from tidewheel.contracts.ledger import AfterRollback, Decision, LedgerEntry


class RetrainingPhase(StrEnum):
    OPEN = "open"  # runs begin, teachers teach
    REANCHORED = "reanchored"  # runs begin; they learn from labels alone until one is released
    PAUSED = "paused"  # no run begins until somebody resumes


ENDS = {  # what leads back to open
    RetrainingPhase.OPEN: (),
    RetrainingPhase.REANCHORED: (Decision.BOOTSTRAP, Decision.PROMOTED, Decision.RESUMED),
    RetrainingPhase.PAUSED: (Decision.RESUMED,),
}


class Retraining(Contract):
    """`entry` is the number of the reversion that caused it and `reason` the words of it; null and empty where it is open."""

    phase: RetrainingPhase = RetrainingPhase.OPEN
    entry: int | None = Field(default=None, ge=1)
    reason: str = ""

    @property
    def is_paused(self) -> bool:
        return self.phase is RetrainingPhase.PAUSED

    @property
    def is_reanchored(self) -> bool:
        return self.phase is RetrainingPhase.REANCHORED

    def explain(self) -> str:
        """One line for people."""
        if self.entry is None:
            return "runs begin and teachers teach"
        return f"entry {self.entry} took production back ({self.reason})"


def retraining_after(entries: Sequence[LedgerEntry]) -> Retraining:
    """How the next run of this recipe is to learn, if it may begin at all.

    A reversion pauses or re-anchors as its own `retraining` says; an entry from before that was written changes nothing. A
    release ends a re-anchoring, only a resumption ends a pause.
    """
    found = Retraining()
    for entry in entries:
        if entry.decision is Decision.REVERTED:
            if entry.retraining is AfterRollback.PAUSE:
                found = Retraining(phase=RetrainingPhase.PAUSED, entry=entry.number, reason=entry.reason)
            elif entry.retraining is AfterRollback.REANCHOR and not found.is_paused:
                found = Retraining(phase=RetrainingPhase.REANCHORED, entry=entry.number, reason=entry.reason)
        elif entry.decision in ENDS[found.phase]:
            found = Retraining()
    return found


def policy_after(entries: Sequence[LedgerEntry]) -> AfterRollback:
    """What the recipe said last; `reanchor` where no decision has known it."""
    said = (entry.retraining for entry in reversed(entries) if entry.decision is not Decision.REVERTED)
    return next((policy for policy in said if policy is not None), AfterRollback.REANCHOR)
