"""What follows from the ledger: traffic first, then the state, then the registry; and the repair that makes it so."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from tidewheel.contracts.ledger import LedgerEntry
from tidewheel.errors import RetryableError
from tidewheel.registry.ledger import Ledger
from tidewheel.registry.state import StateProjection
from tidewheel.registry.traffic import AssignmentProjection
from tidewheel.registry.versions import Registry, RegistryProjection


class Projection(Protocol):
    """Something outside the ledger that must say what the ledger says. It may do IO."""

    @property
    def name(self) -> str: ...

    def repair(self, entries: Sequence[LedgerEntry]) -> list[str]:
        """Make it so; returns one sentence for each thing changed, none if all was right.

        Idempotent, and safe after a crash at any point of an earlier call.
        """


def projections_of(ledger: Ledger, registry: Registry | None) -> tuple[Projection, ...]:
    """All of a ledger, in the order of how soon users feel them; None: the registry is left for later."""
    own: tuple[Projection, ...] = (AssignmentProjection(ledger.store), StateProjection(ledger.store))
    return own if registry is None else (*own, RegistryProjection(registry))


def project(ledger: Ledger, projections: Sequence[Projection]) -> tuple[list[str], list[str]]:
    """Repair all of them; returns what was changed, and why any could not be: one that fails holds up no other.

    An entry that is appended meanwhile is projected too, so that of two writers none leaves the older state behind.
    """
    repaired: list[str] = []
    while True:
        entries, faults = ledger.entries(), []
        for projection in projections:
            try:
                repaired += projection.repair(entries)
            except Exception as error:  # somebody else's system, and the decision has been made
                faults.append(f"{projection.name}: {type(error).__name__}: {error}")
        if ledger.last_number() == len(entries):
            return repaired, faults


def reconcile(ledger: Ledger, registry: Registry | None) -> list[str]:
    """Make everything say what the ledger does; returns one sentence for each thing repaired, none if all was right.

    Raises:
        RetryableError: something could not be repaired; everything else was.
    """
    repaired, faults = project(ledger, projections_of(ledger, registry))
    if faults:
        done = f"; repaired: {'; '.join(repaired)}" if repaired else ""
        raise RetryableError(f"reconcile: {'; '.join(faults)}{done}")
    return repaired
