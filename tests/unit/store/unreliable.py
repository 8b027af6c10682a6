"""A real S3-compatible server on loopback, and a door in front of it that misbehaves when told to."""

from __future__ import annotations

import http.client
import os
import signal
import socket
import struct
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from enum import Enum, auto
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "content-length", "server", "date"}
RESET = struct.pack("ii", 1, 0)  # SO_LINGER: closing sends a reset, not an orderly end


class Fault(Enum):
    """What the door does with one request instead of passing it on and answering."""

    INTERNAL_ERROR = auto()
    UNAVAILABLE = auto()
    SLOW_DOWN = auto()
    RESET = auto()  # the connection breaks before the store has seen the request
    LOST_ANSWER = auto()  # the store did what it was asked to; nobody hears of it
    HALF_ANSWER = auto()  # the connection breaks in the middle of the answer
    STALL = auto()  # takes the request and never answers
    STALLED_ANSWER = auto()  # begins to answer and never goes on
    DEAF = auto()  # takes the connection and never reads what is sent
    DENIED = auto()
    TAKEN = auto()  # the name is; said as SeaweedFS says it, without Amazon's <Condition>


ANSWERS = {
    Fault.INTERNAL_ERROR: (500, "InternalError"),
    Fault.UNAVAILABLE: (503, "ServiceUnavailable"),
    Fault.SLOW_DOWN: (503, "SlowDown"),
    Fault.DENIED: (403, "AccessDenied"),
    Fault.TAKEN: (412, "PreconditionFailed"),
}
Rule = Callable[[str, str], Fault | None]  # method, path -> what to do


class UnreliableStore:
    """Passes requests on to the real store, except those that are to fail. One at a time, so that a conditional put is one
    step whatever the store behind does."""

    def __init__(self, host: str, port: int) -> None:
        self.behind = (host, port)
        self.rule: Rule = lambda method, path: None
        self.honours_conditions = True
        self.seen: list[tuple[str, str]] = []
        self.kill: tuple[int, int, bool] | None = None  # process, at which request, before it is passed on or after
        self.one_at_a_time = threading.Lock()
        self.over = threading.Event()
        door = self

        class Handler(_Handler):
            store = door

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    def fail_next(self, *faults: Fault) -> None:
        """The next requests, one for each fault; after them all is well."""
        left = deque(faults)
        self.rule = lambda method, path: left.popleft() if left else None

    def fail_always(self, fault: Fault) -> None:
        self.rule = lambda method, path: fault

    def recover(self) -> None:
        self.rule = lambda method, path: None

    def close(self) -> None:
        self.over.set()
        self._server.shutdown()
        self._server.server_close()


class _Handler(BaseHTTPRequestHandler):
    store: UnreliableStore
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        """Nothing: what was asked is in `seen`."""

    def _serve(self) -> None:
        with self.store.one_at_a_time:
            self.store.seen.append((self.command, self.path))
            number = len(self.store.seen)
            fault = self.store.rule(self.command, self.path)
        if fault is Fault.DEAF:
            self.store.over.wait()
            return
        body = self._body()
        self._kill_if(number, is_before=True)
        if fault in ANSWERS:
            self._refuse(*ANSWERS[fault])
        elif fault is Fault.RESET:
            self._break()
        elif fault is Fault.STALL:
            self.store.over.wait()
        else:
            self._pass_on(number, body, fault)

    do_GET = do_PUT = do_HEAD = do_DELETE = do_POST = _serve

    def _pass_on(self, number: int, body: bytes, fault: Fault | None) -> None:
        status, headers, answer = self._ask(body)
        self._kill_if(number, is_before=False)
        if fault is Fault.LOST_ANSWER:
            self._break()
            return
        with suppress(BrokenPipeError, ConnectionResetError):  # the other side may be dead by now
            self.send_response(status)
            for name, value in headers:
                if name.lower() not in HOP_BY_HOP:
                    self.send_header(name, value)
            length = next((v for n, v in headers if n.lower() == "content-length"), "0")
            self.send_header("Content-Length", length)
            self.end_headers()
            if fault in (Fault.HALF_ANSWER, Fault.STALLED_ANSWER):
                self.wfile.write(answer[: len(answer) // 2])
                self.wfile.flush()
                if fault is Fault.STALLED_ANSWER:
                    self.store.over.wait()
                self._break()
                return
            self.wfile.write(answer)

    def _ask(self, body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
        skipped = {"connection", "transfer-encoding", "content-length", "expect"}
        if not self.store.honours_conditions:
            skipped.add("if-none-match")
        headers = {name: value for name, value in self.headers.items() if name.lower() not in skipped}
        with self.store.one_at_a_time:
            connection = http.client.HTTPConnection(*self.store.behind, timeout=60)
            connection.request(self.command, self.path, body=body, headers={**headers, "Content-Length": str(len(body))})
            answer = connection.getresponse()
            found = answer.status, answer.getheaders(), answer.read()
            connection.close()
        return found

    def _body(self) -> bytes:
        if "100-continue" in self.headers.get("Expect", ""):
            self.send_response_only(100)
            self.end_headers()
        if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
            data = b""
            while size := int(self.rfile.readline().split(b";")[0], 16):
                data += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return data
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def _refuse(self, status: int, code: str) -> None:
        text = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>as told</Message></Error>".encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/xml")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(text)

    def _break(self) -> None:
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        self.connection.close()
        self.close_connection = True

    def _kill_if(self, number: int, *, is_before: bool) -> None:
        if self.store.kill is not None and self.store.kill[1:] == (number, is_before):
            os.kill(self.store.kill[0], signal.SIGKILL)
