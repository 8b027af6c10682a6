"""The holdout experiment as it follows from the ledger: begun by a release, ended by whatever changes production."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from tests.unit.contracts.test_ledger import history
from tidewheel.contracts.experiment import Experiment, HoldoutConfig
from tidewheel.contracts.ledger import LedgerEntry, experiment_after
from tidewheel.contracts.recipe import Recipe
from tidewheel.contracts.window import parse_time

BEGINS = parse_time("2026-01-19")


def experiment(number: int, new: str, previous: str, **rules: float) -> Experiment:
    return Experiment(
        number=number, new=new, previous=previous, salt=number, begins=BEGINS, rules=HoldoutConfig.model_validate(rules)
    )


def ledger(*moves: tuple[str, str, str | None]) -> tuple[LedgerEntry, ...]:
    """A history whose promotions all begin an experiment, as a recipe with a holdout makes them."""
    entries = []
    for entry in history(list(moves)):
        begun = entry.decision == "promoted" and entry.previous
        told = experiment(entry.number, entry.bundle, entry.previous) if begun and entry.previous else None
        kept = entry.decision == "concluded"  # production stays
        changes = {"production": entry.previous} if kept else {}
        entries.append(entry.model_copy(update={"experiment": told, **changes}))
    return tuple(entries)


def running(*moves: tuple[str, str, str | None]) -> tuple[str, str] | None:
    found = experiment_after(ledger(*moves))
    return None if found is None else (found.new, found.previous)


FIRST, SECOND, THIRD = ("bootstrap", "a", None), ("promoted", "b", "a"), ("promoted", "c", "b")


def test_a_first_release_has_nobody_to_hold_out() -> None:
    assert experiment_after(()) is None
    assert running(FIRST) is None


def test_a_release_begins_an_experiment_of_the_new_and_the_previous_production() -> None:
    assert running(FIRST, SECOND) == ("b", "a")


def test_the_next_release_begins_the_next_version() -> None:
    assert running(FIRST, SECOND, THIRD) == ("c", "b")


@pytest.mark.parametrize("decision", ["rejected", "rolled_back", "quarantined"])
def test_candidates_that_never_served_change_nothing(decision: str) -> None:
    assert running(FIRST, SECOND, (decision, "x", None)) == ("b", "a")


def test_going_back_and_the_end_of_the_horizon_end_it() -> None:
    assert running(FIRST, SECOND, ("reverted", "a", None)) is None
    assert running(FIRST, SECOND, ("concluded", "b", "a")) is None


def test_it_ends_when_the_bundle_of_the_held_out_users_is_not_trusted_any_more() -> None:
    assert running(FIRST, ("promoted", "b", None), ("quarantined", "a", None)) is None


def test_the_held_out_users_are_the_first_places_and_the_rest_is_served_by_the_new_bundle() -> None:
    record = experiment(3, "b", "a", share=0.25).assignment("quickstart", 5)
    users = range(4000)
    held_out = [user for user in users if record.bundle_of(user) == "a"]
    assert (record.number, record.salt) == (5, 3)
    assert len(held_out) == pytest.approx(1000, abs=4 * (0.25 * 0.75 * 4000) ** 0.5)
    assert {record.bundle_of(user) for user in set(users) - set(held_out)} == {"b"}


def test_another_version_holds_out_other_users() -> None:
    first, second = (experiment(number, "b", "a", share=0.1).assignment("quickstart", number) for number in (2, 3))
    both = sum(first.bundle_of(user) == second.bundle_of(user) == "a" for user in range(10_000))
    assert both == pytest.approx(100, abs=40)


def test_a_period_longer_than_the_horizon_is_refused() -> None:
    with pytest.raises(ValidationError, match="period_days is 7 of 5 days"):
        HoldoutConfig(horizon_days=5)


def test_the_last_period_may_be_shorter() -> None:
    assert HoldoutConfig(horizon_days=15, period_days=7).num_periods == 3


def test_a_log_that_does_not_say_which_bundle_served_has_no_experiment(quickstart: Recipe) -> None:
    document = quickstart.model_dump(mode="json", by_alias=True)
    document["deploy"]["holdout"] = {"share": 0.1}
    assert Recipe.model_validate(document).deploy.holdout == HoldoutConfig(share=0.1)
    document["source"] = {"kind": "kuairand"}
    with pytest.raises(ValidationError, match=r"deploy\.holdout needs a log that says which bundle served"):
        Recipe.model_validate(document)


def test_its_goal_is_a_label_of_the_recipe(quickstart: Recipe) -> None:
    document = quickstart.model_dump(mode="json", by_alias=True)
    document["deploy"]["holdout"] = {"goal_label": "purchase"}
    with pytest.raises(ValidationError, match=r"deploy\.holdout\.goal_label names purchase"):
        Recipe.model_validate(document)
