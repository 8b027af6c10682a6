"""One connection over which HTTP is spoken: uvicorn's, and what it leaves to a proxy that may not be there.

A caller that sends slowly, without end or not HTTP at all is told so where that is possible and then cut off; one that closed
its half still gets its answer. Nobody can make the server hold more than `Limits` say.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable
from http import HTTPStatus
from typing import Any

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from tidewheel.serving.gate import Gate, HttpError

MAX_HEADERS = 200
RAW_RATIO = 2  # bytes on the wire a byte of body: chunks have headers too


class Connection(HttpToolsProtocol):
    """`app` is a `ServingApp`, whose gate counts its requests."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.gate: Gate = self.app.gate
        self.since = self.loop.time()
        self.unsent_since: float | None = None
        self._is_reading = False  # a message has begun and is not whole
        self._has_headers = False
        self._num_bytes = 0  # of this message, without the packet in which it began

    @property
    def is_idle(self) -> bool:
        """No request is being read or answered."""
        return not self._is_reading and (self.cycle is None or self.cycle.response_complete)

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) <= self.gate.limits.max_connections:
            return
        others = [one for one in self.connections if isinstance(one, Connection) and one is not self and one.is_idle]
        if others:
            min(others, key=lambda one: one.since).cut("crowded")
        else:
            self.refuse(HttpError(429, "busy: too many connections; try again", is_last=True), "crowded")

    def data_received(self, data: bytes) -> None:
        self._unset_keepalive_if_required()
        self._num_bytes += len(data)
        limits = self.gate.limits
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade:  # the parser takes a body for the other protocol's
            self.cycle.keep_alive = False
            if self.scope["method"] == "POST":
                text = "only HTTP/1.1 is spoken here; send the request without the header Upgrade"
                self.refuse(HttpError(400, text, is_last=True), "upgrade")
        except httptools.HttpParserError as error:
            fault = error.__context__ if isinstance(error.__context__, HttpError) else None
            text = "this is not a request of HTTP/1.1; expected a method, a path and headers"
            self.refuse(fault or HttpError(400, text, is_last=True), "malformed")
            return
        if self._is_reading and not self._has_headers and self._num_bytes > limits.max_header_bytes:
            text = f"headers are larger than {limits.max_header_bytes} bytes; send fewer"
            self.refuse(HttpError(431, text, is_last=True), "headers")
        elif self._is_reading and self._num_bytes > RAW_RATIO * limits.max_body_bytes + limits.max_header_bytes:
            self.refuse(HttpError(413, f"request is larger than {limits.max_body_bytes} bytes", is_last=True), "endless")

    def eof_received(self) -> bool:  # type: ignore[override]
        """The caller closed its half: whoever asked something whole still gets the answer."""
        if self.is_idle:
            return False
        if self._is_reading:
            text = "the caller closed its side before the request was whole"
            self.refuse(HttpError(400, text, is_last=True), "half a request")
            return False
        self.cycle.keep_alive = False
        return True

    def refuse(self, error: HttpError, reason: str) -> None:
        """Say why, unless an answer has begun, and close."""
        if self.transport.is_closing():
            return
        is_answered = self.cycle is not None and self.cycle.response_started
        is_of_this = self._is_reading and self._has_headers  # else the last answer was that of the request before
        if not is_answered or (self.cycle.response_complete and not is_of_this):
            body = json.dumps({"error": str(error)}).encode()
            fields = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode()), *error.headers]
            head = b"".join(b"%s: %s\r\n" % field for field in fields)
            line = f"HTTP/1.1 {error.status} {HTTPStatus(error.status).phrase}\r\n".encode()
            self.transport.write(line + head + b"\r\n" + body)
            if self.cycle is not None:
                self.cycle.disconnected = True  # who may still be at work on it has nothing to say any more
                self.cycle.message_event.set()
        self.cut(reason)

    def cut(self, reason: str) -> None:
        """Close when what was written is taken."""
        self.gate.closed[reason] += 1
        self.transport.close()

    def check(self, now: float) -> int:
        """Cut whoever is too slow; returns how many bytes of answers wait to be taken. `now` is the loop's time."""
        limits = self.gate.limits
        unsent = self.transport.get_write_buffer_size()
        if not unsent:
            self.unsent_since = None
        elif self.unsent_since is None:
            self.unsent_since = now
        elif now - self.unsent_since > limits.body_seconds:
            self.gate.closed["answer not taken"] += 1
            self.transport.abort()
            return 0
        if self.transport.is_closing():
            return unsent
        if self.cycle is None and not self._is_reading and now - self.since > limits.idle_seconds:
            self.cut("silent")
        elif self._is_reading and not self._has_headers and now - self.since > limits.header_seconds:
            text = f"the headers were not whole after {limits.header_seconds:g} seconds"
            self.refuse(HttpError(408, text, is_last=True), "slow headers")
        elif self._is_reading and self._has_headers and self.cycle.response_complete and now - self.since > limits.body_seconds:
            self.cut("slow body")  # it was refused already, and goes on
        return unsent

    # --- what the parser says ---

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._is_reading, self._has_headers = True, False
        self._num_bytes = 0
        self.since = self.loop.time()

    def on_header(self, name: bytes, value: bytes) -> None:
        super().on_header(name, value)
        if len(self.headers) > MAX_HEADERS:
            raise HttpError(431, f"more than {MAX_HEADERS} headers; send fewer", is_last=True)

    def on_headers_complete(self) -> None:
        self._has_headers = True
        self.since = self.loop.time()
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        self._is_reading = False
        super().on_message_complete()

    def on_response_complete(self) -> None:
        self.since = self.loop.time()
        super().on_response_complete()

    def _start_asgi_task(self, cycle: Any, app: Any) -> None:
        """A request begins to wait here, not when its task first runs: all that came in the meantime are before it."""
        cycle.scope["is_admitted"] = cycle.scope["method"] != "POST" or self.gate.enter()
        super()._start_asgi_task(cycle, app)


def check_all(connections: Iterable[Any], gate: Gate, now: float) -> None:
    """Cut the connections that are too slow, and count what they did not take."""
    gate.unsent_bytes = sum(one.check(now) for one in tuple(connections) if isinstance(one, Connection))
