"""Watches the training loop: how long its steps take, how long it waits for rows, and where it hangs when it does."""

from __future__ import annotations

import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from statistics import median

from tidewheel.contracts.training import Stall

REMEMBERED_STEPS = 200
FIRST_STEPS = 10  # without as many there is no median worth comparing with
MAX_STALLS = 5
NAME = "watchdog"


class Watchdog:
    """Records a stall, with the stacks of all threads, while a step takes more than `factor` times the median of those before.

    No step under `floor_seconds` is one. A thread looks a few times a floor; it costs the loop two clock readings a step.
    """

    def __init__(
        self, factor: float, floor_seconds: float = 1.0, first_step: int = 1, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.factor, self.floor_seconds, self.clock = factor, floor_seconds, clock
        self.stalls: list[Stall] = []
        self.waited_seconds = 0.0
        self._step = first_step  # the one in progress, or the next
        self._durations: deque[float] = deque(maxlen=REMEMBERED_STEPS)
        self._began: float | None = None
        self._reported = -1  # the step that was reported last
        self._watched = threading.get_ident()

    @property
    def median_seconds(self) -> float:
        return median(self._durations) if self._durations else 0.0

    @contextmanager
    def step(self) -> Iterator[None]:
        """One step, waiting for its rows included."""
        self._began = began = self.clock()
        try:
            yield
        finally:
            self._began = None
            self._durations.append(self.clock() - began)
            self._step += 1

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """The part of a step in which it waits for rows."""
        began = self.clock()
        try:
            yield
        finally:
            self.waited_seconds += self.clock() - began

    def look(self) -> None:
        """Record a stall if the step in progress has become one; one a step, MAX_STALLS in all."""
        began, step = self._began, self._step
        if began is None or step == self._reported or len(self._durations) < FIRST_STEPS or len(self.stalls) == MAX_STALLS:
            return
        took = self.clock() - began
        if took > max(self.floor_seconds, self.factor * median(list(self._durations))):
            self._reported = step
            self.stalls.append(Stall(step=step, seconds=took, stacks=self._stacks()))

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Look in a thread until the block ends."""
        is_over = threading.Event()

        def watch() -> None:
            while not is_over.wait(self.floor_seconds / 4):
                self.look()

        thread = threading.Thread(target=watch, name=NAME, daemon=True)
        thread.start()
        try:
            yield
        finally:
            is_over.set()
            thread.join()

    def _stacks(self) -> dict[str, str]:
        names = {thread.ident: thread.name for thread in threading.enumerate() if thread.name != NAME}
        frames = sys._current_frames()
        return {
            f"{name}{' (training)' if ident == self._watched else ''}": "".join(traceback.format_stack(frames[ident]))
            for ident, name in names.items()
            if ident in frames
        }
