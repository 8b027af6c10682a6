"""A caller that speaks HTTP by hand, as no client library would."""

from __future__ import annotations

import json
import socket
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

ANSWER_SECONDS = 30.0
INFER = "/v2/models/ranker/infer"


class Wire:
    """One connection."""

    def __init__(self, url: str) -> None:
        place = urlsplit(url)
        self._socket = socket.create_connection((place.hostname or "", place.port or 80), ANSWER_SECONDS)
        self._data = b""

    def send(self, data: bytes) -> Self:
        self._socket.sendall(data)
        return self

    def close_half(self) -> Self:
        self._socket.shutdown(socket.SHUT_WR)
        return self

    def answer(self) -> tuple[int, dict[str, str], bytes]:
        """Status, headers and body of the next answer.

        Raises:
            EOFError: the server closed instead.
        """
        while b"\r\n\r\n" not in self._data:
            self._more()
        head, _, self._data = self._data.partition(b"\r\n\r\n")
        line, *fields = head.decode().split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (one.partition(":") for one in fields)}
        length = int(headers.get("content-length", 0))
        while len(self._data) < length:
            self._more()
        body, self._data = self._data[:length], self._data[length:]
        return int(line.split()[1]), headers, body

    def error(self) -> tuple[int, str]:
        """Status of the next answer and the reason in it."""
        status, _, body = self.answer()
        return status, json.loads(body)["error"]

    def is_closed(self) -> bool:
        """Whether the server closes without another word; waits for it."""
        try:
            self._more()
        except EOFError:
            return True
        return False

    def _more(self) -> None:
        try:
            part = self._socket.recv(65536)
        except ConnectionResetError:
            part = b""
        if not part:
            raise EOFError("the server closed")
        self._data += part

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._socket.close()


def head(length: int, path: str = INFER, more: str = "") -> bytes:
    """The headers of a POST."""
    return f"POST {path} HTTP/1.1\r\nHost: here\r\nContent-Length: {length}\r\n{more}\r\n".encode()


def get(path: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: here\r\n\r\n".encode()


def metric(text: bytes, name: str, *labels: str) -> float:
    """Sum of the lines of a metric that have these labels."""
    lines = text.decode().splitlines()
    found = [line for line in lines if line.split("{")[0].split(" ")[0] == name and all(label in line for label in labels)]
    return sum(float(line.split()[-1]) for line in found)
