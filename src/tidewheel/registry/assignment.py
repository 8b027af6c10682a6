"""Who is served by which bundle, as it follows from the ledger."""

from __future__ import annotations

from collections.abc import Sequence

from tidewheel.contracts.assignment import Assignment, Share
from tidewheel.contracts.ledger import LedgerEntry, production_after


def assignment_after(entries: Sequence[LedgerEntry]) -> Assignment | None:
    """Production serves all users; None before the first release."""
    production = production_after(entries)
    if production is None:
        return None
    last = entries[-1]
    return Assignment(recipe=last.recipe, number=last.number, salt=0, shares=(Share(bundle=production, share=1.0),))
