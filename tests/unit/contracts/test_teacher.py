"""Who teaches the next model: one guard a test, and an invariant over histories of any shape."""

from __future__ import annotations

from datetime import timedelta

from hypothesis import given
from hypothesis import strategies as st

from tests.unit.contracts.test_ledger import START, history, moves
from tidewheel.contracts.ledger import Decision, untrusted
from tidewheel.contracts.teacher import TeacherRules, choose_teacher
from tidewheel.contracts.verdict import Phase, Verdict

THREE = [("bootstrap", "a", None), ("promoted", "b", "a"), ("promoted", "c", "b")]
NEXT_END = START + timedelta(days=28)  # of the window after three


def test_before_the_first_release_nobody_teaches() -> None:
    choice = choose_teacher((), TeacherRules(), NEXT_END)
    assert (choice.bundle, choice.generation, choice.reason) == (None, None, "nothing was released yet")


def test_the_newest_release_teaches_and_a_rolled_back_one_never() -> None:
    choice = choose_teacher(history([*THREE[:2], ("rolled_back", "x", "b")]), TeacherRules(), NEXT_END)
    assert (choice.bundle, choice.generation) == ("b", 1)
    assert choice.passed_over == {"x": "rolled back by its canary (entry 3)"}


def test_a_rejected_candidate_is_not_even_named() -> None:
    choice = choose_teacher(history([*THREE[:2], ("rejected", "x", "b")]), TeacherRules(), NEXT_END)
    assert (choice.bundle, choice.passed_over) == ("b", {})


def test_what_learned_from_a_quarantined_bundle_does_not_teach() -> None:
    choice = choose_teacher(history([*THREE, ("quarantined", "b", "a")]), TeacherRules(), NEXT_END)
    assert choice.bundle == "a"
    assert list(choice.passed_over) == ["c", "b"]
    assert choice.passed_over["c"].startswith("learned from b, which was quarantined (entry 4")


def test_after_so_many_generations_the_next_model_is_trained_from_labels_alone() -> None:
    entries = history(THREE)
    assert choose_teacher(entries, TeacherRules(max_generations=3), NEXT_END).bundle == "c"
    anchored = choose_teacher(entries, TeacherRules(max_generations=2), NEXT_END)
    assert anchored.bundle is None
    assert anchored.reason == "c is 2 generations from labels alone, limit 2 with the new one: re-anchored on labels"


def test_a_teacher_whose_window_is_long_over_is_passed_over() -> None:
    entries = history(THREE)  # c's window ended 21 days after the start
    assert choose_teacher(entries, TeacherRules(max_age_days=7), NEXT_END).bundle == "c"
    stale = choose_teacher(entries, TeacherRules(max_age_days=6), NEXT_END)
    assert stale.bundle is None
    assert stale.reason == "none of the releases may teach"
    assert stale.passed_over["c"].endswith("7 days before this one, limit 6")


def test_a_window_or_a_verdict_that_is_not_known_does_not_teach() -> None:
    first, second, third = history(THREE)
    nameless = third.model_copy(update={"window": None})
    unsure = second.model_copy(update={"verdict": Verdict(phase=Phase.INCONCLUSIVE)})
    choice = choose_teacher((first, unsure, nameless), TeacherRules(), NEXT_END)
    assert choice.bundle == "a"
    assert choice.passed_over == {"c": "its window is not known (entry 3)", "b": "its verdict was Inconclusive (entry 2)"}


def test_a_misfit_is_passed_over_with_its_reason() -> None:
    misfits = {"c": "it needs colour, which these rows do not have"}
    choice = choose_teacher(history(THREE), TeacherRules(), NEXT_END, lambda entry: misfits.get(entry.bundle))
    assert (choice.bundle, choice.passed_over) == ("b", misfits)


def test_switched_off_nobody_teaches() -> None:
    choice = choose_teacher(history(THREE), TeacherRules(enabled=False), NEXT_END)
    assert (choice.bundle, choice.reason) == (None, "switched off by train.teaching.enabled")


@given(moves, st.integers(1, 5), st.integers(1, 60))
def test_a_teacher_was_released_is_trusted_young_and_near_enough(
    made: list[tuple[str, str, str | None]], generations: int, days: int
) -> None:
    entries = history(made)
    rules = TeacherRules(max_generations=generations, max_age_days=days)
    end = START + timedelta(days=7 * len(entries) + 7)
    choice = choose_teacher(entries, rules, end)
    if choice.bundle is None:
        return
    entry = next(e for e in reversed(entries) if e.bundle == choice.bundle and e.decision is not Decision.REJECTED)
    assert entry.decision is Decision.PROMOTED
    assert not {entry.bundle, entry.teacher} & set(untrusted(entries))
    assert entry.generation < generations
    assert entry.window is not None
    assert end - entry.window.end <= timedelta(days=days)
