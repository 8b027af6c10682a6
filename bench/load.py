"""A closed loop of HTTP requests from a process of its own: every connection sends its next request when its answer is whole.

    python -m bench.load --requests FOLDER --port PORT --connections 8 --seconds 5

FOLDER holds whole HTTP/1.1 requests, one a file, sent in turn; prints one JSON document. The same code asks every server.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import select
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import cycle
from pathlib import Path

import numpy as np

from bench.work import ROOT

HOST = "127.0.0.1"
LAST_CHUNK = b"0\r\n\r\n"  # of JSON no other chunk ends so
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)")
WARM_UP_SHARE = 0.2  # of the seconds, before what counts


@dataclass(frozen=True)
class Load:
    """What a closed loop met: answers a second, latencies in seconds, and answers other than 200."""

    connections: int
    per_second: float
    median_seconds: float
    p99_seconds: float
    failed: int


class Connection:
    """One kept connection with at most one request under way."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection((HOST, port))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._found = b""
        self._buffer = memoryview(bytearray(1 << 20))
        self.sent = 0.0

    def fileno(self) -> int:
        return self._socket.fileno()

    def send(self, request: bytes) -> None:
        self.sent = time.perf_counter()
        self._socket.sendall(request)

    def read(self) -> tuple[int, bytes] | None:
        """Take what is there; status and body once they are whole.

        Raises:
            OSError: the server hung up.
        """
        received = self._socket.recv_into(self._buffer)
        if not received:
            raise ConnectionResetError("the server closed the connection")
        part = self._buffer[:received].tobytes()
        self._found = self._found + part if self._found else part
        end = self._found.find(b"\r\n\r\n")
        if end < 0:
            return None
        head, body = self._found[:end].lower(), self._found[end + 4 :]
        if (length := _LENGTH.search(head)) is not None:
            if len(body) < int(length[1]):
                return None
        elif b"\r\ntransfer-encoding: chunked" in head:
            if not body.endswith(LAST_CHUNK):
                return None
            body = _joined(body)
        else:
            raise OSError(f"expected an answer with Content-Length or in chunks, found {head[:200]!r}")
        self._found = b""
        return int(head[9:12]), body

    def ask(self, request: bytes) -> tuple[int, bytes]:
        """Send a request and wait for status and body."""
        self.send(request)
        while (answer := self.read()) is None:
            continue
        return answer

    def close(self) -> None:
        self._socket.close()


def _joined(chunks: bytes) -> bytes:
    parts = []
    while chunks != LAST_CHUNK:
        size, _, rest = chunks.partition(b"\r\n")
        parts.append(rest[: int(size, 16)])
        chunks = rest[int(size, 16) + 2 :]
    return b"".join(parts)


def http_request(path: str, body: bytes, headers: Mapping[str, str]) -> bytes:
    """A whole POST."""
    fields = {"Host": HOST, "Content-Length": str(len(body)), **headers}
    return "\r\n".join([f"POST {path} HTTP/1.1", *(f"{k}: {v}" for k, v in fields.items()), "", ""]).encode() + body


def write_requests(folder: Path, requests: Sequence[bytes]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for at, request in enumerate(requests):
        (folder / f"{at:04d}").write_bytes(request)
    return folder


def closed_loop(port: int, requests: Sequence[bytes], connections: int, seconds: float) -> Load:
    upcoming = cycle(requests)
    taken: list[float] = []
    failed = 0
    poll = select.epoll()
    by_number = {}
    for _ in range(connections):
        connection = Connection(port)
        by_number[connection.fileno()] = connection
        poll.register(connection.fileno(), select.EPOLLIN)
    started = time.perf_counter()
    counts_from, end = started + WARM_UP_SHARE * seconds, started + seconds
    for connection in by_number.values():
        connection.send(next(upcoming))
    now = started
    while now < end:
        for number, _ in poll.poll(1.0):
            connection = by_number[number]
            answer = connection.read()
            now = time.perf_counter()
            if answer is None:
                continue
            if now >= counts_from:
                taken.append(now - connection.sent)
                failed += answer[0] != 200
            connection.send(next(upcoming))
        now = time.perf_counter()
    for connection in by_number.values():
        connection.close()
    median, p99 = np.quantile(taken, [0.5, 0.99]).tolist()
    return Load(connections, len(taken) / (now - counts_from), median, p99, failed)


def load_from_another_process(port: int, requests: Path, connections: int, seconds: float) -> Load:
    """Run `closed_loop` in a process of its own.

    Raises:
        subprocess.CalledProcessError: it could not be run to its end.
    """
    command = [sys.executable, "-m", "bench.load", "--requests", str(requests), "--port", str(port)]
    command += ["--connections", str(connections), "--seconds", str(seconds)]
    environment = os.environ | {"PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}"}
    ended = subprocess.run(command, check=True, stdout=subprocess.PIPE, cwd=ROOT, env=environment)
    return Load(**json.loads(ended.stdout))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=Path, required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--connections", type=int, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    options = parser.parse_args()
    requests = [path.read_bytes() for path in sorted(options.requests.iterdir())]
    print(json.dumps(asdict(closed_loop(options.port, requests, options.connections, options.seconds))))


if __name__ == "__main__":
    main()
