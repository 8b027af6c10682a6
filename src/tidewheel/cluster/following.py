"""A submitted run, followed to its end."""

from __future__ import annotations

import time
from collections.abc import Callable

from tidewheel.cluster.backend import RunState, TaskState
from tidewheel.errors import RetryableError

POLL_SECONDS = 2.0
MAX_SILENCES = 5  # answers in a row that do not come, before it is given up
ENDED = ("SUCCEEDED", "FAILED", "CANCELED", "SKIPPED")


def follow(
    read: Callable[[], RunState],
    tell: Callable[[TaskState], None],
    look: Callable[[], None] = lambda: None,
    *,
    pause: Callable[[float], None] = time.sleep,
) -> RunState:
    """The run's last state; `tell` hears of each task once when it began and once when it ended.

    Args:
        look: called between two answers while the run is at work; what it raises ends the wait.

    Raises:
        RetryableError: the backend did not answer `MAX_SILENCES` times in a row. The run goes on without us.
    """
    told: set[tuple[str, str]] = set()
    silences = 0
    while True:
        try:
            found = read()
            silences = 0
        except RetryableError:
            silences += 1
            if silences == MAX_SILENCES:
                raise
            pause(POLL_SECONDS)
            continue
        for task in found.tasks:
            if (task.name, task.state) not in told and task.state != "PENDING":
                told.add((task.name, task.state))
                tell(task)
        if found.state in ENDED:
            return found
        look()
        pause(POLL_SECONDS)


def exit_code(found: RunState) -> int:
    """0: the wheel turned; 3: validate_data failed; 1: else. As those of `tidewheel run`."""
    if found.state == "SUCCEEDED":
        return 0
    failed = {task.name.replace("-", "_") for task in found.tasks if task.state == "FAILED"}
    return 3 if "validate_data" in failed else 1
