"""The hybrid log as a request sees it: what is to be logged is handed to a process of its own, which writes it.

A request leaves the columns that it was scored with in a queue. A thread packs many of them at once, twenty times a second;
Arrow and Parquet are work of another core. What is queued here is lost when the server is killed; what the writer has it
writes, and then it ends.
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
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from tidewheel.contracts.hybrid import Part
from tidewheel.contracts.schema import FeatureSpec
from tidewheel.errors import ConfigError
from tidewheel.serving.hybrid_log import Clock, Counts, LogLimits
from tidewheel.serving.log_items import Answered, Layout

PUMP_SECONDS = 0.05
BUFFER_BYTES = 64 * 1024
PIPE_BYTES = 1024 * 1024  # the writer takes so much without the pump waiting for it, where the system allows it
SWITCH_SECONDS = 0.0005  # after which a request that waits for the interpreter gets it; Python's default: 0.005
END_SECONDS = 60.0  # for the writer to write what it has
HEAD = struct.Struct("<QIB")  # of a message: its size, its rows, and which of PARTS they are of
PARTS = tuple(Part)

PACK_ROWS = 1024  # packed at once, so that the pump holds the interpreter for no longer than a request takes


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
        self._answers: deque[tuple[Answered, int]] = deque()  # with the bytes of each
        self._events: deque[tuple[int, bytes]] = deque()  # with the events of each post
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

    def write_served(self, answered: Answered, num_bytes: int) -> bool:
        """Queue an answer, whose request had so many bytes; False where there is no room."""
        is_taken = self._take(Part.BACKEND, answered.num_rows, num_bytes)
        if is_taken:
            self._answers.append((answered, num_bytes))
        return is_taken

    def write_events(self, body: bytes, num_events: int, logged_time: datetime) -> bool:
        """Queue the good events of a post; False where there is no room: then none of them was taken."""
        if not num_events:
            return True
        post = marshal.dumps((body, logged_time.isoformat()))
        is_taken = self._take(Part.FRONTEND, num_events, len(post))
        if is_taken:
            self._events.append((num_events, post))
        return is_taken

    def _take(self, part: Part, rows: int, num_bytes: int) -> bool:
        counts = self.streams[part].counts
        is_full = self._offered_bytes - self._sent_bytes + num_bytes > self._limits.max_queued_bytes
        if is_full or counts.queued + rows > self._limits.max_queued_rows or not self._is_open:
            counts.dropped += rows
            return False
        counts.offered += rows
        self._offered_bytes += num_bytes
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
        self._send(PARTS[0], 0, json.dumps(self._given).encode())
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
                while self._answers:
                    self._send_answers()
                while self._events:
                    rows, post = self._events.popleft()
                    self._send(Part.FRONTEND, rows, post)
                    self._sent_bytes += len(post)
                self._to_writer.flush()
            except OSError as error:
                print(f"tidewheel serving: log {self.root}: its writer is gone ({error})", file=sys.stderr)
                self._is_open = False
                return

    def _send_answers(self) -> None:
        """Some of those that wait, together."""
        answers, num_rows, num_bytes = [], 0, 0
        while self._answers and num_rows < PACK_ROWS:
            answered, size = self._answers.popleft()
            answers.append(answered)
            num_rows += answered.num_rows
            num_bytes += size
        for rows, item in self._layout.pack(answers):
            self._send(Part.BACKEND, rows, item)
        self._sent_bytes += num_bytes

    def _send(self, part: Part, rows: int, item: bytes) -> None:
        self._to_writer.write(HEAD.pack(len(item), rows, PARTS.index(part)))
        self._to_writer.write(item)

    def _listen(self) -> None:
        """What the writer tells of its work, until it ends."""
        for line in self._from_writer:
            for part, told in json.loads(line).items():
                for name, value in told.items():
                    setattr(self.streams[Part(part)].counts, name, value)
        self._is_open = False
