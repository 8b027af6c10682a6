"""The record that servers follow, one a decision."""

from __future__ import annotations

from collections.abc import Sequence

from tidewheel.contracts.assignment import ASSIGNMENTS, name_of
from tidewheel.contracts.ledger import LedgerEntry
from tidewheel.errors import ContractError
from tidewheel.registry.assignment import assignment_after
from tidewheel.store import Store


class AssignmentProjection:
    """Implements `projections.Projection`: one record in the store for the last entry; what servers read next."""

    name = "assignment"

    def __init__(self, store: Store) -> None:
        self._store = store

    def repair(self, entries: Sequence[LedgerEntry]) -> list[str]:
        """Write the record of the last entry, or make it right.

        Raises:
            ContractError: there is one of a later number, which servers would follow instead.
        """
        wanted = assignment_after(entries)
        if wanted is None:
            return []
        name, text = name_of(wanted.recipe, wanted.number), wanted.to_json() + "\n"
        newest = self._store.names(f"{ASSIGNMENTS}/{wanted.recipe}")[-1:]
        if newest and newest[0] > name:
            raise ContractError(f"{newest[0]}: the ledger ends with entry {wanted.number}; remove the record")
        told = ", ".join(f"{share.bundle[:12]} serves {share.share:.0%}" for share in wanted.shares)
        if self._store.create(name, text):
            return [f"assignment {wanted.number}: {told}"]
        if self._store.get(name) == text:
            return []
        self._store.put(name, text)
        return [f"assignment {wanted.number}: written over; {told}"]
