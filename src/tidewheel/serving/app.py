"""The server as a plain ASGI application: routes of the Open Inference Protocol v2 over the models of one bundle."""

from __future__ import annotations

import json
import time
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any

import numpy as np

from tidewheel import __version__
from tidewheel.contracts.schema import DType, FeatureKind, FeatureSpec, feature_columns
from tidewheel.errors import ContractError
from tidewheel.ranker.bundle import OpenBundle
from tidewheel.ranker.scorer import Scorer, Scores
from tidewheel.serving.hybrid_log import HybridLog
from tidewheel.serving.metrics import ServingMetrics
from tidewheel.serving.protocol import LENGTH_HEADER, BinaryBody, InferRequest, decode_request, encode_response, json_size
from tidewheel.serving.rows import TENSORS, parse_events, served

MAX_BODY_BYTES = 8 * 1024 * 1024
MAX_EVENT_BYTES = 1024 * 1024
EVENTS_PATH = "/v2/events"
BUNDLE_HEADER = b"tidewheel-bundle"
FEATURES_HEADER = b"tidewheel-features"
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


class HttpError(Exception):
    """An answer other than 200; its text is for the caller."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class ServingApp:
    """Scores with the models of one bundle, whose version stands in every answer. One event loop, one thread.

    A request is scored where it is read: handing a few hundred microseconds of work to another thread costs more.
    With a `log`, requests that carry `parameters` and events of clients are written down.
    """

    def __init__(self, bundle: OpenBundle, threads: int = 1, log: HybridLog | None = None) -> None:
        self.bundle = bundle
        self.log = log
        self.features = feature_columns(bundle.manifest.features)
        self.sequences = {name: f.length for f in bundle.manifest.features if f.is_sequence for name in f.columns}
        self.scorers = {name: Scorer(bundle, threads, name) for name in bundle.manifest.models}
        self.metrics = ServingMetrics(bundle.digest, bundle.manifest.labels, log)
        self._version = (
            (BUNDLE_HEADER, bundle.digest.encode()),
            (FEATURES_HEADER, bundle.manifest.feature_digest.encode()),
        )

    def warm_up(self) -> None:
        """Make the sessions and score one row of unknown values, so that the first user does not wait for it."""
        columns = {name: _unknown(feature) for feature in self.bundle.manifest.features for name in feature.columns}
        for scorer in self.scorers.values():
            scorer.score(columns)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            raise RuntimeError(f"only http is served, not {scope['type']}")
        try:
            body, kind = await self._answer(scope, receive), b"application/json"
            status = 202 if scope["path"] == EVENTS_PATH else 200
        except HttpError as error:
            status, body, kind = error.status, json.dumps({"error": str(error)}).encode(), b"application/json"
        if scope["path"] == "/metrics" and status == 200:
            kind = b"text/plain; version=0.0.4; charset=utf-8"
        headers = [(b"content-type", kind), (b"content-length", str(len(body)).encode()), *self._version]
        if isinstance(body, BinaryBody):
            headers[0] = (b"content-type", b"application/octet-stream")
            headers.append((LENGTH_HEADER, str(body.json_size).encode()))
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    async def _answer(self, scope: Scope, receive: Receive) -> bytes:
        method, path = scope["method"], scope["path"]
        parts = path.strip("/").split("/")
        if parts[:2] == ["v2", "models"] and len(parts) == 4 and parts[3] == "infer":
            if method != "POST":
                raise HttpError(405, f"{path}: expected POST, found {method}")
            return await self._infer(parts[2], scope["headers"], receive)
        if path == EVENTS_PATH:
            return await self._take_events(method, receive)
        if method not in ("GET", "HEAD"):
            raise HttpError(405, f"{path}: expected GET, found {method}")
        if path == "/metrics":
            return self.metrics.text()
        return json.dumps(self._describe(parts, path)).encode()

    def _describe(self, parts: list[str], path: str) -> dict[str, Any]:
        match parts:
            case ["v2"]:
                return {"name": "tidewheel", "version": __version__, "extensions": ["binary_tensor_data"]}
            case ["v2", "health", "live"]:
                return {"live": True}
            case ["v2", "health", "ready"]:
                return {"ready": True}  # the socket is bound only after the warm-up
            case ["v2", "models", name]:
                self._scorer(name)
                return self._metadata(name)
            case ["v2", "models", name, "ready"]:
                self._scorer(name)
                return {"name": name, "ready": True}
        raise HttpError(404, f"{path}: no such address; models are under /v2/models/{{{','.join(self.scorers)}}}")

    def _metadata(self, name: str) -> dict[str, Any]:
        manifest = self.bundle.manifest
        return {
            "name": name,
            "versions": [self.bundle.digest],
            "platform": "onnx",
            "inputs": [
                {"name": name, "datatype": _DATATYPES[f.dtype], "shape": [-1, f.length] if f.is_sequence else [-1]}
                for f in manifest.features
                for name in f.columns
            ],
            "outputs": [output.model_dump() for output in manifest.models[name].outputs],
            "parameters": {"feature_digest": manifest.feature_digest},
        }

    def _scorer(self, name: str) -> Scorer:
        if name not in self.scorers:
            raise HttpError(404, f"model {name} is unknown; this bundle has {', '.join(self.scorers)}")
        return self.scorers[name]

    async def _infer(self, name: str, headers: Headers, receive: Receive) -> bytes:
        try:
            scorer = self._scorer(name)
            body = await _whole_body(receive)
            started = time.perf_counter()
            beside = TENSORS if self.log else ()
            digest = self.bundle.manifest.feature_digest
            request = decode_request(body, self.features, digest, beside, self.sequences, json_size(headers))
            scores = scorer.score(request.columns)
            if self.log is None or request.parameters is None:
                answer = encode_response(name, self.bundle.digest, request, scores)
            else:
                answer = self._logged(name, request, scores, self.log)
        except ContractError as error:
            self.metrics.refused(400)
            raise HttpError(400, str(error)) from error
        except ValueError as error:
            self.metrics.refused(500)
            raise HttpError(500, f"scores are not finite: {error}") from error
        except HttpError as error:
            self.metrics.refused(error.status)
            raise
        self.metrics.answered(time.perf_counter() - started, scores)
        return answer

    def _logged(self, name: str, request: InferRequest, scores: Scores, log: HybridLog) -> bytes:
        """The answer, with what its events have to send back; its candidates are in the log's queue."""
        row = served(request, scores, log.clock())
        back = {"request_id": row.parameters.request_id, "served_time": row.served_time.isoformat()}
        answer = encode_response(name, self.bundle.digest, request, scores, back)
        log.write_served(row)  # where the queue is full: counted, and answered all the same
        return answer

    async def _take_events(self, method: str, receive: Receive) -> bytes:
        if self.log is None:
            raise HttpError(404, f"{EVENTS_PATH}: this server has no log; start it with --log DIR")
        if method != "POST":
            raise HttpError(405, f"{EVENTS_PATH}: expected POST, found {method}")
        body = await _whole_body(receive, MAX_EVENT_BYTES)
        now = self.log.clock()
        try:
            events, num_refused, reason = parse_events(body, now)
        except ContractError as error:
            raise HttpError(400, str(error)) from error
        if not self.log.write_events(events, now):
            raise HttpError(503, "events: the queue of the log is full; send them again later")
        self.metrics.refused_events(num_refused)
        return json.dumps({"accepted": len(events), "refused": num_refused, "first_refusal": reason}).encode()


async def _whole_body(receive: Receive, max_bytes: int = MAX_BODY_BYTES) -> bytes:
    parts: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise HttpError(400, "the caller hung up before the request was whole")
        part = message.get("body", b"")
        size += len(part)
        if size > max_bytes:
            raise HttpError(413, f"request is larger than {max_bytes} bytes; send less at once")
        parts.append(part)
        if not message.get("more_body", False):
            return b"".join(parts) if len(parts) > 1 else part


def _unknown(feature: FeatureSpec) -> np.ndarray:
    if feature.kind is FeatureKind.NUMERIC:
        return np.array([np.nan])
    if feature.is_sequence:
        return np.empty((1, 0), dtype=np.int64)
    return np.array([0]) if feature.kind is FeatureKind.HASHED else np.array([None], dtype=object)
