"""Who is served by which bundle, as it follows from the ledger."""

from __future__ import annotations

from collections.abc import Sequence

from tidewheel.contracts.assignment import Assignment, Share
from tidewheel.contracts.base import digest_of
from tidewheel.contracts.experiment import Experiment, HoldoutConfig
from tidewheel.contracts.ledger import Decision, LedgerEntry, experiment_after, production_after, untrusted
from tidewheel.contracts.window import Window


def assignment_after(entries: Sequence[LedgerEntry]) -> Assignment | None:
    """Production serves all users but those whom a running experiment holds out; None before the first release."""
    production = production_after(entries)
    if production is None:
        return None
    last = entries[-1]
    if (experiment := experiment_after(entries)) is not None:
        return experiment.assignment(last.recipe, last.number)
    return Assignment(recipe=last.recipe, number=last.number, salt=0, shares=(Share(bundle=production, share=1.0),))


def next_experiment(
    entries: Sequence[LedgerEntry], decision: Decision, recipe: str, bundle: str, window: Window, rules: HoldoutConfig | None
) -> Experiment | None:
    """The experiment that the next entry begins: none without rules, and none against what is not trusted or is the same."""
    previous = production_after(entries)
    if rules is None or decision is not Decision.PROMOTED or previous in (None, bundle) or previous in untrusted(entries):
        return None
    number = len(entries) + 1
    salt = int(digest_of([recipe, number])[:16], 16)
    return Experiment(number=number, new=bundle, previous=previous, salt=salt, begins=window.end, rules=rules)
