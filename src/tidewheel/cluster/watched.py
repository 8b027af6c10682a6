"""Work whose end is waited for, but not for ever."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Watched(Generic[T]):
    """Runs at once in a thread of its own, which does not keep the process from ending."""

    def __init__(self, work: Callable[[], T]) -> None:
        self._work = work
        self._found: T | None = None
        self._fault: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def result(self, seconds: float) -> T | None:
        """What the work returned; None when it has not ended in time. Raises what it raised."""
        self._thread.join(max(seconds, 0.0))
        if self._fault is not None:
            raise self._fault
        return None if self._thread.is_alive() else self._found

    def _run(self) -> None:
        try:
            self._found = self._work()
        except BaseException as error:  # raised again where the result is asked for
            self._fault = error
