"""The ledger's pure functions, on histories of any shape."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from tidewheel.contracts.ledger import (
    Decision,
    LedgerEntry,
    earlier_productions,
    previous_production,
    production_after,
    production_at,
    untrusted,
)
from tidewheel.contracts.verdict import Phase, Verdict
from tidewheel.contracts.window import Window

START = datetime(2026, 1, 5, tzinfo=UTC)
Move = tuple[str, str]  # a decision, and the bundle it is about


def history(moves: list[tuple[str, str, str | None]]) -> tuple[LedgerEntry, ...]:
    """Entries of (decision, bundle, teacher), one an hour; generations follow from the teachers."""
    entries: list[LedgerEntry] = []
    generations: dict[str, int] = {}
    for number, (word, bundle, teacher) in enumerate(moves, start=1):
        decision = Decision(word)
        before = production_after(entries)
        kept = decision in (Decision.REJECTED, Decision.ROLLED_BACK, Decision.QUARANTINED)
        generations[bundle] = generations.get(teacher, 0) + 1 if teacher else 0
        entries.append(
            LedgerEntry(
                number=number,
                time=START + timedelta(hours=number),
                decision=decision,
                recipe="quickstart",
                run_id=f"run-{number}",
                window=Window(start=START + timedelta(days=7 * number - 7), end=START + timedelta(days=7 * number)),
                bundle=bundle,
                production=before if kept else bundle,
                previous=before,
                teacher=teacher,
                generation=generations[bundle],
                feature_digest="f",
                verdict=Verdict(phase=Phase.SUCCESSFUL),
                reason="",
            )
        )
    return tuple(entries)


def test_before_the_first_release_there_is_nothing() -> None:
    assert production_after(()) is None
    assert previous_production(()) is None
    assert untrusted(()) == {}


def test_production_is_known_for_any_moment() -> None:
    entries = history([("bootstrap", "a", None), ("rolled_back", "b", "a"), ("promoted", "c", "a")])
    moments = [production_at(entries, START + timedelta(hours=h, minutes=30)) for h in range(4)]
    assert moments == [None, "a", "a", "c"]


def test_what_learned_from_a_bundle_that_was_taken_back_is_taken_back_too() -> None:
    entries = history(
        [
            ("bootstrap", "a", None),
            ("promoted", "b", "a"),
            ("promoted", "c", "b"),
            ("promoted", "d", "c"),
            ("reverted", "a", None),
        ]
    )
    assert set(untrusted(entries)) == {"b", "c", "d"}
    assert production_after(entries) == "a"


def test_a_quarantined_bundle_serves_on_and_spoils_what_learned_from_it() -> None:
    entries = history(
        [
            ("bootstrap", "a", None),
            ("promoted", "b", "a"),
            ("promoted", "c", "b"),
            ("promoted", "d", None),
            ("quarantined", "b", "a"),
        ]
    )
    assert production_after(entries) == "d"
    assert untrusted(entries) == {
        "b": "quarantined (entry 5: )",
        "c": "learned from b, which was quarantined (entry 5: )",
    }


def test_going_back_over_several_releases_trusts_none_of_them() -> None:
    entries = history([("bootstrap", "a", None), ("promoted", "b", None), ("promoted", "c", None), ("reverted", "a", None)])
    assert set(untrusted(entries)) == {"b", "c"}


def test_previous_production_is_the_last_other_one_that_is_still_trusted() -> None:
    entries = history([("bootstrap", "a", None), ("promoted", "b", None), ("promoted", "c", None)])
    assert previous_production(entries) == "b"
    entries = history([("bootstrap", "a", None), ("promoted", "b", None), ("promoted", "c", None), ("reverted", "b", None)])
    assert previous_production(entries) == "a"


def test_earlier_productions_are_the_trusted_ones_each_once_and_the_last_to_serve_first() -> None:
    served = [("bootstrap", "a", None), ("promoted", "b", None), ("rejected", "x", None), ("promoted", "c", None)]
    assert earlier_productions(()) == ()
    assert earlier_productions(history(served)) == ("b", "a")
    assert earlier_productions(history([*served, ("reverted", "a", None)])) == ()
    assert earlier_productions(history([*served, ("quarantined", "b", None), ("promoted", "d", None)])) == ("c", "a")


moves = st.lists(
    st.tuples(
        st.sampled_from(["promoted", "rejected", "rolled_back", "quarantined"]),
        st.sampled_from("abcdefgh"),
        st.none() | st.sampled_from("abcdefgh"),
    ),
    max_size=12,
)


@given(moves)
def test_a_bundle_once_taken_back_stays_so(made: list[tuple[str, str, str | None]]) -> None:
    entries = history(made)
    for count in range(len(entries)):
        assert set(untrusted(entries[:count])) <= set(untrusted(entries[: count + 1]))


@given(moves)
def test_only_a_release_changes_production(made: list[tuple[str, str, str | None]]) -> None:
    entries = history(made)
    for before, after in pairwise(entries):
        if after.decision in (Decision.REJECTED, Decision.ROLLED_BACK, Decision.QUARANTINED):
            assert after.production == before.production
