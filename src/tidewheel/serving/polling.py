"""How a server waits for its connections: asleep, or for a while after each of them spoke with its eyes open."""

from __future__ import annotations

import asyncio
import selectors
import time
from collections.abc import Callable
from typing import Any


class BusySelector(selectors.DefaultSelector):
    """Looks without a pause until nothing has happened for `seconds`, and sleeps only then.

    A core that was put to sleep wakes up late and with cold caches, which at a low rate is a good part of a request's time. The
    price is that core: it is busy for `seconds` after every request.
    """

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._seconds, self._clock = seconds, clock
        self._open_until = 0.0  # the eyes

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        began = now = self._clock()
        end = float("inf") if timeout is None else began + timeout
        found = super().select(0)
        while not found and (now := self._clock()) < min(self._open_until, end):
            found = super().select(0)
        if not found and now < end:
            found = self._sleep(None if timeout is None else end - now)
        if found:
            self._open_until = self._clock() + self._seconds
        return found

    def _sleep(self, timeout: float | None) -> list[tuple[selectors.SelectorKey, int]]:
        return super().select(timeout)


def new_loop(busy_seconds: float) -> asyncio.AbstractEventLoop:
    """asyncio's own loop, the one that is tested, whatever else is installed; with 0 it sleeps whenever it waits."""
    selector: Any = BusySelector(busy_seconds) if busy_seconds else None
    return asyncio.SelectorEventLoop(selector)
