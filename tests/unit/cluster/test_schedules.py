"""Schedules of a file against a backend in memory, killed at every call."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.kubeflow import BackendInMemory, Killed
from tidewheel.cluster.schedules import Applied, Kind, Wanted, apply, found_of, plan

NIGHTLY = "0 0 3 * * *"


def wanted(name: str = "daily", **changes: object) -> Wanted:
    pipeline = str(changes.pop("pipeline", "a pipeline")).encode()
    base = Wanted(
        group="default",
        name=name,
        recipe="quickstart",
        pipeline=pipeline,
        pipeline_digest=hashlib.sha256(pipeline).hexdigest(),
        cron=NIGHTLY,
        parameters={"window_end": "the scheduled time", "reason": "scheduled", "dry_run": False},
        service_account="tidewheel-run",
        is_enabled=True,
    )
    return replace(base, **changes)  # type: ignore[arg-type]


def applied(backend: BackendInMemory, *schedules: Wanted) -> Applied:
    return apply(backend, "default", schedules, pause=lambda seconds: None)


def planned(backend: BackendInMemory, *schedules: Wanted) -> list[tuple[Kind, str]]:
    return [(action.kind, action.why) for action in plan(schedules, found_of("default", backend.runs.values()))]


def test_a_new_schedule_is_made_enabled_and_a_second_apply_changes_nothing() -> None:
    backend = BackendInMemory()

    assert [action.kind for action in applied(backend, wanted()).done] == [Kind.CREATE]
    assert applied(backend, wanted()) == Applied((), ())
    assert len(backend.enabled("daily")) == 1


def test_a_schedule_that_the_file_disables_is_made_disabled() -> None:
    backend = BackendInMemory()

    applied(backend, wanted(is_enabled=False))

    assert len(backend.runs) == 1
    assert not backend.enabled("daily")


def test_a_hundred_schedules_of_one_recipe_upload_it_once_and_cost_one_call_each() -> None:
    backend = BackendInMemory()

    applied(backend, *(wanted(f"s{number}") for number in range(100)))

    assert {name: backend.calls.count(name) for name in set(backend.calls)} == {
        "list": 1,
        "upload": 1,
        "experiment": 1,
        "create": 100,
    }


@pytest.mark.parametrize(
    "change",
    [
        {"cron": "0 0 4 * * *"},
        {"pipeline": "another pipeline"},
        {"service_account": "somebody"},
        {"parameters": {"window_end": "then", "reason": "x", "dry_run": False}},
    ],
    ids=["cron", "pipeline", "account", "parameters"],
)
def test_a_change_makes_a_new_one_beside_the_old_one_which_goes_later(change: Mapping[str, object]) -> None:
    backend = BackendInMemory()
    applied(backend, wanted())
    backend.calls.clear()

    first = applied(backend, wanted(**change))

    assert [action.kind for action in first.done] == [Kind.CREATE, Kind.ENABLE, Kind.DISABLE]
    assert backend.calls == ["list", "upload", "experiment", "create", "enable", "disable"]
    assert backend.enabled("daily") == ["r2"]
    assert [action.kind for action in applied(backend, wanted(**change)).done] == [Kind.DELETE]
    assert list(backend.runs) == ["r2"]
    assert applied(backend, wanted(**change)) == Applied((), ())


def test_an_old_one_waits_for_its_run_to_end() -> None:
    backend = BackendInMemory()
    applied(backend, wanted())
    backend.busy = {"r1"}
    applied(backend, wanted(cron="0 0 4 * * *"))

    waiting = applied(backend, wanted(cron="0 0 4 * * *"))

    assert (waiting.done, [action.id for action in waiting.waiting]) == ((), ["r1"])
    backend.busy = set()
    assert [action.id for action in applied(backend, wanted(cron="0 0 4 * * *")).done] == ["r1"]
    assert not backend.killed_runs


def test_a_deletion_waits_until_the_backend_has_heard_of_runs_that_just_began() -> None:
    backend = BackendInMemory()
    applied(backend, wanted())
    applied(backend)

    def a_run_is_reported_late(seconds: float) -> None:
        assert seconds == 5
        backend.busy = {"r1"}

    assert [action.id for action in apply(backend, "default", [], pause=a_run_is_reported_late).waiting] == ["r1"]


def test_what_left_the_file_is_disabled_and_then_removed() -> None:
    backend = BackendInMemory()
    applied(backend, wanted("daily"), wanted("weekly"))

    assert [action.kind for action in applied(backend, wanted("daily")).done] == [Kind.DISABLE]
    assert [action.kind for action in applied(backend, wanted("daily")).done] == [Kind.DELETE]
    assert [each.title for each in backend.runs.values()] == ["tidewheel-daily"]


def test_recurring_runs_of_others_and_of_other_groups_are_left_alone() -> None:
    backend = BackendInMemory()
    applied(backend, wanted())
    mine = backend.runs["r1"]
    backend.runs = {
        "by hand": replace(mine, id="by hand", description="mine, do not touch"),
        "copy": replace(mine, id="copy", title="a copy of tidewheel-daily"),
        "group": replace(mine, id="group", description=mine.description.replace("group=default", "group=search")),
    }

    assert not planned(backend)


@pytest.mark.parametrize(
    ("change", "want"),
    [
        ({"is_enabled": False}, [(Kind.ENABLE, "the file enables it")]),
        (
            {"cron": "0 0 5 * * *"},
            [
                (Kind.CREATE, "changed"),
                (Kind.ENABLE, "takes over"),
                (Kind.DISABLE, "its cron was changed by hand to 0 0 5 * * *"),
            ],
        ),
        (
            {"parameters": {}},
            [(Kind.CREATE, "changed"), (Kind.ENABLE, "takes over"), (Kind.DISABLE, "its parameters were changed by hand")],
        ),
        (
            {"is_ours": False},
            [
                (Kind.CREATE, "changed"),
                (Kind.ENABLE, "takes over"),
                (Kind.DISABLE, "its concurrency or catch-up was changed by hand"),
            ],
        ),
    ],
    ids=["disabled", "cron", "parameters", "concurrency"],
)
def test_what_was_changed_by_hand_is_found_and_put_right(change: Mapping[str, object], want: list[tuple[Kind, str]]) -> None:
    backend = BackendInMemory()
    applied(backend, wanted())
    backend.runs["r1"] = replace(backend.runs["r1"], **change)  # type: ignore[arg-type]

    assert planned(backend, wanted()) == want
    applied(backend, wanted())
    applied(backend, wanted())
    assert not planned(backend, wanted())


def test_one_that_was_deleted_by_hand_is_made_again() -> None:
    backend = BackendInMemory()
    applied(backend, wanted())
    backend.runs.clear()

    assert planned(backend, wanted()) == [(Kind.CREATE, "new")]


def test_of_two_equal_ones_the_enabled_one_stays() -> None:
    """Two appliers at once make two."""
    backend = BackendInMemory()
    applied(backend, wanted())
    backend.runs["r0"] = replace(backend.runs["r1"], id="r0", is_enabled=False)

    assert planned(backend, wanted()) == [(Kind.DELETE, "there are two of it")]


def test_a_description_is_short_enough_for_the_backend() -> None:
    assert len(wanted("n" * 40, group="g" * 20).description) <= 255


CRONS = st.sampled_from([NIGHTLY, "0 0 4 * * *", "0 30 5 * * 1"])
FILES = st.dictionaries(st.sampled_from(["a", "b"]), st.tuples(CRONS, st.booleans()), max_size=2)


@settings(max_examples=60, deadline=None)
@given(before=FILES, after=FILES, busy=st.booleans(), by_hand=st.booleans())
def test_killed_at_any_call_and_applied_again_it_ends_right(
    before: dict[str, tuple[str, bool]], after: dict[str, tuple[str, bool]], busy: bool, by_hand: bool
) -> None:
    old = [wanted(name, cron=cron, is_enabled=on) for name, (cron, on) in before.items()]
    new = [wanted(name, cron=cron, is_enabled=on) for name, (cron, on) in after.items()]
    for death in range(30):
        for dies_after_effect in (False, True):
            backend = BackendInMemory()
            applied(backend, *old)
            if by_hand:
                backend.runs = {key: replace(run, is_enabled=not run.is_enabled) for key, run in backend.runs.items()}
            backend.busy = set(backend.runs) if busy else set()
            kept = [each.name for each in new if each.is_enabled and backend.enabled(each.name)]
            backend.watch = lambda backend=backend, kept=kept: _never_without(backend, kept)  # type: ignore[misc]
            backend.dies_at, backend.dies_after_effect = len(backend.calls) + death, dies_after_effect
            try:
                applied(backend, *new)
            except Killed:
                pass
            else:
                return
            backend.dies_at = -1
            applied(backend, *new)
            assert {each.name: len(backend.enabled(each.name)) for each in new} == {each.name: each.is_enabled for each in new}
            assert not backend.killed_runs
            backend.busy = set()
            for _ in range(3):
                applied(backend, *new)
            assert sorted(each.title for each in backend.runs.values()) == sorted(each.title for each in new)
            assert not planned(backend, *new)


def _never_without(backend: BackendInMemory, kept: list[str]) -> None:
    for name in kept:
        assert backend.enabled(name), f"{name} was enabled before and is not now"
