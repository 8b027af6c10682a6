"""The ledger in the store: one a recipe, one record an entry, numbered, created exactly once. The rest follows from it."""

from __future__ import annotations

from datetime import datetime

from tidewheel.contracts.ledger import LedgerEntry, production_after, production_at
from tidewheel.errors import ContractError, RetryableError
from tidewheel.store import Store
from tidewheel.store.records import name_of, read_all

PREFIX = "ledger"


class Ledger:
    """Reads every time it is asked: what another process appended counts at once."""

    def __init__(self, store: Store, recipe: str) -> None:
        """
        Args:
            recipe: name of the recipe whose releases these are; recipes that share a store share nothing else.
        """
        self.store = store
        self.recipe = recipe
        self._folder = f"{PREFIX}/{recipe}"

    def entries(self) -> tuple[LedgerEntry, ...]:
        """All decisions from the first on.

        Raises:
            ContractError: a number is missing, or a record is damaged or not the entry that its name says. Nothing is
                decided on half a ledger.
        """
        return read_all(self.store, self._folder, LedgerEntry, "ledger")

    def last_number(self) -> int:
        """Number of the last entry, 0 for none; reads no entry."""
        return len(self.store.names(self._folder))

    def append(self, entry: LedgerEntry) -> LedgerEntry:
        """Write the next entry, whole or not at all.

        Raises:
            ContractError: the ledger is damaged, or `entry` does not follow the last one.
            RetryableError: another process took this number: read again and decide again.
        """
        entries = self.entries()
        if entry.number <= len(entries):
            raise RetryableError(
                f"ledger: entry {entry.number} exists already ({entries[entry.number - 1].run_id}); decide again"
            )
        if entry.number != len(entries) + 1:
            raise ContractError(f"ledger: entry {entry.number} does not follow {len(entries)}")
        if entry.previous != (serving := production_after(entries)):
            raise ContractError(f"ledger: entry {entry.number} says that {entry.previous} served before it, found {serving}")
        if not self.store.create(name_of(self._folder, entry.number), entry.to_json() + "\n"):
            raise RetryableError(f"ledger: entry {entry.number} was taken at this moment; decide again")
        return entry

    def production(self) -> str | None:
        """Digest of the bundle that serves, or None before the first release."""
        return production_after(self.entries())

    def at(self, time: datetime) -> str | None:
        """Digest of the bundle that served at `time`."""
        return production_at(self.entries(), time)


def recipes(store: Store) -> list[str]:
    """Names of the recipes that have a ledger in the store."""
    return store.folders(PREFIX)
