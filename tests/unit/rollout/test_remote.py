"""A canary whose steps are judged by jobs that come and go."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.rollout.test_local import CONFIG, LABELS, NEW, OLD, ClickTraffic, MemoryServer, canary, in_memory
from tidewheel.contracts.rollout import CanaryResult
from tidewheel.contracts.verdict import Phase
from tidewheel.rollout.controller import StoredJournal
from tidewheel.rollout.plan import Arm
from tidewheel.rollout.remote import lead_step, seen
from tidewheel.store import Store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(str(tmp_path / "store"))


def asked(store: Store, step: int, quality: float = 1.0, controller: str = "job") -> tuple[CanaryResult, bool]:
    """One job: fresh traffic, fresh connections, the same journal."""
    servers = {Arm.CANDIDATE: MemoryServer(Path(NEW), quality), Arm.CONTROL: MemoryServer(Path(OLD), 1.0)}
    return lead_step(step, CONFIG, LABELS, servers, ClickTraffic(), StoredJournal(store, "feed/1-abc", controller))


def numbers(result: CanaryResult) -> list[object]:
    return [(step.number, step.phase, step.looks, step.candidate.means) for step in result.steps]


def test_steps_judged_one_by_one_end_as_one_canary_does(store: Store) -> None:
    first, has_ended = asked(store, 1)
    assert [step.phase for step in first.steps] == [Phase.SUCCESSFUL]
    assert not has_ended
    second, has_ended = asked(store, 2)
    assert has_ended
    assert numbers(second) == numbers(canary(in_memory()[0]))


def test_asked_again_the_same_is_said_and_no_server_is_asked(store: Store) -> None:
    first, _ = asked(store, 1)
    again, _ = asked(store, 1, quality=0.0, controller="job, second try")
    assert numbers(again) == numbers(first)


def test_a_step_that_nobody_asked_about_is_not_passed_over(store: Store) -> None:
    result, has_ended = asked(store, 2)
    assert has_ended
    assert [step.number for step in result.steps] == [1, 2]


def test_after_a_step_that_failed_every_later_one_is_told_so(store: Store) -> None:
    for step in (1, 2):
        result, has_ended = asked(store, step, quality=0.0)
        assert has_ended
        assert result.verdict.phase is Phase.FAILED
        assert len(result.steps) == 1


def test_whoever_looks_on_takes_no_lead(store: Store) -> None:
    asked(store, 1)
    before = store.names("canaries/feed/1-abc")
    looked, has_ended = seen(store, "feed/1-abc", CONFIG, is_closed_loop=True)
    assert not has_ended
    assert [step.phase for step in looked.steps] == [Phase.SUCCESSFUL]
    assert store.names("canaries/feed/1-abc") == before
    nothing, has_ended = seen(store, "feed/2-abc", CONFIG, is_closed_loop=True)
    assert nothing.verdict.phase is Phase.INCONCLUSIVE  # absence is not consent
    assert not has_ended
