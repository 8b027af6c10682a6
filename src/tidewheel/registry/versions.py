"""What the model registry should say, computed from the ledger, and the repair that makes it so."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from tidewheel.contracts.ledger import OF_RUNS, Decision, LedgerEntry, previous_production, production_after
from tidewheel.contracts.teacher import standings

PRODUCTION, PREVIOUS, CANDIDATE = "production", "previous", "candidate"
ALIASES = (PRODUCTION, PREVIOUS, CANDIDATE)
TEACHES_TAG = "tidewheel.teaches"
MAX_TAG = 500  # characters; registries refuse long ones, and a reason may quote a chain of teachers
ABOUT_A_BUNDLE = (*OF_RUNS, Decision.QUARANTINED)  # the others decide about what serves or runs


class Registry(Protocol):
    """A model registry as far as releases need it. Each verb is idempotent and may do IO."""

    def register(self, bundle: str, tags: Mapping[str, str]) -> str:
        """Make a version of the bundle with this digest, or find it; returns the version. Tags are written over."""

    def versions(self) -> dict[str, dict[str, str]]:
        """Digest -> tags, of every version."""

    def aliases(self) -> dict[str, str]:
        """Alias -> digest, of the aliases that are set."""

    def point(self, alias: str, bundle: str | None) -> None:
        """Let an alias name the bundle's version, which is registered; None: remove the alias."""


def wanted_aliases(entries: Sequence[LedgerEntry]) -> dict[str, str]:
    """Alias -> digest after these entries. Every decision ends its candidate, so none is left."""
    wanted = {PRODUCTION: production_after(entries), PREVIOUS: previous_production(entries)}
    return {alias: bundle for alias, bundle in wanted.items() if bundle is not None}


def wanted_versions(entries: Sequence[LedgerEntry]) -> dict[str, dict[str, str]]:
    """Digest -> tags of every bundle that had traffic or was quarantined: the newest decision on it, and whether it teaches."""
    decided = {entry.bundle: entry for entry in entries if entry.decision in ABOUT_A_BUNDLE}
    standing = standings(entries)
    known = {entry.bundle for entry in entries if entry.decision is Decision.QUARANTINED} | {*standing}
    return {
        bundle: tags_of(entry) | {TEACHES_TAG: _teaches(standing.get(bundle, "it never had traffic"))}
        for bundle, entry in decided.items()
        if bundle in known
    }


def tags_of(entry: LedgerEntry) -> dict[str, str]:
    """What a version says about the newest decision on its bundle."""
    return {
        "tidewheel.run_id": entry.run_id,
        "tidewheel.recipe": entry.recipe,
        "tidewheel.decision": entry.decision.value,
        "tidewheel.verdict": entry.verdict.phase.value,
        "tidewheel.ledger": str(entry.number),
    }


class RegistryProjection:
    """Implements `projections.Projection`: a version a bundle, its tags, and the aliases.

    Safe after a crash at any point: versions come before the aliases that name them.
    """

    name = "registry"

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    def repair(self, entries: Sequence[LedgerEntry]) -> list[str]:
        return [*self._versions(entries), *self._aliases(entries)]

    def _versions(self, entries: Sequence[LedgerEntry]) -> list[str]:
        repaired = []
        known = self._registry.versions()
        for bundle, wanted in wanted_versions(entries).items():
            found = known.get(bundle)
            if found is not None and wanted.items() <= found.items():
                continue
            self._registry.register(bundle, wanted)
            repaired.append(_told(bundle, found, wanted))
        return repaired

    def _aliases(self, entries: Sequence[LedgerEntry]) -> list[str]:
        repaired = []
        wanted, found = wanted_aliases(entries), self._registry.aliases()
        for alias in ALIASES:
            before, after = found.get(alias), wanted.get(alias)
            if before != after:
                self._registry.point(alias, after)
                repaired.append(f"alias {alias}: {_short(before)} → {_short(after)}")
        return repaired


def _teaches(why_not: str | None) -> str:
    return "yes" if why_not is None else f"no: {why_not}"[:MAX_TAG]


def _told(bundle: str, found: Mapping[str, str] | None, wanted: Mapping[str, str]) -> str:
    if found is None:
        return f"version {bundle[:12]}: registered, teaches {wanted[TEACHES_TAG]}"
    if found.get(TEACHES_TAG) != wanted[TEACHES_TAG]:
        return f"version {bundle[:12]}: teaches {wanted[TEACHES_TAG]}"
    return f"version {bundle[:12]}: tags of entry {wanted['tidewheel.ledger']}"


def _short(digest: str | None) -> str:
    return digest[:12] if digest else "none"
