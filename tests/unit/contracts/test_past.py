"""What a ledger says of a time."""

from __future__ import annotations

from datetime import timedelta

from hypothesis import given
from hypothesis import strategies as st

from tests.unit.contracts.test_ledger import START, history, moves
from tidewheel.contracts.ledger import production_at
from tidewheel.contracts.past import served_then
from tidewheel.contracts.verdict import Phase

MOVES = [
    ("bootstrap", "a", None),
    ("promoted", "b", "a"),
    ("rejected", "x", "b"),
    ("promoted", "c", "b"),
    ("reverted", "b", "a"),
    ("quarantined", "a", None),
]
ENTRIES = history(MOVES)  # one an hour, the first at one o'clock


def at(hours: float):
    return served_then(ENTRIES, "quickstart", START + timedelta(hours=hours))


def test_before_the_first_release_nothing_served_and_it_says_when_that_was() -> None:
    assert at(0.5).bundle is None
    assert at(0.5).notes == ("nothing served at 2026-01-05T00:30:00Z: the first release was entry 1 at 2026-01-05T01:00:00Z",)
    assert served_then((), "quickstart", START).notes == ("nothing served at 2026-01-05: nothing was released yet",)


def test_what_served_is_named_with_how_it_came_and_whom_it_learned_from() -> None:
    found = at(4.5)

    assert (found.bundle, found.run_id, found.generation) == ("c", "run-4", 2)
    assert found.began is not None
    assert (found.began.number, found.began.what) == (4, "promoted: ")
    assert [(teacher.bundle, teacher.generation) for teacher in found.teachers] == [("b", 1), ("a", 0)]
    assert found.verdicts["deploy"].phase is Phase.SUCCESSFUL


def test_what_became_of_it_later_is_told() -> None:
    assert [(event.number, event.what) for event in at(4).later] == [(5, "reverted to b: ")]
    assert at(4).untrusted.startswith("reverted from (entry 5")
    assert [(event.number, event.what) for event in at(1).later] == [(2, "replaced by b"), (6, "quarantined: ")]
    assert [(event.number, event.what) for event in at(2).later] == [(4, "replaced by c"), (5, "serves again, reverted: ")]


def test_a_bundle_that_serves_again_was_released_by_the_run_that_made_it() -> None:
    found = at(9)

    assert found.began is not None
    assert (found.bundle, found.began.number, found.run_id, found.later) == ("b", 5, "run-2", ())
    assert found.untrusted.startswith("learned from a")


@given(moves, st.floats(0, 15))
def test_it_is_the_bundle_of_the_last_entry_until_then(made: list[tuple[str, str, str | None]], hours: float) -> None:
    entries = history([("bootstrap", "a", None), *made])
    time = START + timedelta(hours=hours)

    found = served_then(entries, "quickstart", time)

    assert found.bundle == production_at(entries, time)
    assert (found.began is None) == (found.bundle is None)
    assert found.began is None or found.began.time <= time
    assert all(event.time > time for event in found.later)
