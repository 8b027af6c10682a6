"""What a connection and the application tell each other: a request that is being read, and its answer."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from http import HTTPStatus
from typing import TYPE_CHECKING
from urllib.parse import unquote

import httptools

from tidewheel.serving.gate import Gate, HttpError
from tidewheel.serving.protocol import LENGTH_HEADER, BinaryBody

if TYPE_CHECKING:
    from tidewheel.serving.versions import Version

JSON = b"application/json"
BINARY = b"application/octet-stream"
CLOSE = b"connection: close\r\n"
_LINES = {int(status): f"HTTP/1.1 {int(status)} {status.phrase}\r\n".encode() for status in HTTPStatus}


@dataclass(slots=True, eq=False)
class Request:
    """One request, from its headers on; times are those of `time.perf_counter`.

    `max_bytes`: how large its body may be, None where it is answered without one. `fault`: why it is refused.
    """

    method: str = ""
    path: str = ""
    parts: tuple[str, ...] = ()
    headers: list[tuple[bytes, bytes]] = field(default_factory=list)
    keeps_alive: bool = False
    max_bytes: int | None = None
    is_scored: bool = False
    fault: HttpError | None = None
    started: float = field(default_factory=time.perf_counter)
    arrived: float = 0.0  # when it was whole and the first of its connection
    is_whole: bool = False
    is_begun: bool = False  # the requests before it are answered
    has_turn: bool = False
    is_waiting: bool = False  # for its turn
    is_answered: bool = False
    _is_admitted: bool = False
    _held: int = 0
    _body: list[bytes] = field(default_factory=list)

    @property
    def body(self) -> bytes:
        return self._body[0] if len(self._body) == 1 else b"".join(self._body)

    def take(self, part: bytes, gate: Gate) -> None:
        """Hold a part of the body, or refuse the request."""
        if self.fault is not None or self.is_answered or self.max_bytes is None:
            return
        try:
            if self._held + len(part) > self.max_bytes:
                raise HttpError(413, f"request is larger than {self.max_bytes} bytes; send less at once")
            gate.take(len(part))
        except HttpError as error:
            self.fault = error
            return
        self._held += len(part)
        self._body.append(part)

    def arrive(self) -> None:
        """It is whole and the first of its connection: from here on it waits for its turn."""
        self.arrived = time.perf_counter()

    def begin(self, gate: Gate) -> None:
        """It is the first of its connection now. Requests with a body wait for one another; probes never do."""
        self.is_begun = True
        if self.fault is None and self.method == "POST":
            self._is_admitted = gate.enter()
            if not self._is_admitted:
                self.fault = gate.refusal()

    def release(self, gate: Gate) -> None:
        """It is answered, or nobody waits for that any more."""
        gate.give(self._held)
        self._held = 0
        self._body.clear()
        if self._is_admitted:
            gate.leave()
            self._is_admitted = False


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer; `version` is the one that it names. `after` is what is left to do when it is on its way."""

    body: bytes
    version: Version
    status: int = 200
    kind: bytes = JSON
    more: bytes = b""  # headers
    is_last: bool = False
    after: Callable[[], None] | None = None

    def to_bytes(self, date: bytes, is_last: bool, has_body: bool) -> bytes:
        """All of it, as it goes over the wire. `date` is a whole header."""
        kind, more = self.kind, self.more
        if isinstance(self.body, BinaryBody):
            kind = BINARY
            more = b"%s%s: %d\r\n" % (more, LENGTH_HEADER, self.body.json_size)
        parts = (
            _LINES[self.status],
            date,
            self.version.head,
            b"content-type: %s\r\ncontent-length: %d\r\n" % (kind, len(self.body)),
            more,
            CLOSE if is_last else b"",
            b"\r\n",
            self.body if has_body else b"",
        )
        return b"".join(parts)


@lru_cache(maxsize=16)
def address(url: bytes) -> tuple[str, tuple[str, ...]]:
    """The path of a request's target, and its parts.

    Raises:
        httptools.HttpParserInvalidURLError, AttributeError, UnicodeDecodeError: it has none.
    """
    path = unquote(httptools.parse_url(url).path.decode("ascii"))
    return path, tuple(path.strip("/").split("/"))
