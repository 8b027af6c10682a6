"""The hybrid log as a request sees it: what is to be logged is handed to a process of its own, which writes it.

A request costs a copy of the columns that it was scored with into a pipe, made when its answer is on its way; Arrow and Parquet
are work of another core. What the pipe has no room for waits here, and is lost when the server is killed; what the writer has
it writes, and then it ends.
"""

from __future__ import annotations

import fcntl
import json
import marshal
import os
import select
import struct
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import IO, Self

import numpy as np

from tidewheel.contracts.hybrid import Part
from tidewheel.contracts.schema import FeatureSpec
from tidewheel.errors import ConfigError
from tidewheel.serving.hybrid_log import Counts, LogLimits
from tidewheel.serving.log_items import Layout
from tidewheel.serving.rows import About

PIPE_BYTES = 1024 * 1024  # so much may be under way, where the system allows it
END_SECONDS = 60.0  # for the writer to write what it has
HEAD = struct.Struct("<QIB")  # of a message: its size, its rows, and which of PARTS they are of
PARTS = tuple(Part)


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
    ) -> None:
        self.root = root
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
        self._queue: deque[memoryview] = deque()  # of messages, or of what is left of one
        self._queued_bytes = 0
        self._is_open = False
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
        counts, size = self.streams[part].counts, len(item)
        is_full = self._queued_bytes + size > self._limits.max_queued_bytes
        if is_full or counts.queued + rows > self._limits.max_queued_rows or not self._is_open:
            counts.dropped += rows
            return False
        counts.offered += rows
        message = (HEAD.pack(size, rows, PARTS.index(part)), item)
        self.hand_over()  # what was there before
        written = 0 if self._queue else self._written(message)
        if written < HEAD.size + size:
            self._queue.append(memoryview(b"".join(message))[written:])
            self._queued_bytes += len(self._queue[-1])
        return True

    def hand_over(self) -> None:
        """Give the writer what there was no room for. Never waits; called by the thread that offers, from time to time."""
        while self._queue:
            message = self._queue[0]
            written = self._written((message,))
            self._queued_bytes -= written
            if written < len(message):
                self._queue[0] = message[written:]
                return
            self._queue.popleft()

    def _written(self, message: Sequence[bytes | memoryview]) -> int:
        """How many of its bytes the pipe took."""
        try:
            return os.writev(self._pipe, message)
        except BlockingIOError:
            return 0
        except OSError as error:
            if self._is_open:
                print(f"tidewheel serving: log {self.root}: its writer is gone ({error})", file=sys.stderr)
            self._is_open = False
            return 0

    def __enter__(self) -> Self:
        """Start the writer, and wait until it can write.

        Raises:
            ConfigError: the log cannot be written.
        """
        self._writer = subprocess.Popen(
            [sys.executable, "-m", "tidewheel.serving.log_writer"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        _widen(self._pipe)
        given = json.dumps(self._given).encode()
        self._to_writer.write(HEAD.pack(len(given), 0, 0) + given)
        self._to_writer.flush()
        said = json.loads(self._from_writer.readline() or b"{}")
        if not said.get("ready"):
            self._writer.kill()
            self._writer.wait()
            raise ConfigError(said.get("error") or f"log {self.root}: its writer did not start")
        os.set_blocking(self._pipe, False)
        self._is_open = True
        self._listener.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Have everything written that is queued. Today is not marked complete: other servers may still write to it."""
        assert self._writer is not None
        until = time.monotonic() + END_SECONDS
        while self._queue and self._is_open and select.select([], [self._pipe], [], max(0.0, until - time.monotonic()))[1]:
            self.hand_over()
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

    @property
    def _pipe(self) -> int:
        return self._to_writer.fileno()

    def _listen(self) -> None:
        """What the writer tells of its work, until it ends."""
        for line in self._from_writer:
            for part, told in json.loads(line).items():
                for name, value in told.items():
                    setattr(self.streams[Part(part)].counts, name, value)
        self._is_open = False


def _widen(pipe: int) -> None:
    if sys.platform == "linux":
        with suppress(OSError):
            fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
