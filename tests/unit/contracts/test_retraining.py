"""Whether the next run may begin and who teaches it after production was taken back."""

from __future__ import annotations

import pytest

from tests.unit.contracts.test_ledger import history
from tests.unit.contracts.test_teacher import NEXT_END
from tidewheel.contracts.ledger import AfterRollback, LedgerEntry
from tidewheel.contracts.retraining import RetrainingPhase, policy_after, retraining_after
from tidewheel.contracts.teacher import TeacherRules, choose_teacher, standings

REVERTED = [("bootstrap", "a", None), ("promoted", "b", "a"), ("promoted", "c", "b"), ("reverted", "b", "a")]


def by(policy: AfterRollback | None, moves: list[tuple[str, str, str | None]]) -> tuple[LedgerEntry, ...]:
    """A history whose reversions have this policy."""
    return tuple(
        entry.model_copy(update={"retraining": policy}) if entry.decision == "reverted" else entry for entry in history(moves)
    )


def phase(policy: AfterRollback | None, *after: tuple[str, str, str | None]) -> RetrainingPhase:
    return retraining_after(by(policy, [*REVERTED, *after])).phase


def test_before_anything_was_taken_back_the_wheel_turns() -> None:
    assert retraining_after(()).phase is RetrainingPhase.OPEN
    assert retraining_after(history(REVERTED[:3])).phase is RetrainingPhase.OPEN


@pytest.mark.parametrize(
    ("policy", "want"),
    [
        (AfterRollback.REANCHOR, RetrainingPhase.REANCHORED),
        (AfterRollback.PAUSE, RetrainingPhase.PAUSED),
        (AfterRollback.CONTINUE, RetrainingPhase.OPEN),
        (None, RetrainingPhase.OPEN),  # an entry from before anybody asked
    ],
)
def test_a_reversion_does_what_it_says_itself(policy: AfterRollback | None, want: RetrainingPhase) -> None:
    assert phase(policy) is want


def test_a_release_ends_a_reanchoring_and_a_rejection_does_not() -> None:
    assert phase(AfterRollback.REANCHOR, ("rejected", "d", None)) is RetrainingPhase.REANCHORED
    assert phase(AfterRollback.REANCHOR, ("rolled_back", "d", None)) is RetrainingPhase.REANCHORED
    assert phase(AfterRollback.REANCHOR, ("promoted", "d", None)) is RetrainingPhase.OPEN


def test_only_a_resumption_ends_a_pause() -> None:
    assert phase(AfterRollback.PAUSE, ("quarantined", "c", "b"), ("promoted", "d", None)) is RetrainingPhase.PAUSED
    assert phase(AfterRollback.PAUSE, ("resumed", "b", "a")) is RetrainingPhase.OPEN


def test_a_pause_outlives_a_second_reversion_that_would_only_reanchor() -> None:
    *earlier, second = by(AfterRollback.PAUSE, [*REVERTED, ("reverted", "a", None)])
    entries = [*earlier, second.model_copy(update={"retraining": AfterRollback.REANCHOR})]

    assert retraining_after(entries).phase is RetrainingPhase.PAUSED
    assert retraining_after(entries).entry == 4


def test_the_next_model_learns_from_labels_alone_and_says_which_entry_wants_it() -> None:
    choice = choose_teacher(by(AfterRollback.REANCHOR, REVERTED), TeacherRules(), NEXT_END)

    assert choice.bundle is None
    assert choice.reason == "re-anchored on labels until the next release: entry 4 took production back ()"


def test_after_the_next_release_its_bundle_teaches_as_always() -> None:
    entries = by(AfterRollback.REANCHOR, [*REVERTED, ("promoted", "d", None)])

    assert choose_teacher(entries, TeacherRules(), NEXT_END).bundle == "d"


def test_where_it_continues_the_newest_trusted_bundle_teaches() -> None:
    assert choose_teacher(by(AfterRollback.CONTINUE, REVERTED), TeacherRules(), NEXT_END).bundle == "b"


def test_the_policy_is_what_the_recipe_said_last() -> None:
    first, second, third, back = by(AfterRollback.PAUSE, REVERTED)
    said = [first.model_copy(update={"retraining": AfterRollback.CONTINUE}), second]

    assert policy_after(()) is AfterRollback.REANCHOR
    assert policy_after([first, second, third]) is AfterRollback.REANCHOR
    assert policy_after([*said, third, back]) is AfterRollback.CONTINUE  # a reversion may have been told otherwise, once


def test_every_bundle_that_had_traffic_stands_somewhere() -> None:
    entries = history([*REVERTED, ("rejected", "x", None), ("rolled_back", "y", "b")])

    found = standings(entries)

    assert list(found) == ["y", "c", "b", "a"]
    assert [bundle for bundle, why in found.items() if why is None] == ["b", "a"]
