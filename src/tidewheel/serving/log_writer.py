"""`python -m tidewheel.serving.log_writer`: the process behind `log_process`. When its server is gone it writes the rest."""

from __future__ import annotations

import json
import marshal
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import IO, Any

import numpy as np

from tidewheel.contracts.hybrid import Part
from tidewheel.contracts.schema import FeatureSpec, feature_columns, feature_digest
from tidewheel.errors import ConfigError, ContractError
from tidewheel.serving.hybrid_log import HybridLog, LogLimits
from tidewheel.serving.log_process import LENGTH_BYTES
from tidewheel.serving.protocol import decode_request, read_request
from tidewheel.serving.rows import TENSORS, Served, parse_events, served

NICENESS = 5  # requests come first


class Writer:
    """Makes rows of what a server hands over: with the decoder that read it for scoring, so the log has what was scored."""

    def __init__(self, given: dict[str, Any]) -> None:
        features = tuple(FeatureSpec.model_validate(one) for one in given["features"])
        self._labels = tuple(given["labels"])
        self._columns = feature_columns(features)
        self._digest = feature_digest(features)
        self._sequences = {name: feature.length for feature in features if feature.is_sequence for name in feature.columns}
        self._unread = dict.fromkeys(Part, 0)
        limits = LogLimits(**given["limits"])
        self.log = HybridLog(Path(given["root"]), given["bundle"], features, self._labels, limits=limits, told=self._tell)

    def write(self, part: Part, rows: int, told: Any) -> None:
        """Queue one item for the log's thread."""
        try:
            if part is Part.BACKEND:
                self.log.write_served(self._served(told))
            else:
                body, now = told[0], datetime.fromisoformat(told[1])
                self.log.write_events(parse_events(body, now)[0], now)
        except ContractError as error:  # the server found nothing wrong with it: a bug, and not worth the other rows
            self._unread[part] += rows
            print(f"tidewheel serving: log, {part} part: {error}", file=sys.stderr)

    def _served(self, told: Any) -> Served:
        request_id, served_time, body, json_size, raw = told
        sent = read_request(body, json_size)
        made_for = sent.feature_digest or self._digest
        request = decode_request(sent, self._columns, made_for, TENSORS, self._sequences, max_candidates=sys.maxsize)
        parameters = {**(request.parameters or {}), "request_id": request_id}
        scores = {label: np.frombuffer(values, dtype=np.float32) for label, values in zip(self._labels, raw, strict=True)}
        return served(replace(request, parameters=parameters), scores, datetime.fromisoformat(served_time))

    def _tell(self, log: HybridLog) -> None:
        told = {}
        for part, stream in log.streams.items():
            counts = stream.counts
            lost = counts.unwritable + counts.dropped + self._unread[part]
            told[part.value] = {"unwritable": lost, "written": counts.written, "segments": counts.segments}
            told[part.value]["failures"] = counts.failures
        _say(told)


def main() -> None:
    """Messages from stdin, a line of counts to stdout after every round of writing."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # whoever leaves closes the pipe
    os.nice(NICENESS)
    messages = _messages(sys.stdin.buffer)
    writer = Writer(json.loads(next(messages)))
    with ExitStack() as stack:
        try:
            stack.enter_context(writer.log)
        except ConfigError as error:
            _say({"error": str(error)})
            return
        _say({"ready": True})
        for batch in messages:
            for part, rows, told in batch:
                writer.write(Part(part), rows, told)


def _messages(stream: IO[bytes]) -> Iterator[Any]:
    """Whole messages until the other end closes, or is gone in the middle of one."""
    while len(head := stream.read(LENGTH_BYTES)) == LENGTH_BYTES:
        size = int.from_bytes(head, "little")
        data = stream.read(size)
        if len(data) < size:
            return
        yield marshal.loads(data)


def _say(document: Any) -> None:
    try:
        sys.stdout.write(json.dumps(document) + "\n")
        sys.stdout.flush()
    except BrokenPipeError:  # nobody listens any more; what it has is written all the same
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115  as long as this process


if __name__ == "__main__":
    main()
