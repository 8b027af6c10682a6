"""The server as a plain ASGI application: routes of the Open Inference Protocol v2 over the bundles that are resident."""

from __future__ import annotations

import asyncio
import json
import sys
import time
import traceback
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from dataclasses import dataclass, field
from typing import Any

from tidewheel import __version__
from tidewheel.contracts.schema import DType
from tidewheel.errors import ContractError
from tidewheel.ranker.scorer import Scores
from tidewheel.serving.gate import Gate, HttpError, Limits, Turns
from tidewheel.serving.log_process import LogProcess
from tidewheel.serving.metrics import LogCounters, ServingMetrics, VersionCounts
from tidewheel.serving.protocol import (
    LENGTH_HEADER,
    BinaryBody,
    InferRequest,
    decode_request,
    encode_response,
    json_size,
    read_request,
)
from tidewheel.serving.rows import TENSORS, loggable, parse_events
from tidewheel.serving.versions import Table, Version

EVENTS_PATH = "/v2/events"
BUNDLE_HEADER = b"tidewheel-bundle"
MAX_REQUEST_ID = 256  # characters; it goes into every row of the log
_JSON = b"application/json"
_TEXT = b"text/plain; version=0.0.4; charset=utf-8"
# Integers have one width on the wire.
_DATATYPES = {
    DType.INT32: "INT64",
    DType.INT64: "INT64",
    DType.FLOAT32: "FP32",
    DType.FLOAT64: "FP64",
    DType.STRING: "BYTES",
}

Scope = MutableMapping[str, Any]
Headers = Iterable[tuple[bytes, bytes]]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


@dataclass(frozen=True)
class Reply:
    """An answer; `version` is the one that it names."""

    body: bytes
    version: Version
    status: int = 200
    kind: bytes = _JSON


@dataclass
class Reading:
    """One request while it is read: how many bytes it holds, and how long that took."""

    gate: Gate
    held: int = 0
    started: float = field(default_factory=time.perf_counter)

    async def body(self, receive: Receive, max_bytes: int) -> bytes:
        """All of the body.

        Raises:
            HttpError: 408, 413 or 429: it is slow, large, or there is no room; 400: the caller hung up.
        """
        parts: list[bytes] = []
        seconds = self.gate.limits.body_seconds
        try:
            async with asyncio.timeout(seconds):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise HttpError(400, "the caller hung up before the request was whole")
                    part = message.get("body", b"")
                    if self.held + len(part) > max_bytes:
                        raise HttpError(413, f"request is larger than {max_bytes} bytes; send less at once")
                    self.gate.take(len(part))
                    self.held += len(part)
                    parts.append(part)
                    if not message.get("more_body", False):
                        return b"".join(parts) if len(parts) > 1 else part
        except TimeoutError as error:
            raise HttpError(408, f"the request was not whole after {seconds:g} seconds", is_last=True) from error

    def release(self) -> None:
        self.gate.give(self.held)


class ServingApp:
    """Scores with the bundles of a table; each answer names its bundle. One event loop, one thread.

    A request is scored where it is read: handing a few hundred microseconds of work to another thread costs more. From the
    choice of its bundle to its answer nothing waits, so `install` finds no request between the two.
    """

    def __init__(self, table: Table, limits: Limits | None = None) -> None:
        self.limits = limits or Limits()
        self.gate = Gate(self.limits)
        self._turns = Turns()
        self.table = Table({})
        self.metrics = ServingMetrics(self.gate, lambda: self.table.shares)
        self.is_draining = False
        self.install(table)

    def install(self, table: Table) -> None:
        """Make this the table that serves, from the next request on."""
        before, self.table = self.table, table
        metrics = self.metrics
        for digest in before.versions:
            if digest not in table.versions:
                del metrics.versions[digest]
        for digest, version in table.versions.items():
            if digest in before.versions:
                continue
            metrics.versions[digest] = VersionCounts(version.manifest.labels, version.features)
            if version.log is not None:
                metrics.log = metrics.log or LogCounters()
                metrics.log.open(version.log)
        metrics.swaps += bool(before.versions)
        metrics.assignment_number = table.assignment.number if table.assignment else 0

    def close(self) -> None:
        """Write what the logs still hold. Called when nothing is answered any more."""
        for version in self.table.versions.values():
            version.close()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            raise RuntimeError(f"only http is served, not {scope['type']}")
        more: list[tuple[bytes, bytes]] = [(b"connection", b"close")] if self.is_draining else []
        try:
            reply = await self._reply(scope, receive)
        except HttpError as error:
            reply = Reply(json.dumps({"error": str(error)}).encode(), self.table.main, error.status)
            more += error.headers
        kind = reply.kind
        if isinstance(reply.body, BinaryBody):
            kind = b"application/octet-stream"
            more.append((LENGTH_HEADER, str(reply.body.json_size).encode()))
        headers = [(b"content-type", kind), (b"content-length", str(len(reply.body)).encode())]
        await send(
            {"type": "http.response.start", "status": reply.status, "headers": [*headers, *reply.version.headers, *more]}
        )
        await send({"type": "http.response.body", "body": reply.body})

    async def _reply(self, scope: Scope, receive: Receive) -> Reply:
        """Admit the request, answer it, and count it where it was one for scores."""
        method, path = scope["method"], scope["path"]
        parts = path.strip("/").split("/")
        is_infer = parts[:2] == ["v2", "models"] and parts[-1] == "infer"
        reading = Reading(self.gate)
        is_admitted = scope.get("is_admitted")
        try:
            if is_admitted is False:
                raise self.gate.refusal()
            return await self._answer(scope, parts, receive, reading)
        except HttpError as error:
            if is_infer:
                self.metrics.refused(error.status)
            raise
        except Exception as error:
            traceback.print_exc(file=sys.stderr)  # a bug: for the operator, not for the caller
            if is_infer:
                self.metrics.refused(500)
            raise HttpError(500, "the server failed on this request; its operator finds why in its log") from error
        finally:
            reading.release()
            if is_admitted and method == "POST":
                self.gate.leave()

    async def _answer(self, scope: Scope, parts: list[str], receive: Receive, reading: Reading) -> Reply:
        method, path, asked = scope["method"], scope["path"], _asked(scope)
        match parts:
            case ["v2", "models", name, "infer"]:
                _expect(method, path, "POST")
                return await self._infer(name, asked, scope["headers"], receive, reading)
            case ["v2", "models", name, "versions", digest, "infer"]:
                _expect(method, path, "POST")
                return await self._infer(name, digest, scope["headers"], receive, reading)
        if path == EVENTS_PATH:
            return await self._take_events(method, receive, reading)
        _expect(method, path, "GET", "HEAD")
        match parts:
            case ["metrics"]:
                return Reply(self.metrics.text(), self.table.main, kind=_TEXT)
            case ["v2", "health", "live"]:
                return self._state("live", self._is_live())
            case ["v2", "health", "ready"]:
                return self._state("ready", self._is_live() and not self.is_draining)
            case ["v2"]:
                return self._say({"name": "tidewheel", "version": __version__, "extensions": ["binary_tensor_data"]})
            case ["v2", "models"]:
                return self._say({"models": list(self.table.main.models)})
            case ["v2", "models", name]:
                return self._describe(name, self.table.named(asked) if asked else self.table.main)
            case ["v2", "models", name, "versions", digest]:
                return self._describe(name, self.table.named(digest))
            case ["v2", "models", name, "ready"]:
                return self._model_state(name, self.table.named(asked) if asked else self.table.main)
            case ["v2", "models", name, "versions", digest, "ready"]:
                return self._model_state(name, self.table.named(digest))
        models = ",".join(self.table.main.models)
        raise HttpError(404, f"{path}: no such address; models are under /v2/models/{{{models}}}")

    def _say(self, document: dict[str, Any], version: Version | None = None, status: int = 200) -> Reply:
        return Reply(json.dumps(document).encode(), version or self.table.main, status)

    def _is_live(self) -> bool:
        """The event loop turns, or nobody would be asking; what may be dead is the thread of a log."""
        return all(version.log is None or version.log.is_writing for version in self.table.versions.values())

    def _state(self, name: str, is_so: bool) -> Reply:
        return self._say({name: is_so}, status=200 if is_so else 503)

    def _model_state(self, name: str, version: Version) -> Reply:
        version.scorer(name)
        is_ready = not self.is_draining
        return self._say({"name": name, "ready": is_ready}, version, 200 if is_ready else 503)

    def _describe(self, name: str, version: Version) -> Reply:
        version.scorer(name)
        manifest = version.manifest
        model = manifest.models.get(name) or next(iter(manifest.models.values()))  # a name given by --model-name
        document = {
            "name": name,
            "versions": list(self.table.versions),
            "platform": "onnx",
            "inputs": [
                {"name": column, "datatype": _DATATYPES[f.dtype], "shape": [-1, f.length] if f.is_sequence else [-1]}
                for f in manifest.features
                for column in f.columns
            ],
            "outputs": [output.model_dump() for output in model.outputs],
            "parameters": {"feature_digest": manifest.feature_digest, "shares": self.table.shares},
        }
        return self._say(document, version)

    async def _infer(self, name: str, asked: str, headers: Headers, receive: Receive, reading: Reading) -> Reply:
        body = await reading.body(receive, self.limits.max_body_bytes)
        arrived = time.perf_counter()
        await self._turns.take()
        began = time.perf_counter()  # nothing waits from here on
        self.gate.check_wait(began - arrived)
        try:
            size = json_size(headers)
            sent = read_request(body, size)
            version = self.table.named(asked) if asked else self.table.of_user(sent.user_id)
            scorer = version.scorer(name)
            beside = TENSORS if version.log else ()
            digest, most = version.manifest.feature_digest, self.limits.max_candidates
            request = decode_request(sent, version.features, digest, beside, version.sequences, most)
            decoded = time.perf_counter()
            scores = scorer.score(request.columns)
            scored = time.perf_counter()
            if version.log is None or request.parameters is None:
                answer = encode_response(name, version.digest, request, scores)
            else:
                answer = self._logged(name, version.digest, request, scores, version.log, body, size)
        except ContractError as error:
            raise HttpError(400, str(error)) from error
        ended = time.perf_counter()
        stages = (arrived - reading.started, began - arrived, decoded - began, scored - decoded, ended - scored)
        self.metrics.answered(stages, version.digest, request, scores)
        return Reply(answer, version)

    def _logged(
        self, name: str, digest: str, request: InferRequest, scores: Scores, log: LogProcess, body: bytes, size: int | None
    ) -> bytes:
        """The answer, with what its events have to send back; its candidates are in the log's queue."""
        if len(request_id := loggable(request, len(next(iter(scores.values()))))) > MAX_REQUEST_ID:
            raise ContractError(f"parameters.request_id: longer than {MAX_REQUEST_ID} characters")
        now = log.clock().isoformat()
        answer = encode_response(name, digest, request, scores, {"request_id": request_id, "served_time": now})
        log.write_served(request_id, now, body, size, scores)  # no room: counted, and answered all the same
        return answer

    async def _take_events(self, method: str, receive: Receive, reading: Reading) -> Reply:
        if self.table.main.log is None:
            raise HttpError(404, f"{EVENTS_PATH}: this server has no log; start it with --log DIR")
        _expect(method, EVENTS_PATH, "POST")
        body = await reading.body(receive, self.limits.max_event_bytes)
        version = self.table.main  # another one, maybe, than before the body was whole
        assert version.log is not None
        now = version.log.clock()
        try:
            events, num_refused, reason = parse_events(body, now)
        except ContractError as error:
            raise HttpError(400, str(error)) from error
        if not version.log.write_events(body, len(events), now):
            raise HttpError(429, "events: the queue of the log is full; send them again later")
        self.metrics.refused_events(num_refused)
        return self._say({"accepted": len(events), "refused": num_refused, "first_refusal": reason}, version, 202)


def _asked(scope: Scope) -> str:
    """The version that the request's header names, or nothing."""
    for name, value in scope["headers"]:
        if name == BUNDLE_HEADER:
            return value.decode("latin-1").strip()
    return ""


def _expect(method: str, path: str, *allowed: str) -> None:
    if method not in allowed:
        raise HttpError(405, f"{path}: expected {allowed[0]}, found {method}")
