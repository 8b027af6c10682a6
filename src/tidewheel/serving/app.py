"""The server without its connections: routes of the Open Inference Protocol v2 over the bundles that are resident."""

from __future__ import annotations

import json
import sys
import time
import traceback
from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from tidewheel import __version__
from tidewheel.contracts.schema import DType
from tidewheel.errors import ContractError
from tidewheel.serving.gate import Gate, HttpError, Limits, Turns
from tidewheel.serving.metrics import LogCounters, ServingMetrics, VersionCounts
from tidewheel.serving.protocol import decode_request, encode_response, json_size, read_request
from tidewheel.serving.request import Reply, Request
from tidewheel.serving.rows import TENSORS, loggable, now_text, parse_events
from tidewheel.serving.siblings import Siblings
from tidewheel.serving.versions import Table, Version

EVENTS_PATH = "/v2/events"
BUNDLE_HEADER = b"tidewheel-bundle"
_TEXT = b"text/plain; version=0.0.4; charset=utf-8"
# Integers have one width on the wire.
_DATATYPES = {
    DType.INT32: "INT64",
    DType.INT64: "INT64",
    DType.FLOAT32: "FP32",
    DType.FLOAT64: "FP64",
    DType.STRING: "BYTES",
}


class ServingApp:
    """Scores with the bundles of a table; each answer names its bundle. One event loop, one thread.

    A request is scored where it is read: handing a few hundred microseconds of work to another thread costs more. From the
    choice of its bundle to its answer nothing waits, so `install` finds no request between the two.
    """

    def __init__(self, table: Table, limits: Limits | None = None, siblings: Siblings | None = None) -> None:
        self.limits = limits or Limits()
        self.gate = Gate(self.limits)
        self.turns = Turns()
        self._siblings = siblings
        self.date = b""  # a header; whoever serves keeps it
        self.table = Table({})
        self.metrics = ServingMetrics(self.gate, lambda: self.table.shares, siblings)
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

    def hand_over(self) -> None:
        """Give the logs' writers what they had no room for before."""
        for version in self.table.versions.values():
            if version.log is not None:
                version.log.hand_over()

    def tell(self) -> None:
        """Let the other processes of this server, and who watches over them, know how this one is. Once a second."""
        if self._siblings is not None:
            self._siblings.publish(self.metrics.families())
            if self.is_live:
                self._siblings.beat()

    def close(self) -> None:
        """Write what the logs still hold. Called when nothing is answered any more."""
        for version in self.table.versions.values():
            version.close()

    def expect(self, request: Request) -> None:
        """Say how large the body of a request may be of which the headers are there, and whether it is to be scored."""
        if request.method != "POST":
            return
        request.is_scored = _is_infer(request.parts)
        if request.is_scored:
            request.max_bytes = self.limits.max_body_bytes
        elif request.path == EVENTS_PATH and self.table.main.log is not None:
            request.max_bytes = self.limits.max_event_bytes

    def answer(self, request: Request) -> Reply:
        """Answer, and count it where it was one for scores. Never raises; nothing waits."""
        try:
            if request.fault is not None:
                raise request.fault
            reply = self._answer(request)
        except HttpError as error:
            self._refused(request, error.status)
            document = json.dumps({"error": str(error)}).encode()
            reply = Reply(document, self.table.main, error.status, more=error.headers, is_last=error.is_last)
        except Exception:
            traceback.print_exc(file=sys.stderr)  # a bug: for the operator, not for the caller
            self._refused(request, 500)
            reply = self._say({"error": "the server failed on this request; its operator finds why in its log"}, status=500)
        return replace(reply, is_last=True) if self.is_draining else reply

    def abandoned(self, request: Request) -> None:
        """Its caller hung up before it was answered."""
        self._refused(request, 400)

    def _refused(self, request: Request, status: int) -> None:
        if _is_infer(request.parts):
            self.metrics.refused(status)

    def _answer(self, request: Request) -> Reply:
        method, path, asked = request.method, request.path, _asked(request.headers)
        match request.parts:
            case ["v2", "models", name, "infer"]:
                _expect(method, path, "POST")
                return self._infer(name, asked, request)
            case ["v2", "models", name, "versions", digest, "infer"]:
                _expect(method, path, "POST")
                return self._infer(name, digest, request)
        if path == EVENTS_PATH:
            return self._take_events(request)
        _expect(method, path, "GET", "HEAD")
        match request.parts:
            case ["metrics"]:
                return Reply(self.metrics.text(), self.table.main, kind=_TEXT)
            case ["v2", "health", "live"]:
                return self._state("live", self.is_live)
            case ["v2", "health", "ready"]:
                return self._state("ready", self.is_live and not self.is_draining)
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

    @property
    def is_live(self) -> bool:
        """The event loop turns, or nobody would be asking; what may be dead is the writer of a log."""
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

    def _infer(self, name: str, asked: str, request: Request) -> Reply:
        began = time.perf_counter()
        self.gate.check_wait(began - request.arrived)
        try:
            sent = read_request(request.body, json_size(request.headers))
            version = self.table.named(asked) if asked else self.table.of_user(sent.user_id)
            scorer = version.scorer(name)
            log = None if sent.parameters is None else version.log
            digest, most = version.manifest.feature_digest, self.limits.max_candidates
            columns = decode_request(sent, version.features, digest, TENSORS if log else (), version.sequences, most)
            about = loggable(columns, scorer.num_rows(columns.columns)) if log else None
            decoded = time.perf_counter()
            scores = scorer.score(columns.columns)
            scored = time.perf_counter()
            said = {}
            if log and about:  # what the events of this answer have to send back
                said = {"request_id": about.request_id, "served_time": now_text()}
            answer = encode_response(name, version.digest, columns, scores, said)
        except ContractError as error:
            raise HttpError(400, str(error)) from error
        ended = time.perf_counter()
        stages = (request.arrived - request.started, began - request.arrived, decoded - began, scored - decoded, ended - scored)

        def after() -> None:
            self.metrics.answered(stages, version.digest, columns, scores)
            if log and about:  # without room for them rows are counted as dropped
                log.write_served(about, said["served_time"], columns.columns, scores)

        return Reply(answer, version, after=after)

    def _take_events(self, request: Request) -> Reply:
        version = self.table.main
        if version.log is None:
            raise HttpError(404, f"{EVENTS_PATH}: this server has no log; start it with --log DIR")
        _expect(request.method, EVENTS_PATH, "POST")
        now = datetime.now(UTC)
        try:
            events, num_refused, reason = parse_events(request.body, now)
        except ContractError as error:
            raise HttpError(400, str(error)) from error
        if not version.log.write_events(request.body, len(events), now):
            raise HttpError(429, "events: the queue of the log is full; send them again later")
        self.metrics.refused_events(num_refused)
        return self._say({"accepted": len(events), "refused": num_refused, "first_refusal": reason}, version, 202)


def _is_infer(parts: tuple[str, ...]) -> bool:
    return parts[:2] == ("v2", "models") and parts[-1] == "infer"


def _asked(headers: Iterable[tuple[bytes, bytes]]) -> str:
    """The version that the request's header names, or nothing."""
    for name, value in headers:
        if name == BUNDLE_HEADER:
            return value.decode("latin-1").strip()
    return ""


def _expect(method: str, path: str, *allowed: str) -> None:
    if method not in allowed:
        raise HttpError(405, f"{path}: expected {allowed[0]}, found {method}")
