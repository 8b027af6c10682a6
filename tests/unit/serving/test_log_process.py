"""The log as a request sees it: a real writer, stopped where that matters."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import numpy as np
import psutil
import pyarrow.parquet as pq
import pytest

from tidewheel.contracts.hybrid import Part
from tidewheel.contracts.schema import Entity, FeatureKind, FeatureSpec
from tidewheel.serving.hybrid_log import LogLimits
from tidewheel.serving.log_process import PIPE_BYTES, LogProcess
from tidewheel.serving.rows import About, now_text

FEATURES = (
    FeatureSpec(id=1, name="user_id", kind=FeatureKind.HASHED, entity=Entity.USER, num_buckets=8),
    FeatureSpec(id=2, name="category", kind=FeatureKind.VOCABULARY, entity=Entity.ITEM),
)
ROWS = 1000


def offer(log: LogProcess, request: str) -> bool:
    columns = {
        "user_id": np.array([7]),
        "item_id": np.arange(ROWS),
        "category": np.array([f"category {at}" for at in range(ROWS)], dtype=object),
    }
    scores = {"click": np.full(ROWS, 0.5, dtype=np.float32)}
    return log.write_served(About(request), now_text(), columns, scores)


def requests_in(root: Path) -> list[str]:
    tables = [pq.read_table(path, partitioning=None) for path in sorted(root.glob("backend/date=*/part-*.parquet"))]
    return sorted({name for table in tables for name in table["request_id"].to_pylist()})


def writer_of(log: LogProcess) -> psutil.Process:
    (writer,) = (child for child in psutil.Process().children() if "tidewheel.serving.log_writer" in child.cmdline())
    return writer


def test_a_writer_that_does_not_read_holds_nobody_up_and_gets_everything_later(tmp_path: Path) -> None:
    answers = 4 * PIPE_BYTES // (16 * ROWS)
    with LogProcess(tmp_path, "digest", FEATURES, ("click",)) as log:
        writer = writer_of(log)
        os.kill(writer.pid, signal.SIGSTOP)
        try:
            taken = [offer(log, f"r{at:04d}") for at in range(answers)]
            log.hand_over()
        finally:
            os.kill(writer.pid, signal.SIGCONT)
    assert all(taken)
    assert requests_in(tmp_path) == [f"r{at:04d}" for at in range(answers)]
    assert log.streams[Part.BACKEND].counts.written == answers * ROWS


def test_what_waits_for_a_writer_is_bounded_and_the_rest_is_counted_as_dropped(tmp_path: Path) -> None:
    limits = LogLimits(max_queued_bytes=PIPE_BYTES)
    with LogProcess(tmp_path, "digest", FEATURES, ("click",), limits) as log:
        writer = writer_of(log)
        os.kill(writer.pid, signal.SIGSTOP)
        try:
            taken = [offer(log, f"r{at:04d}") for at in range(8 * PIPE_BYTES // (16 * ROWS))]
        finally:
            os.kill(writer.pid, signal.SIGCONT)
    kept = sum(taken)
    assert taken == [True] * kept + [False] * (len(taken) - kept)
    assert 0 < kept < len(taken)
    assert log.streams[Part.BACKEND].counts.dropped == ROWS * (len(taken) - kept)
    assert len(requests_in(tmp_path)) == kept


def test_a_writer_that_is_gone_is_said_once(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with LogProcess(tmp_path, "digest", FEATURES, ("click",)) as log:
        writer = writer_of(log)
        writer.kill()
        writer.wait()
        offered = [offer(log, f"r{at}") for at in range(3)]
        assert not log.is_writing
    said = [line for line in capfd.readouterr().err.splitlines() if "its writer is gone" in line]
    assert len(said) <= 1
    assert offered[-1] is False
