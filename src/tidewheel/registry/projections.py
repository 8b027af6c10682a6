"""What the registry should say, computed from the ledger, and the repair that makes it so."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from tidewheel.contracts.ledger import Decision, LedgerEntry, previous_production, production_after
from tidewheel.registry.ledger import Ledger

PRODUCTION, PREVIOUS, CANDIDATE = "production", "previous", "candidate"
ALIASES = (PRODUCTION, PREVIOUS, CANDIDATE)


class Registry(Protocol):
    """A model registry as far as releases need it. Each verb is idempotent and may do IO."""

    def register(self, bundle: str, tags: dict[str, str]) -> str:
        """Make a version of the bundle with this digest, or find it; returns the version. Tags are written over."""

    def aliases(self) -> dict[str, str]:
        """Alias -> digest, of the aliases that are set."""

    def point(self, alias: str, bundle: str | None) -> None:
        """Let an alias name the bundle's version, which is registered; None: remove the alias."""


def wanted_aliases(entries: Sequence[LedgerEntry]) -> dict[str, str]:
    """Alias -> digest after these entries. Every decision ends its candidate, so none is left."""
    wanted = {PRODUCTION: production_after(entries), PREVIOUS: previous_production(entries)}
    return {alias: bundle for alias, bundle in wanted.items() if bundle is not None}


def tags_of(entry: LedgerEntry) -> dict[str, str]:
    """What a version says about the newest decision on its bundle."""
    return {
        "tidewheel.run_id": entry.run_id,
        "tidewheel.recipe": entry.recipe,
        "tidewheel.decision": entry.decision.value,
        "tidewheel.verdict": entry.verdict.phase.value,
        "tidewheel.ledger": str(entry.number),
    }


def reconcile(ledger: Ledger, registry: Registry) -> list[str]:
    """Make the registry say what the ledger does; returns one sentence for each thing repaired, none if all was right.

    Idempotent, and safe after a crash at any point: versions come before the aliases that name them.
    """
    entries = ledger.entries()
    repaired = []
    wanted, found = wanted_aliases(entries), registry.aliases()
    decided = {entry.bundle: entry for entry in entries if entry.decision is not Decision.REVERTED}
    for alias in ALIASES:
        before, after = found.get(alias), wanted.get(alias)
        if before == after:
            continue
        if after is not None:
            registry.register(after, tags_of(decided[after]))
        registry.point(alias, after)
        repaired.append(f"alias {alias}: {_short(before)} → {_short(after)}")
    return repaired


def _short(digest: str | None) -> str:
    return digest[:12] if digest else "none"
