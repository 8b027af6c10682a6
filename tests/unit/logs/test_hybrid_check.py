"""A good log, broken in one place at a time: the finding names the place, what is there, what should be and what to do."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tidewheel.logs.hybrid_check import check, is_hybrid_log
from tidewheel.logs.hybrid_values import Finding

DAYS = [date(2026, 1, 5), date(2026, 1, 6), date(2026, 1, 7)]
ROWS = 40
Break = Callable[[pa.Table], pa.Table]


def times(day: date, seconds: float = 0) -> pa.Array:
    noon = datetime(day.year, day.month, day.day, 12, tzinfo=UTC) + timedelta(seconds=seconds)
    return pa.array([noon + timedelta(seconds=at) for at in range(ROWS)], pa.timestamp("us", tz="UTC"))


def served(day: date) -> pa.Table:
    numbers = np.arange(ROWS)
    return pa.table(
        {
            "request_id": [f"{day}-{at // 4}" for at in numbers],
            "user_id": numbers % 7,
            "item_id": numbers,
            "served_time": times(day),
            "position": pa.array(numbers % 4, pa.int32()),
            "is_randomized": numbers < 4,
            "propensity": pa.array([0.25 if at < 4 else None for at in numbers], pa.float64()),
            "bundle": ["d"] * ROWS,
            "score_click": numbers / ROWS,
            "price": np.sqrt(numbers),
            "category": ["a"] * ROWS,
            "recent": [[at, at + 1] for at in range(ROWS)],
        }
    )


def reported(day: date) -> pa.Table:
    numbers = np.arange(ROWS)
    return pa.table(
        {
            "request_id": [f"{day}-{at // 4}" for at in numbers],
            "item_id": numbers,
            "served_time": times(day),
            "event": ["click" if at % 4 == 0 else "impression" for at in numbers],
            "event_time": times(day, 60),
            "logged_time": times(day, 3600),
            "logging_rate": [0.25] * ROWS,
        }
    )


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """Three days, the last of them not complete yet."""
    for part, rows in (("backend", served), ("frontend", reported)):
        for day in DAYS:
            folder = tmp_path / part / f"date={day}"
            folder.mkdir(parents=True)
            pq.write_table(rows(day), folder / "part-0.parquet")
            if day != DAYS[-1]:
                (folder / "_SUCCESS").touch()
    return tmp_path


def change(log: Path, part: str, how: Break, day: date = DAYS[0]) -> None:
    path = log / part / f"date={day}" / "part-0.parquet"
    pq.write_table(how(pq.read_table(path, partitioning=None)), path)


def put(name: str, values: object, kind: pa.DataType | None = None) -> Break:
    def how(table: pa.Table) -> pa.Table:
        rest = table.drop_columns([name]) if name in table.column_names else table
        return rest.append_column(name, pa.array(values, kind))

    return how


def one(name: str, value: object, at: int = 5) -> Break:
    """The same column with another value in one row."""

    def how(table: pa.Table) -> pa.Table:
        values = table[name].to_pylist()
        values[at] = value
        return table.set_column(table.column_names.index(name), name, pa.array(values, table[name].type))

    return how


def faults(log: Path) -> list[Finding]:
    return [finding for finding in check(log) if not finding.is_well]


def only_fault(log: Path) -> Finding:
    (found,) = faults(log)
    assert found.expected
    assert found.remedy
    return found


def test_a_good_log_is_well_and_its_figures_are_said(log: Path) -> None:
    found = {finding.place: finding.found for finding in check(log)}

    assert faults(log) == []
    assert found["backend"] == "3 days, 2 complete, 3 files, 120 rows"
    assert found["watermark"] == "2026-01-07: everything before it is read"
    assert found["incomplete"] == "2026-01-07: not read yet"
    assert found["frontend, event"] == "click 30, impression 90"
    assert found["frontend, logging_rate"] == "0.250 on impressions, 0.250 on engagements, on average"
    assert found["frontend, lateness"].startswith("from served to logged: median 1.00 h")
    assert found["orphans"] == "0 of 80 events (0.0%) are of no served candidate"


def test_a_log_is_known_by_its_folders(log: Path, tmp_path: Path) -> None:
    assert is_hybrid_log(log)
    assert not is_hybrid_log(log / "backend")


def test_what_writers_hide_is_no_business_of_readers(log: Path) -> None:
    hidden = log / "backend" / f"date={DAYS[2]}" / ".open-w"
    hidden.mkdir()
    (hidden / ".part-1.parquet.partial").write_bytes(b"PAR1")

    assert faults(log) == []


@pytest.mark.parametrize(
    ("part", "how", "place", "found"),
    [
        ("backend", lambda t: t.drop_columns(["propensity"]), "propensity", "missing"),
        ("backend", put("user_id", range(ROWS), pa.int32()), "user_id", "int32"),
        (
            "backend",
            put("served_time", times(DAYS[0]).cast(pa.timestamp("ns", tz="UTC"))),
            "served_time",
            "timestamp[ns, tz=UTC]",
        ),
        ("backend", put("price", range(ROWS), pa.float32()), "price", "float"),
        ("backend", put("score_click", range(ROWS), pa.int64()), "score_click", "int64"),
        ("backend", put("price", range(ROWS), pa.int64()), "price", "double"),  # seen where the next day disagrees
        ("frontend", put("user_id", range(ROWS)), "user_id", "int64"),
        ("frontend", lambda t: t.drop_columns(["logging_rate"]), "logging_rate", "missing"),
    ],
)
def test_a_column_of_another_type_is_named_with_its_file(log: Path, part: str, how: Break, place: str, found: str) -> None:
    change(log, part, how)

    fault = only_fault(log)

    assert fault.place.endswith(f"part-0.parquet, {place}")
    assert fault.found == found


@pytest.mark.parametrize(
    ("part", "how", "place", "found"),
    [
        ("backend", one("request_id", None), "backend, request_id", "1 of 120 rows null"),
        ("backend", one("request_id", ""), "backend, request_id", "1 of 120 rows empty"),
        ("backend", one("item_id", None), "backend, item_id", "1 of 120 rows null"),
        ("backend", one("propensity", 1.5), "backend, propensity", "1 of 120 rows outside (0, 1]"),
        ("backend", one("propensity", float("nan")), "backend, propensity", "1 of 120 rows outside (0, 1]"),
        ("backend", one("propensity", None, at=0), "backend, propensity", "1 of 120 rows null on a randomized request"),
        ("backend", one("position", -1), "backend, position", "1 of 120 rows negative"),
        ("backend", one("score_click", 1.01), "backend, score_click", "1 of 120 rows no probability"),
        (
            "backend",
            put("served_time", times(DAYS[1])),
            "backend, served_time",
            "40 of 120 rows after the day of its partition",
        ),
        ("frontend", one("logging_rate", 0.0), "frontend, logging_rate", "1 of 120 rows outside (0, 1]"),
        ("frontend", one("event", ""), "frontend, event", "1 of 120 rows empty"),
        ("frontend", put("event_time", times(DAYS[1])), "frontend, event_time", "40 of 120 rows after logged_time"),
        ("frontend", put("event_time", times(DAYS[0], -301)), "frontend, event_time", "40 of 120 rows before served_time"),
        ("frontend", one("logging_rate", 1.0), "frontend, logging_rate", "differs within 1 requests"),
    ],
)
def test_a_value_that_breaks_the_contract_is_counted(log: Path, part: str, how: Break, place: str, found: str) -> None:
    change(log, part, how)

    assert (place, found) in [(fault.place, fault.found) for fault in faults(log)]


def test_engagements_with_rate_1_beside_sampled_impressions_are_found_out(log: Path) -> None:
    def apart(table: pa.Table) -> pa.Table:  # no request has both, so that only the whole gives it away
        is_click = np.array(table["event"].to_pylist()) == "click"
        requests = [f"{request}-{click}" for request, click in zip(table["request_id"].to_pylist(), is_click, strict=True)]
        changed = put("request_id", requests)(table)
        return put("logging_rate", np.where(is_click, 1.0, 0.25))(changed)

    for day in DAYS:
        change(log, "frontend", apart, day)

    found = {fault.place: fault.found for fault in faults(log)}
    assert found["frontend, logging_rate"] == "1 on every engagement, less on every impression"


def test_a_log_of_engagements_only_is_not_well(log: Path) -> None:
    for day in DAYS:
        change(log, "frontend", put("event", ["click"] * ROWS), day)

    fault = only_fault(log)
    assert (fault.place, fault.found, fault.expected) == ("frontend, event", "click 120", "impression among them")


def test_events_of_candidates_that_nobody_served_are_orphans(log: Path) -> None:
    change(log, "frontend", put("item_id", [at + 1000 if at < 8 else at for at in range(ROWS)], pa.int64()))

    fault = only_fault(log)
    assert (fault.place, fault.found) == ("orphans", "8 of 80 events (10.0%) are of no served candidate")
    assert fault.expected == "at most 5%"


@pytest.mark.parametrize("cut", [0, 4, 100, -1])
def test_a_truncated_file_is_named(log: Path, cut: int) -> None:
    path = log / "frontend" / f"date={DAYS[2]}" / "part-0.parquet"
    path.write_bytes(path.read_bytes()[:cut])

    fault = only_fault(log)
    assert fault.place == str(path)
    assert fault.found.startswith("cannot be read")


def test_a_day_without_its_marker_holds_up_the_days_after_it(log: Path) -> None:
    for part in ("backend", "frontend"):
        (log / part / f"date={DAYS[2]}" / "_SUCCESS").touch()
    (log / "backend" / f"date={DAYS[1]}" / "_SUCCESS").unlink()

    fault = only_fault(log)
    assert (fault.place, fault.found) == ("backend/date=2026-01-06", "not complete, later days are")
    assert {f.place: f.found for f in check(log)}["watermark"].startswith("2026-01-06")
    skipped = check(log, skip_days=[DAYS[1]])
    assert all(finding.is_well for finding in skipped)
    assert {f.place: f.found for f in skipped}["watermark"].startswith("2026-01-08")


def test_a_missing_day_holds_up_the_days_after_it(log: Path) -> None:
    for part in ("backend", "frontend"):
        (log / part / f"date={DAYS[2]}" / "_SUCCESS").touch()
        (log / part / f"date={DAYS[1]}").rename(log / f"moved-{part}")

    assert [(f.place, f.found) for f in faults(log)] == [
        ("backend/date=2026-01-06", "missing, later days are"),
        ("frontend/date=2026-01-06", "missing, later days are"),
    ]


def test_days_that_only_one_part_has_before_the_log_begins_are_said(log: Path) -> None:
    shutil.rmtree(log / "frontend" / f"date={DAYS[0]}")

    found = {finding.place: finding.found for finding in reversed(check(log))}
    assert faults(log) == []
    assert found["incomplete"] == "2026-01-05: before the first day that is complete in both parts"
    assert found["watermark"].startswith("2026-01-07")


def test_folders_and_files_of_other_names_are_named(log: Path) -> None:
    (log / "backend" / "2026-01-08").mkdir()
    (log / "frontend" / f"date={DAYS[0]}" / "notes.txt").touch()

    found = [(Path(fault.place).name, fault.found) for fault in faults(log)]
    assert found == [("2026-01-08", "not a partition"), ("notes.txt", "not a Parquet file")]


def test_a_log_with_one_part_only_is_not_well(log: Path) -> None:
    (log / "frontend").rename(log / "clients")

    assert [(Path(fault.place).name, fault.found) for fault in faults(log)] == [
        ("frontend", "missing"),
        ("watermark", "no day is complete in both parts"),
    ]


def test_the_rows_that_are_looked_at_are_bounded(log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tidewheel.logs.hybrid_check.SAMPLE_ROWS", 9)
    monkeypatch.setattr("tidewheel.logs.hybrid_check.MAX_KEY_ROWS", 30)
    change(log, "backend", one("item_id", None, at=2))
    change(log, "backend", one("user_id", None, at=3))

    found = [(fault.place, fault.found) for fault in faults(log)]
    assert found == [("backend, item_id", "1 of 9 rows null")]
    assert {f.place: f.found for f in check(log)}["orphans"].startswith("not looked for")
