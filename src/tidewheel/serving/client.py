"""A client that keeps its connection: one a thread, as fast as the standard library is."""

from __future__ import annotations

import http.client
import json
import socket
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from tidewheel.errors import ContractError, RetryableError, TidewheelError
from tidewheel.serving.protocol import decode_parameters, decode_response, encode_request

TIMEOUT_SECONDS = 5.0
BUSY = (408, 429)  # refusals that a later try need not meet
_HEADERS = {"Content-Type": "application/json"}


@dataclass(frozen=True)
class Answer:
    """Scores label -> (C,) float32, the time until they were here, and the digest of the bundle that gave them.

    `parameters` are those of a server with a log, for a request that had some: `request_id` and `served_time`.
    """

    scores: Mapping[str, np.ndarray]
    latency_seconds: float
    bundle: str
    parameters: Mapping[str, Any] = field(default_factory=dict)


class Client:
    """Speaks to one server over one connection, which is opened when first needed. Not for use by two threads at once."""

    def __init__(self, url: str, model: str = "ranker", timeout_seconds: float = TIMEOUT_SECONDS) -> None:
        place = urlsplit(url)
        if place.scheme != "http" or place.hostname is None:
            raise ContractError(f"server {url}: expected http://HOST:PORT")
        self.url = url
        self._host, self._port = place.hostname, place.port or 80
        self._path = f"/v2/models/{model}/infer"
        self._timeout = timeout_seconds
        self._connection: http.client.HTTPConnection | None = None

    def infer(self, features: Mapping[str, np.ndarray], parameters: Mapping[str, Any] | None = None) -> Answer:
        """Score raw columns of length C or 1. `parameters` (see docs/hybrid-log.md) let a server with a log write it down.

        Raises:
            ContractError: the server refuses the request (4xx) or answers in another protocol.
            RetryableError: no answer in time, a broken connection, it is busy (429), or 5xx.
        """
        body = encode_request(features, parameters)
        started = time.perf_counter()
        status, answer, bundle = self._exchange("POST", self._path, body)
        latency = time.perf_counter() - started
        if status != 200:
            raise self._refusal(status, answer)
        return Answer(decode_response(answer), latency, bundle, decode_parameters(answer) if parameters is not None else {})

    def post_events(self, events: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Report what was seen and done: `{"accepted": n, "refused": m}`, with the reason of the first refusal.

        Raises:
            ContractError: the server takes no events, or not these.
            RetryableError: no answer, or its queue is full: send them again later.
        """
        status, answer, _ = self._exchange("POST", "/v2/events", json.dumps(events).encode())
        if status != 202:
            raise self._refusal(status, answer)
        return json.loads(answer)

    def _refusal(self, status: int, body: bytes) -> TidewheelError:
        text = f"server {self.url}: {status} {_error_of(body)}"
        return RetryableError(text) if status >= 500 or status in BUSY else ContractError(text)

    def get(self, path: str) -> tuple[int, bytes]:
        """Status and body of a GET.

        Raises:
            RetryableError: no answer.
        """
        status, body, _ = self._exchange("GET", path, None)
        return status, body

    def _exchange(self, method: str, path: str, body: bytes | None) -> tuple[int, bytes, str]:
        try:
            connection = self._connection or self._connect()
            connection.request(method, path, body, _HEADERS)
            response = connection.getresponse()
            return response.status, response.read(), response.headers.get("tidewheel-bundle", "")
        except (OSError, http.client.HTTPException) as error:
            self.close()  # whatever arrives late on it belongs to no later request
            raise RetryableError(f"server {self.url}: no answer ({type(error).__name__}: {error})") from error

    def _connect(self) -> http.client.HTTPConnection:
        connection = http.client.HTTPConnection(self._host, self._port, timeout=self._timeout)
        connection.connect()
        connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._connection = connection
        return connection

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def _error_of(body: bytes) -> str:
    try:
        return str(json.loads(body)["error"])
    except (ValueError, KeyError, TypeError):
        return body[:200].decode("utf-8", "replace")
