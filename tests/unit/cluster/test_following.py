from __future__ import annotations

from collections.abc import Callable

import pytest

from tidewheel.cluster.backend import RunState, TaskState
from tidewheel.cluster.following import exit_code, follow
from tidewheel.errors import RetryableError

AWAY = RetryableError("away")


def reading(*answers: RunState | RetryableError) -> Callable[[], RunState]:
    left = list(answers)

    def read() -> RunState:
        answer = left.pop(0)
        if isinstance(answer, RetryableError):
            raise answer
        return answer

    return read


def state(of_run: str, **tasks: str) -> RunState:
    return RunState("r", of_run, tuple(TaskState(name, each, None) for name, each in tasks.items()))


def test_each_step_is_told_once_when_it_begins_and_once_when_it_ends() -> None:
    told: list[str] = []
    read = reading(
        state("PENDING"),
        state("RUNNING", ingest="RUNNING"),
        state("RUNNING", ingest="RUNNING"),
        state("RUNNING", ingest="SUCCEEDED", sample="PENDING"),
        state("SUCCEEDED", ingest="SUCCEEDED", sample="SUCCEEDED"),
    )

    found = follow(read, lambda task: told.append(f"{task.name} {task.state}"), pause=lambda seconds: None)

    assert found.state == "SUCCEEDED"
    assert told == ["ingest RUNNING", "ingest SUCCEEDED", "sample SUCCEEDED"]


def test_a_backend_that_is_away_for_a_moment_is_asked_again() -> None:
    read = reading(AWAY, AWAY, state("RUNNING"), AWAY, AWAY, AWAY, AWAY, state("SUCCEEDED"))

    assert follow(read, lambda task: None, pause=lambda seconds: None).state == "SUCCEEDED"


def test_a_backend_that_stays_away_is_given_up() -> None:
    with pytest.raises(RetryableError, match="away"):
        follow(reading(*[AWAY] * 5), lambda task: None, pause=lambda seconds: None)


@pytest.mark.parametrize(
    ("found", "want"),
    [
        (state("SUCCEEDED", ingest="SUCCEEDED"), 0),
        (state("FAILED", **{"validate-data": "FAILED"}), 3),
        (state("FAILED", train="FAILED"), 1),
        (state("CANCELED"), 1),
    ],
)
def test_the_ending_of_a_run_is_an_exit_code(found: RunState, want: int) -> None:
    assert exit_code(found) == want
