"""Requests that nobody should send, for a server that must not mind: made by hypothesis, sent over real sockets."""

from __future__ import annotations

import copy
import json
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from hypothesis import strategies as st

from tidewheel.contracts.schema import Entity, FeatureKind, FeatureSpec

LEAKS = (b"Traceback", b'File "', b"site-packages", b".py")
ALIVE = b'{"ready": true}'
INFER = "/v2/models/ranker/infer"
ANSWER_SECONDS = 20.0  # no answer and no end of the connection: the server hangs
CANDIDATES = 3
LARGEST_KEPT = 500_000  # bytes: the server may cut off what is larger
LONG = "x" * 5000

NASTY: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 0.5, -0.0, 1e308, -1e308, 5e-324, float("nan"), float("inf"), float("-inf")),
    *(2**31, 2**53 + 1, 2**63 - 1, -(2**63), 2**63, 2**64, 10**30, 10**400, 10**4000),
    *("", "a", "NaN", "1e999", "\x00", "\ud800", "\u202e", LONG, "INT64", "FP32", "BYTES", "FP16", "click", "user_id"),
    *([], {}, [[]], [{}], [None], [[1], [2]], [[1], 2], [[[1]]], [1, 2, 3], [1.5], ["a"], [True], {"a": 1}, {"data": []}),
    *([3], [3, 1], [1, 3], [0], [-1], [2**40, 0], [2**70, 0], [10**9], ["3"], [3.0], list(range(50)), [1] * 20_000),
)
METHODS = ("GET", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH", "TRACE", "PROPFIND", "get", "POST")
PATHS = (
    *("/", "//", "/v2", "/v2/", "/v2/models", "/v2/models/", "/v2/models/ranker", "/v2/models/other/infer", "/v2/health/ready"),
    *("/v2/models/ranker/versions", "/v2/models/ranker/versions/12345678/infer", "/v2/models/ranker/versions/../infer"),
    *(
        "/v2/models/../../etc/passwd",
        "/v2/models/%2e%2e%2f%2e%2e/infer",
        "/v2/models/ranker%00/infer",
        "/v2/models/%ff%fe/infer",
    ),
    *("/v2/models/ranker/infer/", "/v2//models//ranker//infer", "/v2/models/ranker/infer?a=b", "/v2/models/ranker/infer#x"),
    *("*", "http://elsewhere/v2/health/live", "/metrics", "/metrics/../v2", "/" + "a" * 9000, "/%", "/%zz", "/v2/events"),
    *("/v2/models/ranker/versions/" + "0" * 64, "/v2/models/ranker/versions/zz/infer", "/.env", "/v2/health/live/extra"),
)
RAW = (
    *(
        b"",
        b"\r\n\r\n",
        b"\x00" * 100,
        b"GET",
        b"GET /",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET / HTTP/1.1\n\n",
        b"\x16\x03\x01\x02\x00\x01",
    ),
    *(
        b"GET  /  HTTP/1.1\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"CONNECT a:1 HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.0\r\n\r\n",
    ),
    *(b"POST %s HTTP/1.1\r\nContent-Length: -1\r\n\r\n", b"POST %s HTTP/1.1\r\nContent-Length: 99999999999999999999\r\n\r\n"),
    *(
        b"POST %s HTTP/1.1\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nabcdef",
        b"POST %s HTTP/1.1\r\nContent-Length: 10000000\r\n\r\n{}",
    ),
    *(
        b"POST %s HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"POST %s HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nffffffff\r\n{}",
    ),
    *(
        b"POST %s HTTP/1.1\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
        b"POST %s HTTP/1.1\r\n: a\r\n\r\n",
    ),
    *(b"GET /v2 HTTP/1.1\r\nA" + b"a" * 70_000 + b": b\r\n\r\n", b"GET /v2 HTTP/1.1\r\n" + b"a: b\r\n" * 300 + b"\r\n"),
    *(b"GET /v2 HTTP/1.1\r\nA: \xff\xfe\r\n\r\n", b"GET /v2 HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nabc"),
    *(b"POST %s HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n{}", b"GET /\xff\xfe HTTP/1.1\r\n\r\n"),
    *(
        b"POST %s HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n" + b"t: v\r\n" * 400 + b"\r\n",
        b"GET /v2 HTTP/1.1\r\nA : b\r\n\r\n",
    ),
    *(
        b"POST %s HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: h2c\r\nContent-Length: 2\r\n\r\n{}",
        b"GET /v2 HTTP/1.1\r\n\r\n" * 200,
    ),
)


@dataclass(frozen=True)
class Exchange:
    """Bytes for one connection; `is_whole`: one well-formed request, whose connection goes on. `ending` of the others: the
    caller closes its half, hangs up, or waits for the server to lose patience."""

    kind: str
    data: bytes
    is_whole: bool = False
    ending: str = "half"

    def __repr__(self) -> str:
        return f"{self.kind} of {len(self.data)} bytes, {self.ending}: {self.data[:1500]!r}"

    @classmethod
    def valid(cls, document: dict[str, Any]) -> Exchange:
        return cls("valid", post(json.dumps(document).encode()), is_whole=True)


def valid_document(features: Sequence[FeatureSpec], candidates: int = CANDIDATES) -> dict[str, Any]:
    """A request that is answered with scores: one value a feature of the user, one a candidate of an item's."""
    inputs = []
    for feature in features:
        size = candidates if feature.entity is Entity.ITEM else 1
        if feature.is_sequence:
            inputs += [{"name": name, "datatype": "INT64", "shape": [1, 1], "data": [1]} for name in feature.columns]
            continue
        datatype, value = {FeatureKind.NUMERIC: ("FP64", 1.5), FeatureKind.HASHED: ("INT64", 7)}.get(
            feature.kind, ("BYTES", "a")
        )
        inputs.append({"name": feature.name, "datatype": datatype, "shape": [size], "data": [value] * size})
    named = {tensor["name"] for tensor in inputs}
    inputs += [
        {"name": name, "datatype": "INT64", "shape": [1], "data": [3]} for name in ("user_id", "item_id") if name not in named
    ]
    return {"id": "1", "inputs": inputs, "outputs": [], "parameters": {"request_id": "r"}}


def post(body: bytes, path: str = INFER, method: str = "POST", headers: bytes = b"") -> bytes:
    """One request as it stands on the wire."""
    line = f"{method} {path} HTTP/1.1\r\nHost: here\r\nContent-Length: {len(body)}\r\n".encode("utf-8", "surrogatepass")
    return line + headers + b"\r\n" + body


_leaves = st.one_of(st.sampled_from(NASTY), st.integers(), st.floats(), st.text(max_size=8))
_values = st.one_of(_leaves, st.lists(_leaves, max_size=4), st.dictionaries(st.text(max_size=5), _leaves, max_size=3))


def _dumped(document: Any) -> bytes:
    return json.dumps(document, default=str).encode("utf-8", "surrogatepass")


@st.composite
def _mutated(draw: st.DrawFn, document: dict[str, Any]) -> Exchange:
    """A good request with one to three values replaced, taken out or added."""
    changed = copy.deepcopy(document)
    for _ in range(draw(st.integers(1, 3))):
        value = copy.deepcopy(draw(_values))
        tensors = changed.get("inputs")
        where = draw(st.integers(0, 9))
        if where == 0:
            changed[draw(st.sampled_from(["id", "inputs", "outputs", "parameters", "more"]))] = value
        elif where == 1:
            key = draw(st.sampled_from(["user_id", "request_id", "propensity", "is_randomized", "feature_digest", "other"]))
            changed["parameters"] = {key: value}
        elif where == 2:
            changed["outputs"] = [{"name": value}] * draw(st.sampled_from([1, 2, 50]))
        elif isinstance(tensors, list) and tensors:
            at = draw(st.integers(0, len(tensors) - 1))
            if not isinstance(tensors[at], dict):
                continue
            key = draw(st.sampled_from(["name", "datatype", "shape", "data", "data", "element", "element", "more", "gone"]))
            data = tensors[at].get("data")
            if key == "gone":
                del tensors[at]
            elif key != "element":
                tensors[at][key] = value
            elif isinstance(data, list) and data:
                data[draw(st.integers(0, len(data) - 1))] = value
    return Exchange("mutated", post(_dumped(changed)), is_whole=True)


@st.composite
def _events(draw: st.DrawFn) -> Exchange:
    event: dict[str, Any] = {"request_id": "r", "served_time": "2026-01-05T12:00:00+00:00", "item_id": 7, "event": "click"}
    event |= {"logging_rate": 1.0, "event_time": "2026-01-05T12:00:09+00:00"}
    for _ in range(draw(st.integers(0, 2))):
        event[draw(st.sampled_from([*event, "more"]))] = copy.deepcopy(draw(_values))
    body = draw(st.sampled_from([[event], event, [event] * 3, [[event]], [event, 1], [event] * 1001]))
    return Exchange("events", post(_dumped(body), "/v2/events"), is_whole=True)


@st.composite
def _broken(draw: st.DrawFn, body: bytes) -> Exchange:
    """A good body, cut or with other bytes in it, or none at all."""
    how = draw(st.integers(0, 4))
    at = draw(st.integers(0, len(body)))
    if how == 0:
        body = body[:at]
    elif how == 1:
        body = body[:at] + draw(st.binary(min_size=1, max_size=6)) + body[at + draw(st.integers(0, 4)) :]
    elif how == 2:
        body = draw(st.binary(max_size=64))
    elif how == 3:
        body = draw(st.sampled_from([b"[", b'{"inputs":[', b'{"a":', b"[1,", b"-"])) * draw(
            st.sampled_from([1, 999, 5000, 100_000])
        )
    else:
        body = body.replace(b"1.5", draw(st.sampled_from([b"1e999", b"NaN", b"Infinity", b"1" * 5000, b"01", b"0x1", b"1."])))
    return Exchange("broken", post(body), is_whole=True)


@st.composite
def _routed(draw: st.DrawFn, body: bytes, digest: str) -> Exchange:
    """Other paths, methods and versions."""
    path = draw(
        st.sampled_from(PATHS)
        | st.text(st.characters(codec="ascii", exclude_categories=["Cc", "Z"]), max_size=12).map("/v2/".__add__)
    )
    method = draw(st.sampled_from(METHODS))
    named = draw(st.sampled_from([digest, digest[:8], digest[:7], digest.upper(), "0" * 64, "zz", "../..", "a" * 3000, "\xff"]))
    headers = draw(st.sampled_from([b"", b"tidewheel-bundle: " + named.encode("latin-1") + b"\r\n"]))
    sent = post(body, path, method, headers)
    return Exchange("routed", sent)


@st.composite
def _cut(draw: st.DrawFn, document: dict[str, Any]) -> Exchange:
    """A caller that closes its half, hangs up, sends several at once, or falls silent in the middle."""
    data = Exchange.valid(document).data
    how = draw(st.integers(0, 99))
    at = draw(st.integers(1, len(data)))
    if how == 57:  # not a bound, which is drawn more often: each of these takes as long as the server waits
        return Exchange("silent", data[: max(at, 20)], ending="wait") if at < len(data) else Exchange("half", data)
    if how < 40:
        return Exchange("half", data[:at])
    if how < 60:
        return Exchange("hung up", data[:at], ending="hang up")
    return Exchange("pipelined", data * draw(st.integers(2, 5)) + data[: at if how < 80 else 0])


def _large() -> st.SearchStrategy[Exchange]:
    """Bodies beyond the limit, and below it but costly."""
    bodies = (
        b"[" + b"1," * 300_000 + b"1]",
        b"[" + b"{}," * 200_000 + b"{}]",
        b" " * 3_000_000,
        b'"' + b"a" * 1_500_000 + b'"',
    )
    return st.sampled_from(bodies).map(lambda body: Exchange("large", post(body)))


def exchanges(document: dict[str, Any], digest: str) -> st.SearchStrategy[Exchange]:
    """All of them, the cheap ones far more often."""
    body = json.dumps(document).encode()
    raw = (st.sampled_from(RAW) | st.binary(max_size=80)).map(lambda data: Exchange("raw", data.replace(b"%s", INFER.encode())))
    kinds = {
        "mutated": _mutated(document),
        "broken": _broken(body),
        "events": _events(),
        "routed": _routed(body, digest),
        "raw": raw,
        "cut": _cut(document),
        "large": _large(),
    }
    weights = {"mutated": 90, "broken": 40, "events": 20, "routed": 30, "raw": 30, "cut": 30, "large": 1}
    named = [name for name, weight in weights.items() for _ in range(weight)]
    return st.sampled_from(named).flatmap(lambda name: kinds[name])


class Wire:
    """Sends exchanges to one server and reads every answer. Well-formed requests share one connection."""

    def __init__(self, url: str) -> None:
        place = urlsplit(url)
        self._place = (place.hostname or "", place.port or 80)
        self._kept: socket.socket | None = None

    def exchange(self, exchange: Exchange) -> list[tuple[int, bytes]]:
        """Status and body of each answer."""
        if exchange.is_whole and len(exchange.data) <= LARGEST_KEPT:
            return [self._kept_exchange(exchange.data)]
        with socket.create_connection(self._place, ANSWER_SECONDS) as connection:
            try:
                connection.sendall(exchange.data)
                if exchange.ending == "hang up":
                    return []
                if exchange.ending == "half":
                    connection.shutdown(socket.SHUT_WR)
            except OSError:  # cut off while it sent; what was said before that can be read
                exchange = Exchange(exchange.kind, b"")
            return _all_answers(connection)

    def _kept_exchange(self, data: bytes) -> tuple[int, bytes]:
        for _ in range(2):  # the server may have closed what was kept
            connection = self._kept or socket.create_connection(self._place, ANSWER_SECONDS)
            is_fresh, self._kept = self._kept is None, connection
            try:
                connection.sendall(data)
                answer, is_last = _one_answer(connection)
            except (OSError, EOFError):
                connection.close()
                self._kept = None
                if is_fresh:
                    raise
                continue
            if is_last:
                connection.close()
                self._kept = None
            return answer
        raise EOFError("the server closes every connection")


def _one_answer(connection: socket.socket) -> tuple[tuple[int, bytes], bool]:
    """The next answer, and whether the connection ends with it."""
    data = b""
    while b"\r\n\r\n" not in data:
        data += _more(connection)
    head, _, body = data.partition(b"\r\n\r\n")
    lines = head.lower().split(b"\r\n")
    length = next(int(line.split(b":")[1]) for line in lines if line.startswith(b"content-length"))
    while len(body) < length:
        body += _more(connection)
    return (int(lines[0].split()[1]), body), b"connection: close" in lines


def _more(connection: socket.socket) -> bytes:
    part = connection.recv(65536)
    if not part:
        raise EOFError("closed")
    return part


def _all_answers(connection: socket.socket) -> list[tuple[int, bytes]]:
    """What the server says until it closes."""
    data = b""
    try:
        while part := connection.recv(65536):
            data += part
    except ConnectionError:  # closed while we still sent
        data += b""
    found = []
    while data.startswith(b"HTTP/1.1 "):
        head, _, data = data.partition(b"\r\n\r\n")
        lines = head.lower().split(b"\r\n")
        status = int(lines[0].split()[1])
        length = next((int(line.split(b":")[1]) for line in lines if line.startswith(b"content-length")), 0)
        body, rest = data[:length], data[length:]
        if body.startswith(b"HTTP/1.1 "):  # an answer to HEAD has none
            body, rest = b"", data
        if status >= 200:
            found.append((status, body if len(body) == length else b""))
        data = rest
    return found
