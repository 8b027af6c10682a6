"""Hybrid logs: joined, deduplicated, labelled in time, complete up to a watermark, read once."""

from __future__ import annotations

import os
import shutil
from collections import Counter
from datetime import timedelta
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.unit.logs.hybrid_lines import HORIZON, SOURCE, at, candidate, event, filler, random_log, read, run, write
from tidewheel.contracts.hybrid import MARKER
from tidewheel.errors import ContractError, RejectedError
from tidewheel.logs.days import FolderCache


def test_seen_candidates_become_impressions_with_labels_and_how_they_came_to_be_logged(spark, tmp_path: Path) -> None:
    rows, events = filler()
    seen, clicked, both, unseen = (candidate(f"r{n}", n, at(3, n), position=n, price=float(n)) for n in range(1, 5))
    rows += [seen, clicked, both, unseen]
    events += [event(seen, "impression"), event(clicked, "click"), event(both, "impression"), event(both, "like", 30)]
    result = run(spark, write(tmp_path / "log", rows, events), tmp_path / "out")
    got = read(tmp_path / "out" / "impressions").set_index("request_id")
    assert sorted(got.index) == ["r1", "r2", "r3", "r900", "r901"]
    assert got.loc["r1", ["label_click", "label_like", "inclusion_probability"]].tolist() == [0, 0, 0.25]
    assert got.loc["r2", ["label_click", "label_like", "inclusion_probability"]].tolist() == [1, 0, 1.0]
    assert got.loc["r3", ["label_click", "label_like", "inclusion_probability"]].tolist() == [0, 1, 1.0]
    assert got.loc["r1", ["user_id", "item_id", "author_id", "position", "price"]].tolist() == [1, 1, 0, 1, 1.0]
    assert got.loc["r2", "event_time"] == at(3, 2)
    assert (result.statistics["served"], result.statistics["not_seen"]) == (6, 1)
    assert result.weight_sum == pytest.approx(4 + 4)
    assert result.watermark == at(7)


def test_a_label_counts_within_its_horizon_and_a_row_known_only_after_it_is_left_out(spark, tmp_path: Path) -> None:
    rows, events = filler()
    in_time, too_late, only_late = (candidate(f"r{n}", n, at(3, n)) for n in range(1, 4))
    rows += [in_time, too_late, only_late]
    horizon = HORIZON.total_seconds()
    events += [event(row, "impression") for row in (in_time, too_late)]
    events += [event(in_time, "click", horizon), event(too_late, "click", horizon + 1), event(only_late, "click", horizon + 1)]
    result = run(spark, write(tmp_path / "log", rows, events), tmp_path / "out")
    got = read(tmp_path / "out" / "impressions").set_index("request_id")
    assert got.loc["r1", ["label_click", "inclusion_probability"]].tolist() == [1, 1.0]
    assert got.loc["r2", ["label_click", "inclusion_probability"]].tolist() == [0, 0.25]
    assert "r3" not in got.index
    assert result.statistics["after_horizon"] == 1


def test_what_cannot_be_learned_from_is_quarantined_with_its_reason(spark, tmp_path: Path) -> None:
    rows, events = filler()
    missed = candidate("r1", 1, at(3), is_feature_miss=True)
    odd = candidate("r2", 2, at(3), is_randomized=True, propensity=None)
    never_served = candidate("r3", 3, at(3))
    rows += [missed, odd]
    events += [event(missed, "click"), event(odd, "click"), event(never_served, "impression")]
    ahead = event(rows[0], "like", logged_time=rows[0]["served_time"] - timedelta(hours=1))
    events += [
        ahead,
        event(rows[0], "click", -600.0, logged_time=at(2, 70)),
        event(rows[0], "impression", logging_rate=0.0),
        event(rows[0], "click", item_id=None),
    ]
    arrivals = {id(ahead): 2}
    result = run(spark, write(tmp_path / "log", rows, events, arrivals=arrivals), tmp_path / "out")
    found = Counter(read(tmp_path / "out" / "quarantine").reason)
    assert found == {
        "feature_cache_miss": 1,
        "propensity_outside_0_1": 1,
        "orphan": 1,
        "event_from_the_future": 1,
        "event_before_it_was_served": 1,
        "event_logging_rate_outside_0_1": 1,
        "event_no_item_id": 1,
    }
    assert result.statistics["quarantined"] == 7
    assert result.rows == 2


def test_a_request_served_twice_is_one_impression_and_the_last_writer_stays(spark, tmp_path: Path) -> None:
    rows, events = filler()
    first = candidate("r1", 1, at(3), price=1.0)
    again = candidate("r1", 1, at(3, 9), price=2.0)
    rows += [first, again, dict(again)]
    events += [event(again, "impression"), event(again, "impression"), event(again, "impression", 7, logging_rate=0.5)]
    result = run(spark, write(tmp_path / "log", rows, events), tmp_path / "out")
    got = read(tmp_path / "out" / "impressions").set_index("request_id")
    assert got.loc["r1", ["price", "inclusion_probability"]].tolist() == [2.0, 0.5]
    assert result.statistics["exact_duplicates"] == 1
    assert result.statistics["conflicting_duplicates"] == 1
    assert result.statistics["repeated_events"] == 1
    assert result.statistics["superseded_events"] == 1


def test_rows_whose_horizon_is_not_over_wait_for_a_later_run(spark, tmp_path: Path) -> None:
    rows, events = filler()
    early, late = candidate("r1", 1, at(4, 3600)), candidate("r2", 2, at(4.9))
    rows += [early, late]
    events += [event(early, "impression"), event(late, "impression"), event(late, "click", 4 * 3600.0)]
    log = write(tmp_path / "log", rows, events, range(5))
    first = run(spark, log, tmp_path / "first")
    assert first.watermark == at(5)
    assert first.statistics["immature"] == 1
    assert "r2" not in set(read(tmp_path / "first" / "impressions").request_id)
    write(log, rows, events, range(5, 7))
    second = run(spark, log, tmp_path / "second")
    got = read(tmp_path / "second" / "impressions").set_index("request_id")
    assert second.statistics["immature"] == 0
    assert got.loc["r2", "label_click"] == 1
    assert got.index.is_unique
    assert second.rows == first.rows + 1
    assert second.statistics["late_labels"] == 1


def test_a_label_that_arrives_late_is_found_by_a_later_run_and_counted_once(spark, tmp_path: Path) -> None:
    rows, events = filler()
    row = candidate("r1", 1, at(3))
    rows.append(row)
    click = event(row, "click", 60, logged_time=at(4, 5))
    events += [event(row, "impression"), click]
    log = write(tmp_path / "log", rows, events, range(4))
    cache = FolderCache(tmp_path / "days")
    before = run(spark, log, tmp_path / "before", end=4, cache=cache)
    assert read(tmp_path / "before" / "impressions").set_index("request_id").loc["r1", "label_click"] == 0
    write(log, rows, events, range(4, 7))
    after = run(spark, log, tmp_path / "after", end=4, cache=cache)
    got = read(tmp_path / "after" / "impressions").set_index("request_id")
    assert got.loc["r1", ["label_click", "inclusion_probability"]].tolist() == [1, 1.0]
    assert after.rows == before.rows
    assert after.statistics["positives.click"] == before.statistics["positives.click"] + 1


def test_a_partition_that_is_missing_holds_back_what_comes_after_until_it_appears(spark, tmp_path: Path) -> None:
    rows, events = random_log(3)
    whole = write(tmp_path / "whole", rows, events)
    log = write(tmp_path / "log", rows, events)
    late = log / "frontend" / f"date={at(3).date()}"
    shutil.move(late, tmp_path / "elsewhere")
    held = run(spark, log, tmp_path / "held")
    assert held.watermark == at(3)
    assert read(tmp_path / "held" / "impressions").event_time.max() <= at(3) - HORIZON
    want = run(spark, whole, tmp_path / "want")
    # Events of unread partitions would make their candidates' absence look like the events' fault, or the other way round.
    assert held.statistics.get("quarantined.orphan", 0) <= want.statistics["quarantined.orphan"]
    assert held.rows < want.rows
    shutil.move(tmp_path / "elsewhere", late)
    assert run(spark, log, tmp_path / "got").statistics == want.statistics
    assert read(tmp_path / "got" / "impressions").equals(read(tmp_path / "want" / "impressions"))


def test_a_partition_whose_writer_died_is_not_read(spark, tmp_path: Path) -> None:
    rows, events = random_log(4)
    log = write(tmp_path / "log", rows, events)
    half = log / "backend" / f"date={at(4).date()}"
    (half / MARKER).unlink()
    path = half / "part-0.parquet"
    path.write_bytes(path.read_bytes()[:200])
    assert run(spark, log, tmp_path / "out").watermark == at(4)


def test_a_day_that_will_never_come_is_named_and_the_rest_is_read(spark, tmp_path: Path) -> None:
    rows, events = random_log(5)
    log = write(tmp_path / "log", rows, events)
    for part in ("backend", "frontend"):
        shutil.rmtree(log / part / f"date={at(3).date()}")
    source = SOURCE.model_copy(update={"skip_days": (at(3).date(),)})
    result = run(spark, log, tmp_path / "out", source=source)
    assert result.watermark == at(7)
    days = set(read(tmp_path / "out" / "impressions").event_time.dt.date)
    assert days == {at(2).date(), at(4).date()}


def test_a_whole_partition_delivered_twice_doubles_nothing(spark, tmp_path: Path) -> None:
    rows, events = random_log(6)
    log = write(tmp_path / "log", rows, events)
    run(spark, log, tmp_path / "once")
    for part in ("backend", "frontend"):
        path = log / part / f"date={at(3).date()}" / "part-0.parquet"
        shutil.copy(path, path.with_name("part-1.parquet"))
    again = run(spark, log, tmp_path / "twice")
    assert read(tmp_path / "twice" / "impressions").equals(read(tmp_path / "once" / "impressions"))
    assert (
        again.statistics["exact_duplicates"]
        >= pq.read_metadata(log / "backend" / f"date={at(3).date()}" / "part-1.parquet").num_rows
    )


def test_lines_that_come_too_late_or_from_the_future_are_quarantined_on_the_day_they_arrive(spark, tmp_path: Path) -> None:
    rows, events = filler()
    old, future = candidate("r1", 1, at(1)), candidate("r2", 2, at(4.5))
    stale = event(candidate("r3", 3, at(0)), "click")
    rows += [old, future]
    events.append(stale)
    log = write(tmp_path / "log", rows, events, arrivals={id(old): 3, id(future): 3, id(stale): 3})
    result = run(spark, log, tmp_path / "out")
    found = Counter(read(tmp_path / "out" / "quarantine").reason)
    assert found == {"too_late": 1, "from_the_future": 1, "event_too_late": 1}
    assert result.rows == 2


def test_a_window_that_overlaps_the_last_one_reads_the_new_partitions_only(spark, tmp_path: Path) -> None:
    """The old files turn into rubbish of the same size and time: whoever reads them again fails."""
    rows, events = random_log(7, days=12)
    log = write(tmp_path / "log", rows, events, range(8))
    cache = FolderCache(tmp_path / "days")
    run(spark, log, tmp_path / "first", start=2, end=8, cache=cache)
    reach = 2  # lateness and horizon: the labels of the last two days were still open
    for path in sorted(log.rglob("*.parquet")):
        if path.parent.name < f"date={at(8 - reach).date()}":
            stat = path.stat()
            path.write_bytes(b"x" * stat.st_size)
            os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    write(log, rows, events, range(8, 12))
    second = run(spark, log, tmp_path / "second", start=4, end=10, cache=cache)
    fresh = write(tmp_path / "fresh", rows, events, range(12))
    want = run(spark, fresh, tmp_path / "want", start=4, end=10)
    assert read(tmp_path / "second" / "impressions").equals(read(tmp_path / "want" / "impressions"))
    assert second.statistics == want.statistics
    assert second.files_read < want.files_read


def test_a_judged_day_that_was_deleted_is_judged_again(spark, tmp_path: Path) -> None:
    rows, events = random_log(8)
    log = write(tmp_path / "log", rows, events)
    cache = FolderCache(tmp_path / "days")
    run(spark, log, tmp_path / "first", cache=cache)
    shutil.rmtree(next((tmp_path / "days").iterdir()))
    again = run(spark, log, tmp_path / "again", cache=cache)
    assert again.files_read > 0
    assert read(tmp_path / "again" / "impressions").equals(read(tmp_path / "first" / "impressions"))


def test_a_broken_partition_is_named_and_nothing_is_written(spark, tmp_path: Path) -> None:
    rows, events = random_log(9)
    log = write(tmp_path / "log", rows, events)
    path = log / "frontend" / f"date={at(3).date()}" / "part-0.parquet"
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(ContractError, match=r"frontend/date=2026-01-08/part-0\.parquet: not a whole Parquet file"):
        run(spark, log, tmp_path / "out")
    assert not list((tmp_path / "out").rglob("*.parquet"))


def test_a_window_after_the_watermark_says_until_when_the_log_is_complete(spark, tmp_path: Path) -> None:
    rows, events = random_log(10)
    log = write(tmp_path / "log", rows, events)
    with pytest.raises(RejectedError, match=r"no valid impression in it; .* complete in both parts until 2026-01-12"):
        run(spark, log, tmp_path / "out", start=8, end=10)
