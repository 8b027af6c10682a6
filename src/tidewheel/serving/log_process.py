"""The hybrid log as a request sees it: what is to be logged is handed to a process of its own, which decodes and writes it.

A row costs a request a place in a queue; JSON, Arrow and Parquet are another core's work. What is queued here is lost when the
server is killed, what is in the writer's hands is not: it writes it and ends.
"""

from __future__ import annotations

import json
import marshal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

import numpy as np

from tidewheel.contracts.hybrid import Part
from tidewheel.contracts.schema import FeatureSpec
from tidewheel.errors import ConfigError
from tidewheel.serving.hybrid_log import Clock, Counts, LogLimits

PUMP_SECONDS = 0.05
BATCH_ITEMS = 64  # handed over at once: so long the interpreter is kept from a request
SWITCH_SECONDS = 0.0005  # after which a request that waits for the interpreter gets it; Python's default: 0.005
END_SECONDS = 60.0  # for the writer to write what it has
LENGTH_BYTES = 8  # little-endian, before every message

Item = tuple[str, int, Any]  # part, rows, and what `log_writer` makes rows of


class Lane:
    """One part of the log: what was offered, and what became of it as far as the writer has told."""

    def __init__(self) -> None:
        self.counts = Counts()


class LogProcess:
    """The log of one bundle of a server. `write_served` and `write_events` never wait; use as a context manager."""

    def __init__(
        self,
        root: Path,
        bundle: str,
        features: Sequence[FeatureSpec],
        labels: Sequence[str],
        limits: LogLimits | None = None,
        clock: Clock = lambda: datetime.now(UTC),
    ) -> None:
        self.root = root
        self.clock = clock
        self.streams = {part: Lane() for part in Part}
        self._limits = limits or LogLimits()
        self._labels = tuple(labels)
        self._given = {
            "root": str(root),
            "bundle": bundle,
            "features": [feature.model_dump(mode="json") for feature in features],
            "labels": list(labels),
            "limits": vars(self._limits),
        }
        self._queue: deque[Item] = deque()
        self._offered_bytes = self._sent_bytes = 0  # each has one writing thread
        self._is_open = False
        self._stopping = threading.Event()
        self._pump = threading.Thread(target=self._hand_over, name="log-pump", daemon=True)
        self._listener = threading.Thread(target=self._listen, name="log-listener", daemon=True)
        self._writer: subprocess.Popen[bytes] | None = None

    @property
    def is_writing(self) -> bool:
        """Whether the writer is there and gets what is queued."""
        return self._is_open

    def write_served(
        self, request_id: str, served_time: str, body: bytes, json_size: int | None, scores: Mapping[str, np.ndarray]
    ) -> bool:
        """Queue an answer; False where there is no room.

        Args:
            served_time: ISO 8601, UTC.
            body: of the request, which is `rows.loggable`.
            scores: label -> (C,) float32.
        """
        rows = len(next(iter(scores.values())))
        told = (request_id, served_time, body, json_size, [scores[label].tobytes() for label in self._labels])
        return self._offer(Part.BACKEND, rows, len(body), told)

    def write_events(self, body: bytes, num_events: int, logged_time: datetime) -> bool:
        """Queue the good events of a post; False where there is no room: then none of them was taken."""
        return not num_events or self._offer(Part.FRONTEND, num_events, len(body), (body, logged_time.isoformat()))

    def _offer(self, part: Part, rows: int, size: int, told: Any) -> bool:
        counts = self.streams[part].counts
        is_full = self._offered_bytes - self._sent_bytes + size > self._limits.max_queued_bytes
        if is_full or counts.queued + rows > self._limits.max_queued_rows or not self._is_open:
            counts.dropped += rows
            return False
        counts.offered += rows
        self._offered_bytes += size
        self._queue.append((part.value, rows, told))
        return True

    def __enter__(self) -> Self:
        """Start the writer, and wait until it can write.

        Raises:
            ConfigError: the log cannot be written.
        """
        self._writer = subprocess.Popen(
            [sys.executable, "-m", "tidewheel.serving.log_writer"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        self._send(json.dumps(self._given))
        said = json.loads(self._from_writer.readline() or b"{}")
        if not said.get("ready"):
            self._writer.kill()
            self._writer.wait()
            raise ConfigError(said.get("error") or f"log {self.root}: its writer did not start")
        sys.setswitchinterval(SWITCH_SECONDS)
        self._is_open = True
        self._pump.start()
        self._listener.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Have everything written that is queued. Today is not marked complete: other servers may still write to it."""
        assert self._writer is not None
        self._stopping.set()
        self._pump.join()
        try:
            self._to_writer.close()
            self._writer.wait(END_SECONDS)
        except (OSError, subprocess.TimeoutExpired):
            self._writer.kill()
            self._writer.wait()
        self._listener.join()
        for part, lane in self.streams.items():
            if lane.counts.queued:
                print(f"tidewheel serving: log, {part} part: {lane.counts.queued} rows are lost", file=sys.stderr)

    @property
    def _to_writer(self) -> IO[bytes]:
        assert self._writer is not None
        assert self._writer.stdin is not None
        return self._writer.stdin

    @property
    def _from_writer(self) -> IO[bytes]:
        assert self._writer is not None
        assert self._writer.stdout is not None
        return self._writer.stdout

    def _hand_over(self) -> None:
        is_last = False
        while not is_last:
            is_last = self._stopping.wait(PUMP_SECONDS)
            while batch := list(self._taken()):
                size = sum(len(told[2] if part == Part.BACKEND else told[0]) for part, _, told in batch)
                try:
                    self._send(batch)
                except OSError as error:
                    print(f"tidewheel serving: log {self.root}: its writer is gone ({error})", file=sys.stderr)
                    self._is_open = False
                    return
                self._sent_bytes += size

    def _taken(self) -> Iterator[Item]:
        for _ in range(min(len(self._queue), BATCH_ITEMS)):
            yield self._queue.popleft()

    def _send(self, message: Any) -> None:
        data = marshal.dumps(message)
        self._to_writer.write(len(data).to_bytes(LENGTH_BYTES, "little"))
        self._to_writer.write(data)
        self._to_writer.flush()

    def _listen(self) -> None:
        """What the writer tells of its work, until it ends."""
        for line in self._from_writer:
            for part, told in json.loads(line).items():
                for name, value in told.items():
                    setattr(self.streams[Part(part)].counts, name, value)
        self._is_open = False
