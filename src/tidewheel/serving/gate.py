"""What a server takes on at once: so many requests and so many bytes. The rest is sent away before it costs anything."""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass

MEBIBYTE = 1024 * 1024
LONGEST_MESSAGE = 600  # characters of a refusal: what the caller sent is quoted in it


@dataclass(frozen=True)
class Limits:
    """What one server allows. Every one of them is there to bound memory or the wait of the others.

    `max_waiting` requests and `max_waiting_bytes` of bodies and untaken answers at once; `header_seconds` from the first byte
    of a request to the end of its headers, `body_seconds` from there to the end of its body, and for taking an answer;
    `wait_seconds` for its turn to be scored; `idle_seconds` without any request close a connection.
    """

    max_body_bytes: int = 8 * MEBIBYTE
    max_event_bytes: int = MEBIBYTE
    max_header_bytes: int = 64 * 1024
    max_candidates: int = 10_000
    max_waiting: int = 64
    max_waiting_bytes: int = 64 * MEBIBYTE
    max_connections: int = 900
    header_seconds: float = 5.0
    body_seconds: float = 5.0
    wait_seconds: float = 1.0
    idle_seconds: float = 75.0


class HttpError(Exception):
    """An answer other than 200; its text is for the caller. `is_last`: the connection closes after it."""

    def __init__(self, status: int, message: str, is_last: bool = False) -> None:
        super().__init__(message if len(message) <= LONGEST_MESSAGE else f"{message[:LONGEST_MESSAGE]}…")
        self.status = status
        self.is_last = is_last

    @property
    def headers(self) -> bytes:
        return b"retry-after: 1\r\n" if self.status == 429 else b""


class Gate:
    """Counts what is being read or waits for its scores. Used by the event loop alone."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.waiting = 0
        self.bytes = 0
        self.unsent_bytes = 0  # of answers that their callers did not take yet
        self.shed: Counter[str] = Counter()
        self.closed: Counter[str] = Counter()  # connections, by reason

    def enter(self) -> bool:
        """Whether one more request may wait; whoever entered must `leave`."""
        if self.waiting >= self.limits.max_waiting:
            self.shed["requests"] += 1
            return False
        self.waiting += 1
        return True

    def leave(self) -> None:
        self.waiting -= 1

    def take(self, num_bytes: int) -> None:
        """Make room for a part of a body; whoever took must `give` it back.

        Raises:
            HttpError: 429, there is none.
        """
        if self.bytes + self.unsent_bytes + num_bytes > self.limits.max_waiting_bytes:
            self.shed["bytes"] += 1
            raise HttpError(
                429, f"busy: {self.limits.max_waiting_bytes} bytes of requests wait already; try again", is_last=True
            )
        self.bytes += num_bytes

    def give(self, num_bytes: int) -> None:
        self.bytes -= num_bytes

    def check_wait(self, seconds: float) -> None:
        """
        Raises:
            HttpError: 429, it waited so long for its turn that nobody may want the scores any more.
        """
        if seconds > self.limits.wait_seconds:
            self.shed["wait"] += 1
            raise HttpError(429, f"busy: not scored after {self.limits.wait_seconds:g} seconds; try again")

    def refusal(self) -> HttpError:
        """What a request is told that did not enter."""
        return HttpError(429, f"busy: {self.limits.max_waiting} requests wait already; try again")


class Turns:
    """One request is scored at a time, in order; between two of them the event loop looks at every connection.

    So a probe or a refusal waits for one request and not for all that came before it.
    """

    def __init__(self) -> None:
        self._is_taken = False
        self._queue: deque[Callable[[], None]] = deque()

    def take(self, then: Callable[[], None]) -> bool:
        """Whether the turn is there now; else `then` is called when it is. It lasts until the caller returns to the loop."""
        if self._is_taken:
            self._queue.append(then)
            return False
        self._is_taken = True
        asyncio.get_running_loop().call_soon(self._pass_on)
        return True

    def _pass_on(self) -> None:
        """Every connection was looked at since the turn was taken, and what came answers before the next turn."""
        if self._queue:
            asyncio.get_running_loop().call_soon(self._next)
        else:
            self._is_taken = False

    def _next(self) -> None:
        asyncio.get_running_loop().call_soon(self._pass_on)
        self._queue.popleft()()
