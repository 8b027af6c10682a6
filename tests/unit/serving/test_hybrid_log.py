"""The log of one server, mostly driven by hand: no thread, a clock that the test sets."""

from __future__ import annotations

import json
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tidewheel.contracts.hybrid import Part
from tidewheel.contracts.schema import Entity, FeatureKind, FeatureSpec
from tidewheel.errors import ConfigError
from tidewheel.serving.hybrid_log import CHUNK_ITEMS, CHUNK_ROWS, RETRY_SECONDS, HybridLog, LogLimits, Stream
from tidewheel.serving.log_items import Layout
from tidewheel.serving.partitions import Partitions
from tidewheel.serving.rows import About, parse_events

FEATURES = (
    FeatureSpec(id=1, name="user_id", kind=FeatureKind.HASHED, entity=Entity.USER, num_buckets=8),
    FeatureSpec(id=2, name="category", kind=FeatureKind.VOCABULARY, entity=Entity.ITEM),
)
LIMITS = LogLimits(segment_rows=10, segment_seconds=60, max_queued_rows=40, grace_seconds=120)
MONDAY, TUESDAY = date(2026, 1, 5), date(2026, 1, 6)


@dataclass
class Clock:
    now: datetime = datetime(2026, 1, 5, 12, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now

    def advance(self, **by: float) -> None:
        self.now += timedelta(**by)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def log(tmp_path: Path, clock: Clock) -> HybridLog:
    return new_log(tmp_path, clock)


def new_log(root: Path, clock: Clock) -> HybridLog:
    return HybridLog(root, "digest", FEATURES, ("click",), clock=clock, limits=LIMITS)


def serve(log: HybridLog, request: str, candidates: int = 4, category: str = "a") -> bool:
    columns = {"user_id": np.array([7]), "item_id": np.arange(candidates), "category": np.array([category], dtype=object)}
    scores = {"click": np.full(candidates, 0.5, dtype=np.float32)}
    layout = Layout(FEATURES, ("click",))
    return log.write_served(layout.pack(About(request), log.clock().isoformat(), columns, scores))


def report(log: HybridLog, number: int) -> bool:
    now = log.clock()
    times = {"served_time": now.isoformat(), "event_time": now.isoformat()}
    one = {"request_id": "r", "item_id": 1, "event": "click", "logging_rate": 1} | times
    events, _, _ = parse_events(json.dumps([one] * number).encode(), now)
    return log.write_events(events, log.clock())


def requests_of(root: Path, day: date = MONDAY) -> list[str]:
    paths = sorted((root / "backend" / f"date={day}").glob("part-*.parquet"))
    return sorted({name for path in paths for name in pq.read_table(path, partitioning=None)["request_id"].to_pylist()})


def marked(root: Path) -> list[str]:
    return sorted(path.parent.relative_to(root).as_posix() for path in root.rglob("_SUCCESS"))


def test_a_segment_is_written_when_it_has_enough_rows_or_is_old_enough(log: HybridLog, clock: Clock, tmp_path: Path) -> None:
    serve(log, "a")
    log.advance()
    assert requests_of(tmp_path) == []
    serve(log, "b")
    serve(log, "c")
    log.advance()  # 12 rows of 10
    assert requests_of(tmp_path) == ["a", "b", "c"]
    serve(log, "d")
    log.advance()
    clock.advance(seconds=59)
    log.advance()
    assert requests_of(tmp_path) == ["a", "b", "c"]
    clock.advance(seconds=1)
    log.advance()
    assert requests_of(tmp_path) == ["a", "b", "c", "d"]
    assert log.streams[Part.BACKEND].counts.segments == 2


def test_a_full_segment_does_not_wait_for_the_next_tick(tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tidewheel.serving.hybrid_log.TICK_SECONDS", 3600.0)
    is_written = threading.Event()

    def told(log: HybridLog) -> None:
        if requests_of(tmp_path):
            is_written.set()

    with HybridLog(tmp_path, "digest", FEATURES, ("click",), clock, LIMITS, told) as log:
        serve(log, "a", candidates=LIMITS.segment_rows)
        assert is_written.wait(30)


def test_rows_of_both_sides_of_midnight_go_to_their_days_and_the_first_is_marked(
    log: HybridLog, clock: Clock, tmp_path: Path
) -> None:
    clock.now = datetime(2026, 1, 5, 23, 59, 59, tzinfo=UTC)
    log.advance()
    serve(log, "monday")
    clock.advance(seconds=1)
    serve(log, "tuesday")
    log.advance()
    assert requests_of(tmp_path, MONDAY) == ["monday"]  # its day is over: it waits for nothing
    clock.advance(seconds=119)
    log.advance()
    assert (requests_of(tmp_path, TUESDAY), marked(tmp_path)) == (["tuesday"], [])
    clock.advance(seconds=20)
    log.advance()

    assert marked(tmp_path) == ["backend/date=2026-01-05", "frontend/date=2026-01-05"]


def test_a_day_without_rows_is_complete_too(log: HybridLog, clock: Clock, tmp_path: Path) -> None:
    log.advance()
    clock.advance(days=1)
    log.advance()

    assert marked(tmp_path) == ["backend/date=2026-01-05", "frontend/date=2026-01-05"]


def test_a_server_that_leaves_writes_all_but_does_not_mark_today(log: HybridLog, clock: Clock, tmp_path: Path) -> None:
    with log:
        serve(log, "a")
        report(log, 2)
    assert requests_of(tmp_path) == ["a"]
    assert log.streams[Part.FRONTEND].counts.written == 2
    assert marked(tmp_path) == []

    clock.advance(days=1)
    new_log(tmp_path, clock).advance()  # the next start
    assert marked(tmp_path) == ["backend/date=2026-01-05", "frontend/date=2026-01-05"]


def test_of_two_servers_the_last_one_marks_the_day(log: HybridLog, clock: Clock, tmp_path: Path) -> None:
    other = new_log(tmp_path, clock)
    log.advance()
    other.advance()
    clock.now = datetime(2026, 1, 6, 0, 1, 50, tzinfo=UTC)
    other.advance()  # still there
    clock.advance(seconds=20)
    serve(log, "late")
    log.advance()
    assert marked(tmp_path) == []
    other.advance()

    assert marked(tmp_path) == ["backend/date=2026-01-05", "frontend/date=2026-01-05"]


def test_rows_that_come_after_their_day_was_taken_over_go_to_the_day_they_wake_up_in(
    log: HybridLog, clock: Clock, tmp_path: Path
) -> None:
    log.advance()
    serve(log, "slept")
    clock.advance(days=1)
    new_log(tmp_path, clock).advance()
    assert "backend/date=2026-01-05" in marked(tmp_path)
    log.advance()

    assert (requests_of(tmp_path, MONDAY), requests_of(tmp_path, TUESDAY)) == ([], ["slept"])
    assert log.streams[Part.BACKEND].counts.queued == 0


def test_a_full_queue_drops_and_counts_instead_of_waiting(log: HybridLog) -> None:
    taken = [serve(log, f"r{number}") for number in range(12)]

    counts = log.streams[Part.BACKEND].counts
    assert taken == [True] * 10 + [False] * 2  # 40 rows
    assert (counts.offered, counts.dropped, counts.queued) == (40, 8, 40)
    log.advance()
    assert serve(log, "again")
    assert not report(log, 41)
    assert log.streams[Part.FRONTEND].counts.dropped == 41


def test_a_disk_that_refuses_is_tried_again_and_no_row_is_lost_or_doubled(
    log: HybridLog, clock: Clock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*arguments: object, **options: object) -> None:
        raise OSError(28, "No space left on device")

    log.advance()
    for name in ("a", "b", "c"):
        serve(log, name)
    with monkeypatch.context() as patched:
        patched.setattr(pq, "write_table", refuse)
        log.advance()
        log.advance()
    counts = log.streams[Part.BACKEND].counts
    assert (counts.failures, counts.written, counts.queued) == (1, 0, 12)
    assert "No space left on device; 12 rows wait" in capsys.readouterr().err
    clock.advance(seconds=RETRY_SECONDS)
    log.advance()

    assert requests_of(tmp_path) == ["a", "b", "c"]
    assert (counts.written, counts.queued) == (12, 0)


def test_a_value_that_no_column_holds_costs_its_own_request_only(log: HybridLog, clock: Clock, tmp_path: Path) -> None:
    serve(log, "before")
    serve(log, "half a character", category="\ud800")
    serve(log, "after")
    clock.advance(seconds=1)
    log.advance(is_last=True)

    assert requests_of(tmp_path) == ["after", "before"]
    counts = log.streams[Part.BACKEND].counts
    assert (counts.unwritable, counts.written, counts.queued) == (4, 8, 0)


def test_a_folder_that_cannot_be_written_is_said_at_the_start(tmp_path: Path, clock: Clock) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(ConfigError, match="cannot be written"), new_log(tmp_path / "file", clock):
        pass


@pytest.mark.parametrize(
    ("rows", "want_chunks"),
    [([CHUNK_ROWS // 2] * 5, [2, 2, 1]), ([3 * CHUNK_ROWS, 1], [1, 1]), ([1] * (CHUNK_ITEMS + 3), [CHUNK_ITEMS, 3])],
    ids=["many rows", "more than there may be", "many items"],
)
def test_what_is_converted_at_once_is_bounded_and_keeps_its_order(
    tmp_path: Path, clock: Clock, rows: list[int], want_chunks: list[int]
) -> None:
    chunks: list[list[int]] = []

    def to_table(items: Sequence[int]) -> pa.Table:
        chunks.append(list(items))
        return pa.table({"item": items})

    stream = Stream(Partitions(tmp_path, "w"), to_table, LogLimits())
    assert all(stream.offer(MONDAY, number, at) for at, number in enumerate(rows))
    stream.advance(clock(), is_last=True)
    assert [len(chunk) for chunk in chunks] == want_chunks
    (segment,) = tmp_path.rglob("part-*.parquet")
    assert pq.read_table(segment)["item"].to_pylist() == list(range(len(rows)))
