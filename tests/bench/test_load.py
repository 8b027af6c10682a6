"""The load generator against a real HTTP server on loopback."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from bench.load import Connection, closed_loop, http_request


class Echo(BaseHTTPRequestHandler):
    """/echo sends the body back, /chunks does so in chunks of three bytes, /fault answers 500."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        self.send_response(500 if self.path == "/fault" else 200)
        if self.path == "/chunks":
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            for at in range(0, len(body), 3):
                part = body[at : at + 3]
                self.wfile.write(f"{len(part):x}\r\n".encode() + part + b"\r\n")
            self.wfile.write(b"0\r\n\r\n")
            return
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


class EchoServer(ThreadingHTTPServer):
    def handle_error(self, request: object, client_address: object) -> None:
        """A closed loop hangs up on the answers that are under way at its end: nothing to report."""


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    with EchoServer(("127.0.0.1", 0), Echo) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server.server_address[1]
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("path", ["/echo", "/chunks"])
def test_a_kept_connection_gets_each_answer_whole(port: int, path: str) -> None:
    connection = Connection(port)
    for body in (b"a", b"bc" * 100_000, b"def"):
        assert connection.ask(http_request(path, body, {})) == (200, body)
    connection.close()


@pytest.mark.parametrize(("path", "is_failure"), [("/echo", False), ("/fault", True)])
def test_a_closed_loop_counts_what_was_not_answered_with_200(port: int, path: str, is_failure: bool) -> None:
    load = closed_loop(port, [http_request(path, b"a", {}), http_request(path, b"b", {})], connections=3, seconds=0.3)
    assert (load.connections, load.median_seconds <= load.p99_seconds) == (3, True)
    assert (load.failed > 0) is is_failure
    assert load.per_second > 0
