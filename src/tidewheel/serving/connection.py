"""One connection over which HTTP/1.1 is spoken: httptools parses, the application answers at once, one write an answer.

A caller that sends slowly, without end or not HTTP at all is told so where that is possible and then cut off; one that closed
its half still gets its answer. Nobody can make the server hold more than `Limits` say.
"""

from __future__ import annotations

import asyncio
import sys
import traceback
from collections import deque
from collections.abc import Iterable
from typing import Any

import httptools

from tidewheel.serving.app import ServingApp
from tidewheel.serving.gate import Gate, HttpError
from tidewheel.serving.request import Request, address

MAX_HEADERS = 200
COUNT_SECONDS = 0.001  # a caller may wait for this process's core to take its answer: it gets it before anything is counted
RAW_RATIO = 2  # bytes on the wire a byte of body: chunks have headers too
# What one connection received is parsed before another one receives: all of them share this.
_RECEIVED = memoryview(bytearray(256 * 1024))


class Connection(asyncio.BufferedProtocol):
    """Requests are answered in order, each when those before it are; uvicorn's server makes one of these a connection."""

    def __init__(self, config: Any, server_state: Any, app_state: Any, _loop: asyncio.AbstractEventLoop | None = None) -> None:
        self.app: ServingApp = config.loaded_app
        self.gate: Gate = self.app.gate
        self.loop = _loop or asyncio.get_running_loop()
        self.transport: asyncio.Transport
        self.since = self.loop.time()
        self._state = server_state
        self._parser = httptools.HttpRequestParser(self)
        self._parser.set_dangerous_leniencies(lenient_data_after_close=True)  # what follows a last request is not looked at
        self._queue: deque[Request] = deque()  # not answered yet
        self._incoming: Request | None = None  # its headers are there, and it is not whole
        self._url = b""
        self._headers: list[tuple[bytes, bytes]] = []
        self._is_reading = False  # a message has begun and is not whole
        self._is_deaf = False  # nothing is read any more
        self._is_paused = False
        self._is_choked = False  # what was written is not taken
        self._unsent_since: float | None = None
        self._num_bytes = 0  # of this message, without the packet in which it began

    @property
    def is_idle(self) -> bool:
        """No request is being read or answered."""
        return not self._is_reading and not self._queue

    # --- what the transport says ---

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self.transport = transport
        self._state.connections.add(self)
        if len(self._state.connections) <= self.gate.limits.max_connections:
            return
        others = [one for one in self._state.connections if one is not self and one.is_idle]
        if others:
            min(others, key=lambda one: one.since).cut("crowded")
        else:
            self.refuse(HttpError(429, "busy: too many connections; try again", is_last=True), "crowded")

    def connection_lost(self, exc: Exception | None) -> None:
        self._state.connections.discard(self)
        for request in self._queue:
            self.app.abandoned(request)
            request.release(self.gate)
        self._queue.clear()

    def get_buffer(self, sizehint: int) -> memoryview:
        return _RECEIVED

    def buffer_updated(self, nbytes: int) -> None:
        if self._is_deaf:
            return
        self._num_bytes += nbytes
        limits = self.gate.limits
        try:
            self._parser.feed_data(_RECEIVED[:nbytes])
        except httptools.HttpParserUpgrade:  # the parser takes a body for the other protocol's
            self._refuse_upgrade()
        except httptools.HttpParserError as error:
            fault = error.__context__ if isinstance(error.__context__, HttpError) else None
            text = "this is not a request of HTTP/1.1; expected a method, a path and headers"
            self.refuse(fault or HttpError(400, text, is_last=True), "malformed")
            return
        if self._is_reading and self._incoming is None and self._num_bytes > limits.max_header_bytes:
            text = f"headers are larger than {limits.max_header_bytes} bytes; send fewer"
            self.refuse(HttpError(431, text, is_last=True), "headers")
        elif self._is_reading and self._num_bytes > RAW_RATIO * limits.max_body_bytes + limits.max_header_bytes:
            self.refuse(HttpError(413, f"request is larger than {limits.max_body_bytes} bytes", is_last=True), "endless")
        else:
            self._advance()

    def eof_received(self) -> bool:
        """The caller closed its half: whoever asked something whole still gets the answer."""
        if self._is_reading and not self._is_deaf:
            text = "the caller closed its side before the request was whole"
            self.refuse(HttpError(400, text, is_last=True), "half a request")
        if not self._queue:
            return False
        self._queue[-1].keeps_alive = False
        self._is_deaf = True
        return True

    def pause_writing(self) -> None:
        self._is_choked = True

    def resume_writing(self) -> None:
        self._is_choked = False
        self._advance()

    # --- what the parser says ---

    def on_message_begin(self) -> None:
        self._url, self._headers = b"", []
        self._incoming = None
        self._is_reading = True
        self._num_bytes = 0
        self.since = self.loop.time()

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers.append((name.lower(), value))
        if len(self._headers) > MAX_HEADERS:
            raise HttpError(431, f"more than {MAX_HEADERS} headers; send fewer", is_last=True)

    def on_headers_complete(self) -> None:
        path, parts = address(self._url)
        keeps_alive = self._parser.should_keep_alive() and self._parser.get_http_version() != "1.0"
        request = Request(self._parser.get_method().decode("ascii"), path, parts, self._headers, keeps_alive)
        self.app.expect(request)
        self._incoming = request
        self._queue.append(request)
        self.since = self.loop.time()

    def on_body(self, body: bytes) -> None:
        assert self._incoming is not None
        self._incoming.take(body, self.gate)

    def on_message_complete(self) -> None:
        assert self._incoming is not None
        self._incoming.is_whole = True
        self._incoming = None
        self._is_reading = False

    # --- answers ---

    def _advance(self) -> None:
        """Answer the first request if it can be answered now; before the next one the loop looks at the other connections."""
        if self._queue and not self._is_choked and not self.transport.is_closing():
            request = self._queue[0]
            if not request.is_begun:
                request.begin(self.gate)
                self._continue(request)
            if request.fault is not None or request.max_bytes is None or self._is_ready(request):
                self._answer(request)
                if self._queue:
                    self.loop.call_soon(self._advance)
        self._read_or_pause()

    def _is_ready(self, request: Request) -> bool:
        """Whether all of it is there, and its turn has come if it is to be scored."""
        if not request.is_whole or request.is_waiting:
            return False
        if not request.arrived:
            request.arrive()
        if request.is_scored and not request.has_turn:
            request.has_turn = self.app.turns.take(self._take_turn)
            request.is_waiting = not request.has_turn
        return not request.is_waiting

    def _take_turn(self) -> None:
        if self._queue:  # else the caller is gone
            self._queue[0].is_waiting, self._queue[0].has_turn = False, True
            self._advance()

    def _continue(self, request: Request) -> None:
        """A caller may want to hear that its body is welcome before it sends it."""
        if request.is_whole or request.fault is not None:
            return
        if any(name == b"expect" and value.lower() == b"100-continue" for name, value in request.headers):
            self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def _answer(self, request: Request) -> None:
        self._queue.popleft()
        reply = self.app.answer(request)
        is_last = reply.is_last or not request.keeps_alive
        self.transport.write(reply.to_bytes(self.app.date, is_last, request.method != "HEAD"))
        request.is_answered = True
        request.release(self.gate)
        self.since = self.loop.time()
        if is_last:
            self.transport.close()
        if reply.after is not None:
            try:
                reply.after()
            except Exception:
                traceback.print_exc(file=sys.stderr)  # a bug: for the operator; the caller has its answer
        if self.app.metrics.is_due:
            self.app.metrics.is_due = False
            self.loop.call_later(COUNT_SECONDS, self.app.metrics.count)

    def _read_or_pause(self) -> None:
        """A caller that sends more requests than one before the first is answered has to wait with the rest."""
        wants_pause = len(self._queue) > 1 or self._is_choked
        if wants_pause == self._is_paused or self.transport.is_closing():
            return
        self._is_paused = wants_pause
        if wants_pause:
            self.transport.pause_reading()
        else:
            self.since = self.loop.time()
            self.transport.resume_reading()

    def refuse(self, error: HttpError, reason: str) -> None:
        """Say why, after the answers to what came before, and close. `error` is the last answer."""
        if self.transport.is_closing():
            return
        self._is_deaf = True
        request = self._incoming
        if request is not None and request.is_answered:
            self.cut(reason)
            return
        self.gate.closed[reason] += 1
        if request is None:
            request = Request()
            self._queue.append(request)
        request.fault = request.fault or error
        request.keeps_alive = False
        self._advance()

    def _refuse_upgrade(self) -> None:
        """What was asked is answered as if there had been no wish for another protocol, but for a body: it was not read."""
        self._is_deaf = True
        if not self._queue:
            return
        self._queue[-1].keeps_alive = False
        if self._queue[-1].method == "POST":
            text = "only HTTP/1.1 is spoken here; send the request without the header Upgrade"
            self._queue[-1].fault = HttpError(400, text, is_last=True)
            self.gate.closed["upgrade"] += 1

    # --- what the server says ---

    def shutdown(self) -> None:
        """Close when what was asked is answered."""
        if self._queue:
            self._queue[-1].keeps_alive = False
        else:
            self.transport.close()

    def cut(self, reason: str) -> None:
        """Close when what was written is taken."""
        self.gate.closed[reason] += 1
        self.transport.close()

    def check(self, now: float) -> int:
        """Cut whoever is too slow; returns how many bytes of answers wait to be taken. `now` is the loop's time."""
        limits = self.gate.limits
        unsent = self.transport.get_write_buffer_size()
        if not unsent:
            self._unsent_since = None
        elif self._unsent_since is None:
            self._unsent_since = now
        elif now - self._unsent_since > limits.body_seconds:
            self.gate.closed["answer not taken"] += 1
            self.transport.abort()
            return 0
        if self.transport.is_closing() or self._is_deaf or self._is_paused:
            return unsent
        seconds = now - self.since
        if self.is_idle and seconds > limits.idle_seconds:
            self.cut("silent")
        elif self._is_reading and self._incoming is None and seconds > limits.header_seconds:
            text = f"the headers were not whole after {limits.header_seconds:g} seconds"
            self.refuse(HttpError(408, text, is_last=True), "slow headers")
        elif self._incoming is not None and seconds > limits.body_seconds:
            text = f"the request was not whole after {limits.body_seconds:g} seconds"
            self.refuse(HttpError(408, text, is_last=True), "slow body")
        return unsent


def check_all(connections: Iterable[Connection], gate: Gate, now: float) -> None:
    """Cut the connections that are too slow, and count what they did not take."""
    gate.unsent_bytes = sum(one.check(now) for one in tuple(connections))
