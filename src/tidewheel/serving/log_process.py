"""The hybrid log as a request sees it: what is to be logged is handed to a process of its own, which writes it.

A request costs a copy of the columns that it was scored with, made when its answer is on its way; Arrow and Parquet are work of
another core. What is queued here is lost when the server is killed; what the writer has it writes, and then it ends.
"""

from __future__ import annotations

import fcntl
import json
import marshal
import struct
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import IO, Self

import numpy as np

from tidewheel.contracts.hybrid import Part
from tidewheel.contracts.schema import FeatureSpec
from tidewheel.errors import ConfigError
from tidewheel.serving.hybrid_log import Clock, Counts, LogLimits
from tidewheel.serving.log_items import Layout
from tidewheel.serving.rows import About

PUMP_SECONDS = 0.05
BUFFER_BYTES = 64 * 1024
PIPE_BYTES = 1024 * 1024  # the writer takes so much without the pump waiting for it, where the system allows it
SWITCH_SECONDS = 0.0005  # after which a request that waits for the interpreter gets it; Python's default: 0.005
END_SECONDS = 60.0  # for the writer to write what it has
HEAD = struct.Struct("<QIB")  # of a message: its size, its rows, and which of PARTS they are of
PARTS = tuple(Part)

Item = tuple[int, int, bytes]  # part, rows, and what `log_writer` makes rows of


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
        self._layout = Layout(features, labels)
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
        self, about: About, served_time: str, columns: Mapping[str, np.ndarray], scores: Mapping[str, np.ndarray]
    ) -> bool:
        """Queue an answer; False where there is no room.

        Args:
            about: what `rows.loggable` made of the request.
            served_time: ISO 8601, UTC.
            columns: of length C or 1, as they were scored.
            scores: label -> (C,) float32.
        """
        rows = len(next(iter(scores.values())))
        return self._offer(Part.BACKEND, rows, self._layout.pack(about, served_time, columns, scores))

    def write_events(self, body: bytes, num_events: int, logged_time: datetime) -> bool:
        """Queue the good events of a post; False where there is no room: then none of them was taken."""
        return not num_events or self._offer(Part.FRONTEND, num_events, marshal.dumps((body, logged_time.isoformat())))

    def _offer(self, part: Part, rows: int, item: bytes) -> bool:
        counts = self.streams[part].counts
        is_full = self._offered_bytes - self._sent_bytes + len(item) > self._limits.max_queued_bytes
        if is_full or counts.queued + rows > self._limits.max_queued_rows or not self._is_open:
            counts.dropped += rows
            return False
        counts.offered += rows
        self._offered_bytes += len(item)
        self._queue.append((PARTS.index(part), rows, item))
        return True

    def __enter__(self) -> Self:
        """Start the writer, and wait until it can write.

        Raises:
            ConfigError: the log cannot be written.
        """
        self._writer = subprocess.Popen(
            [sys.executable, "-m", "tidewheel.serving.log_writer"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=BUFFER_BYTES,
        )
        with suppress(OSError):
            fcntl.fcntl(self._to_writer, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
        self._send(0, 0, json.dumps(self._given).encode())
        self._to_writer.flush()
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
            try:
                while self._queue:
                    part, rows, item = self._queue.popleft()
                    self._send(part, rows, item)
                    self._sent_bytes += len(item)
                self._to_writer.flush()
            except OSError as error:
                print(f"tidewheel serving: log {self.root}: its writer is gone ({error})", file=sys.stderr)
                self._is_open = False
                return

    def _send(self, part: int, rows: int, item: bytes) -> None:
        self._to_writer.write(HEAD.pack(len(item), rows, part))
        self._to_writer.write(item)

    def _listen(self) -> None:
        """What the writer tells of its work, until it ends."""
        for line in self._from_writer:
            for part, told in json.loads(line).items():
                for name, value in told.items():
                    setattr(self.streams[Part(part)].counts, name, value)
        self._is_open = False
