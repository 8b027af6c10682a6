"""The writing of the hybrid log: rows are queued, put into segments and published by a thread of the writer process.

What is queued but not yet in a segment is lost when that process is killed: at most `segment_rows` rows or
`segment_seconds` seconds of them. A full queue drops candidates and refuses events; both are counted in /metrics.
"""

from __future__ import annotations

import itertools
import os
import socket
import sys
import threading
import uuid
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from tidewheel.contracts.hybrid import ClientEvent, Part
from tidewheel.contracts.schema import FeatureSpec
from tidewheel.errors import ConfigError
from tidewheel.serving.log_items import Item, Layout
from tidewheel.serving.partitions import Partitions, end_of
from tidewheel.serving.rows import event_schema, event_table, served_schema, served_table

if TYPE_CHECKING:
    import pyarrow as pa

TICK_SECONDS = 1.0
CHUNK_ITEMS, CHUNK_ROWS = 256, 16_384  # converted at once, whichever is reached first: more would leave a core's cache
RETRY_SECONDS = 5.0
Clock = Callable[[], datetime]


@dataclass(frozen=True)
class LogLimits:
    """When a segment is written and what a slow disk may cost. `grace_seconds`: silence after which a writer is dead."""

    segment_rows: int = 50_000
    segment_seconds: float = 60.0
    max_queued_rows: int = 400_000
    max_queued_bytes: int = 64 * 1024 * 1024  # of requests that the writer has not got yet
    grace_seconds: float = 120.0


@dataclass
class Counts:
    """Rows of one part since the start of this process. Each number has one writing thread."""

    offered: int = 0  # taken into the queue
    dropped: int = 0  # not taken: the queue was full
    unwritable: int = 0  # taken, but of a value that its column cannot hold
    written: int = 0  # in a published segment
    segments: int = 0
    failures: int = 0  # attempts to write that the disk refused; they are repeated

    @property
    def queued(self) -> int:
        return self.offered - self.written - self.unwritable


@dataclass
class _Pending:
    """Rows of one day that wait for their segment, since `since`; after a failure not before `not_before`."""

    since: datetime
    not_before: datetime
    tables: list[pa.Table] = field(default_factory=list)

    @property
    def rows(self) -> int:
        return sum(table.num_rows for table in self.tables)


class Stream:
    """One part: items (a request's candidates, a post's events) of one thread in, segments of the writer thread out."""

    def __init__(self, partitions: Partitions, to_table: Callable[[Sequence[Any]], pa.Table], limits: LogLimits) -> None:
        self.counts = Counts()
        self._partitions = partitions
        self._to_table = to_table
        self._limits = limits
        self._grace = timedelta(seconds=limits.grace_seconds)
        self._queue: deque[tuple[date, int, Any]] = deque()
        self._taken_rows = 0  # from the queue
        self._pending: dict[date, _Pending] = {}
        self._next_round = datetime.min.replace(tzinfo=UTC)

    def offer(self, day: date, rows: int, item: Any) -> bool:
        """Queue an item that arrived on `day`; False, and counted, where there is no room."""
        if self.counts.queued + rows > self._limits.max_queued_rows:
            self.counts.dropped += rows
            return False
        self.counts.offered += rows
        self._queue.append((day, rows, item))
        return True

    @property
    def has_a_segment(self) -> bool:
        """Whether the queue alone is enough for one."""
        return self.counts.offered - self._taken_rows >= self._limits.segment_rows

    def advance(self, now: datetime, is_last: bool) -> None:
        """Take the queue, write what is due (`is_last`: everything) and mark the days that are over."""
        if now.date() not in self._partitions.entered:  # a day without rows is complete too
            self._partitions.enter(now.date(), now)
        for day, items in itertools.groupby(self._taken(), key=lambda entry: entry[0]):
            tables = self._pending.setdefault(day, _Pending(now, now)).tables
            for chunk in _chunks(items):
                tables.extend(self._converted(chunk))
        for day in sorted(self._pending):
            self._write_due(day, now, is_last)
        if is_last or now >= self._next_round:
            self._next_round = now + self._grace / 8
            for day in sorted(self._partitions.entered - self._pending.keys()):
                if is_last or end_of(day) + self._grace <= now:
                    self._partitions.leave(day)
            self._partitions.beat(now)
            self._partitions.close_ended(now, self._grace)

    def _taken(self) -> Iterator[tuple[date, int, Any]]:
        """What is queued now; what comes meanwhile waits for the next time."""
        for _ in range(len(self._queue)):
            entry = self._queue.popleft()
            self._taken_rows += entry[1]
            yield entry

    def _converted(self, chunk: Sequence[tuple[date, int, Any]]) -> Iterator[pa.Table]:
        """A table of all items, or one of each good one where one of them is not."""
        import pyarrow as pa

        try:
            yield self._to_table([item for _, _, item in chunk])
        except (pa.ArrowException, ValueError, TypeError, OverflowError):
            if len(chunk) > 1:
                for one in chunk:
                    yield from self._converted([one])
            else:
                self.counts.unwritable += chunk[0][1]

    def _write_due(self, day: date, now: datetime, is_last: bool) -> None:
        """Publish the day's rows if there are enough, they are old enough or the day is over; else leave them pending."""
        pending = self._pending[day]
        is_old = now - pending.since >= timedelta(seconds=self._limits.segment_seconds)
        is_due = is_old or pending.rows >= self._limits.segment_rows or end_of(day) <= now
        if not (is_last or (is_due and now >= pending.not_before)):
            return
        del self._pending[day]
        rows = pending.rows
        if not rows or self._published(day, pending, now):
            self.counts.written += rows
            self.counts.segments += rows > 0
        else:
            pending.not_before = now + timedelta(seconds=RETRY_SECONDS)
            self._pending[day] = pending

    def _published(self, day: date, pending: _Pending, now: datetime) -> bool:
        import pyarrow as pa

        table = pa.concat_tables(pending.tables)
        # Where the rows' own day is complete they belong to the day that they reach the log: this one.
        for target in dict.fromkeys((day, now.date())):
            try:
                is_open = target in self._partitions.entered or self._partitions.enter(target, now)
                if is_open and self._partitions.publish(target, table, now):
                    return True
            except OSError as error:
                self.counts.failures += 1
                print(f"tidewheel serving: log: {error}; {table.num_rows} rows wait", file=sys.stderr)
                return False
        return False


def _chunks(items: Iterable[tuple[date, int, Any]]) -> Iterator[list[tuple[date, int, Any]]]:
    """All items in order, as many together as are converted at once."""
    chunk: list[tuple[date, int, Any]] = []
    rows = 0
    for item in items:
        chunk.append(item)
        rows += item[1]
        if len(chunk) == CHUNK_ITEMS or rows >= CHUNK_ROWS:
            yield chunk
            chunk, rows = [], 0
    if chunk:
        yield chunk


def _served(layout: Layout, schema: pa.Schema, bundle: str, items: Sequence[Item]) -> pa.Table:
    import pyarrow as pa

    return pa.concat_tables([served_table(answers, schema, bundle) for answers in layout.join(items)])


class HybridLog:
    """The log of one bundle of one server (see `log_process`). `write_served` and `write_events` never wait.

    `advance` does the writing; inside a `with` block a thread calls it every `TICK_SECONDS`, and when a segment is full.
    """

    def __init__(
        self,
        root: Path,
        bundle: str,
        features: Sequence[FeatureSpec],
        labels: Sequence[str],
        clock: Clock = lambda: datetime.now(UTC),
        limits: LogLimits | None = None,
        told: Callable[[HybridLog], None] = lambda log: None,
    ) -> None:
        """
        Args:
            told: called after every round of writing.
        """
        limits = limits or LogLimits()
        served, events = served_schema(features, labels), event_schema()
        writer = f"{os.getpid()}-{socket.gethostname()}-{uuid.uuid4().hex[:8]}"
        self.root = root
        self.clock = clock
        self._layout = Layout(features, labels)
        self.streams = {
            Part.BACKEND: Stream(
                Partitions(root / Part.BACKEND, writer), partial(_served, self._layout, served, bundle), limits
            ),
            Part.FRONTEND: Stream(Partitions(root / Part.FRONTEND, writer), lambda items: event_table(items, events), limits),
        }
        self._told = told
        self._is_stopping = False
        self._due = threading.Event()  # something is to be done before the next tick
        self._thread = threading.Thread(target=self._work, name="hybrid-log", daemon=True)

    def write_served(self, packed: bytes) -> bool:
        """Queue the candidates of an answer that a `Layout` packed; False where they were dropped."""
        item = self._layout.unpack(packed)
        return self._offer(Part.BACKEND, date.fromisoformat(item.served_time[:10]), item.num_rows, item)

    def write_events(self, events: Sequence[ClientEvent], logged_time: datetime) -> bool:
        """Queue events; False where there is no room: then none of them was taken."""
        return not events or self._offer(Part.FRONTEND, logged_time.date(), len(events), events)

    def _offer(self, part: Part, day: date, rows: int, item: Any) -> bool:
        is_taken = self.streams[part].offer(day, rows, item)
        if self.streams[part].has_a_segment:
            self._due.set()
        return is_taken

    def advance(self, is_last: bool = False) -> None:
        """Write what is due, and mark the days that are over. Called by one thread at a time."""
        now = self.clock()
        for part, stream in self.streams.items():
            try:
                stream.advance(now, is_last)
            except OSError as error:  # tried again the next time
                stream.counts.failures += 1
                print(f"tidewheel serving: log, {part} part: {error}", file=sys.stderr)
        self._told(self)

    def __enter__(self) -> Self:
        """Open today's partitions, mark the days that dead servers left open, and begin to write.

        Raises:
            ConfigError: the log cannot be written.
        """
        import pyarrow.compute
        import pyarrow.parquet  # noqa: F401  (half a second that no request shall wait for)

        try:
            for stream in self.streams.values():
                stream.advance(self.clock(), is_last=False)
        except OSError as error:
            raise ConfigError(f"log {self.root}: cannot be written ({error.strerror}); choose another --log") from error
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Write everything that is queued and leave. Today is not marked complete: other servers may still write to it."""
        self._is_stopping = True
        self._due.set()
        self._thread.join()
        self.advance(is_last=True)
        for part, stream in self.streams.items():
            if stream.counts.queued:
                print(f"tidewheel serving: log, {part} part: {stream.counts.queued} rows are lost", file=sys.stderr)

    def _work(self) -> None:
        while True:
            self._due.wait(TICK_SECONDS)
            self._due.clear()
            if self._is_stopping:
                return
            self.advance()
