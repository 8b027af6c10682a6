"""Hybrid logs: joined, deduplicated, labelled in time; compared with a plain Python reading of the contract."""

from __future__ import annotations

import os
import shutil
from collections import Counter
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tidewheel.contracts.hybrid import MARKER
from tidewheel.contracts.recipe import CounterConfig, HybridSource, IngestConfig, LabelConfig
from tidewheel.contracts.schema import Entity, FeatureKind, FeatureSpec
from tidewheel.contracts.window import Window
from tidewheel.errors import ContractError, RejectedError
from tidewheel.logs import IngestResult, ingest
from tidewheel.logs.days import FolderCache

START = datetime(2026, 1, 5, tzinfo=UTC)
HORIZON = timedelta(hours=6)
SOURCE = HybridSource(kind="hybrid", labels=("click", "like"))
LABELS = (LabelConfig(name="click", prior=0.1), LabelConfig(name="like", prior=0.02, gated=False))
COUNTERS = CounterConfig(labels=("click", "like"), smoothing=10, lookback_days=2)
CONFIG = IngestConfig(max_quarantine_share=0.9, counters=COUNTERS)
TIME = pa.timestamp("us", tz="UTC")
BACKEND = pa.schema(
    [
        ("request_id", pa.string()),
        ("user_id", pa.int64()),
        ("item_id", pa.int64()),
        ("author_id", pa.int64()),
        ("served_time", TIME),
        ("position", pa.int32()),
        ("is_randomized", pa.bool_()),
        ("propensity", pa.float64()),
        ("bundle", pa.string()),
        ("is_feature_miss", pa.bool_()),
        ("score_click", pa.float64()),
        ("surface", pa.string()),
        ("price", pa.float64()),
    ]
)
FRONTEND = pa.schema(
    [
        ("request_id", pa.string()),
        ("item_id", pa.int64()),
        ("served_time", TIME),
        ("event", pa.string()),
        ("event_time", TIME),
        ("logged_time", TIME),
        ("logging_rate", pa.float64()),
    ]
)


def feature(number: int, name: str, kind: FeatureKind = FeatureKind.NUMERIC, buckets: int = 0) -> FeatureSpec:
    return FeatureSpec(id=number, name=name, kind=kind, entity=Entity.CONTEXT, num_buckets=buckets)


FEATURES = (
    feature(1, "user_id", FeatureKind.HASHED, 64),
    feature(2, "surface", FeatureKind.VOCABULARY),
    feature(3, "price"),
    *(
        feature(4 + number, name)
        for number, name in enumerate(
            f"{entity}_{what}" for entity in ("user", "item") for what in ("click_rate", "impressions")
        )
    ),
)


def at(days: float, seconds: float = 0.0) -> datetime:
    return START + timedelta(days=days, seconds=seconds)


def candidate(request: str, item: int, served: datetime, **changes: object) -> dict[str, object]:
    row = {
        "request_id": request,
        "user_id": int(request.lstrip("r")) % 5,
        "item_id": item,
        "author_id": item // 2,
        "served_time": served,
        "position": 0,
        "is_randomized": False,
        "propensity": None,
        "bundle": None,
        "is_feature_miss": False,
        "score_click": 0.5,
        "surface": "feed",
        "price": 1.5,
    }
    return row | changes


def event(of: dict[str, object], what: str, after_seconds: float = 1.0, **changes: object) -> dict[str, object]:
    happened = of["served_time"] + timedelta(seconds=after_seconds)
    row = {name: of[name] for name in ("request_id", "item_id", "served_time")}
    row |= {"event": what, "event_time": happened, "logged_time": happened + timedelta(seconds=1), "logging_rate": 0.25}
    return row | changes


def write(folder: Path, candidates: list, events: list, days: range = range(7), arrivals: dict | None = None) -> Path:
    """Write both parts for these days since START; a line arrives when it happened, unless `arrivals` says otherwise."""
    for part, rows, schema, column in (
        ("backend", candidates, BACKEND, "served_time"),
        ("frontend", events, FRONTEND, "logged_time"),
    ):
        for day in days:
            target = folder / part / f"date={at(day).date()}"
            target.mkdir(parents=True)
            arrived = (arrivals or {}).get
            own = [
                row for row in rows if (arrived(id(row)) if arrived(id(row)) is not None else (row[column] - START).days) == day
            ]
            pq.write_table(pa.Table.from_pylist(own, schema), target / "part-0.parquet")
            (target / MARKER).touch()
    return folder


def run(spark, log: Path, out: Path, start: float = 2, end: float = 5, **more: object) -> IngestResult:
    window = Window(start=at(start), end=at(end))
    options = {"source": SOURCE, "config": CONFIG} | more
    return ingest(
        spark,
        options.pop("source"),
        LABELS,
        FEATURES,
        options.pop("config"),
        window,
        out,
        log,
        HORIZON,
        options.pop("cache", None),
    )


def read(folder: Path) -> pd.DataFrame:
    paths = sorted(folder.rglob("*.parquet"))
    return pd.concat([pd.read_parquet(path) for path in paths], ignore_index=True) if paths else pd.DataFrame()


def filler(first: int = 900) -> tuple[list, list]:
    """A clicked and a liked row on day 2: a window without positives would be refused."""
    rows = [candidate(f"r{first + number}", 90 + number, at(2, 60 + number)) for number in range(2)]
    return rows, [event(row, what) for row in rows for what in ("click", "like")]


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


# --- against a plain reading of the contract --------------------------------------------------------------------------


def random_log(seed: int, days: int = 7, requests: int = 12) -> tuple[list, list]:
    """Candidates and events with repeats, reactions around midnight and beyond the horizon, misses and orphans."""
    rng = np.random.default_rng(seed)
    rows, events = [], []
    for day in range(days):
        for number in range(requests):
            served = at(day, float(rng.integers(0, 86_400)))
            for item in rng.choice(8, 3, replace=False):
                row = candidate(f"r{day * 100 + number}", int(item), served, price=float(rng.integers(0, 9)))
                row["is_feature_miss"] = bool(rng.random() < 0.03)
                rows += [row] * (2 if rng.random() < 0.1 else 1)
                if rng.random() < 0.05:
                    row = candidate("r99999", int(item), served)
                own = []
                if rng.random() < 0.5:
                    own.append(event(row, "impression", 1.0))
                for label in ("click", "like"):
                    if rng.random() < 0.3:
                        own.append(event(row, label, float(rng.choice([5.0, 1800.0, 5 * 3600.0, 8 * 3600.0]))))
                events += own + [one for one in own if rng.random() < 0.1]
    return rows, events


def by_hand(rows: list, events: list, start: float, end: float, complete_days: int) -> pd.DataFrame:
    """The contract of docs/hybrid-log.md, row by row."""
    served = {(row["request_id"], row["item_id"]): row for row in rows}
    arrived = [one for one in events if (one["logged_time"] - START).days < complete_days]
    found = {}
    for key, row in served.items():
        own = [one for one in arrived if (one["request_id"], one["item_id"]) == key]
        in_time = {
            label: [
                one["event_time"] for one in own if one["event"] == label and one["event_time"] <= row["served_time"] + HORIZON
            ]
            for label in ("click", "like")
        }
        labels = {label: int(bool(times)) for label, times in in_time.items()}
        is_logged = any(one["event"] == "impression" for one in own)
        if row["is_feature_miss"] or not (is_logged or any(labels.values())):
            continue
        found[key] = {
            "served": row["served_time"],
            "user_id": row["user_id"],
            "inclusion_probability": 1.0 if any(labels.values()) else 0.25,
            "alone": 4.0 if is_logged else 0.0,
            "times": {label: min(times) for label, times in in_time.items() if times},
            **labels,
        }
    table = []
    for (request, item), row in found.items():
        if not at(start) <= row["served"] < at(end) or row["served"] + HORIZON > at(complete_days):
            continue
        midnight = datetime.combine(row["served"].date(), datetime.min.time(), UTC)
        counters = {}
        for entity, mine in (("user", lambda k, r: r["user_id"] == row["user_id"]), ("item", lambda k, r: k[1] == item)):  # noqa: B023
            impressions = clicks = 0.0
            for key, other in found.items():
                if not mine(key, other):
                    continue
                first, last = midnight - timedelta(days=2), midnight
                known = list(other["times"].values())
                positive = min(known).date() if known else date.max
                day = other["served"].date()
                if first.date() <= day < last.date():
                    impressions += 1.0 if positive <= day else other["alone"]
                if positive > day and first.date() <= positive < last.date():
                    impressions += 1.0 - other["alone"]
                if "click" in other["times"] and first.date() <= max(other["times"]["click"].date(), day) < last.date():
                    clicks += 1.0
            counters |= {f"{entity}_impressions": impressions, f"{entity}_click_rate": (clicks + 1.0) / (impressions + 10.0)}
        table.append({"request_id": request, "item_id": item, **row, **counters})
    return pd.DataFrame(table).sort_values(["request_id", "item_id"]).reset_index(drop=True)


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**32 - 1))
def test_any_hybrid_log_is_read_as_its_contract_says(spark, tmp_path_factory, seed: int) -> None:
    folder = tmp_path_factory.mktemp("hybrid")
    rows, events = random_log(seed)
    run(spark, write(folder / "log", rows, events, range(6)), folder / "out", start=2, end=6)
    want = by_hand(rows, events, 2, 6, complete_days=6)
    got = read(folder / "out" / "impressions").sort_values(["request_id", "item_id"]).reset_index(drop=True)
    assert got.request_id.tolist() == want.request_id.tolist()
    assert got.item_id.tolist() == want.item_id.tolist()
    for name, column in (("label_click", "click"), ("label_like", "like")):
        assert got[name].tolist() == want[column].tolist()
    assert got.inclusion_probability.tolist() == want.inclusion_probability.tolist()
    for name in ("user_impressions", "user_click_rate", "item_impressions", "item_click_rate"):
        np.testing.assert_allclose(got[name], want[name], atol=1e-8, err_msg=name)


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**32 - 1), cut=st.integers(2, 5))
def test_as_of_features_never_see_the_impressions_day_or_anything_later(spark, tmp_path_factory, seed: int, cut: int) -> None:
    """Whatever is served, and whatever happens, from a day's midnight on: the features of that day's rows stay as they are."""
    folder = tmp_path_factory.mktemp("as-of")
    rows, events = random_log(seed)
    other_rows, other_events = random_log(seed + 1)
    is_past = lambda one: one["event_time"] < at(cut)  # noqa: E731
    changed = [one for one in events if is_past(one)] + [
        event(row, what, 60.0) for row in rows if row["served_time"] >= at(cut) for what in ("impression", "click")
    ]
    changed += [one for one in other_events if one["served_time"] >= at(cut + 1)]
    late = [one for one in events if not is_past(one) and one["served_time"] < at(cut)]
    changed += [dict(one, event="like" if one["event"] == "click" else one["event"]) for one in late]
    new_rows = rows + [
        dict(row, request_id="r8" + str(row["request_id"])[1:]) for row in other_rows if row["served_time"] >= at(cut + 1)
    ]
    tables = []
    for name, candidates, reported in (("a", rows, events), ("b", new_rows, changed)):
        run(spark, write(folder / name, candidates, reported), folder / f"out-{name}", start=2, end=6)
        table = read(folder / f"out-{name}" / "impressions")
        on_day = table[(table.event_time >= at(cut)) & (table.event_time < at(cut + 1))]
        tables.append(on_day.set_index(["request_id", "item_id"])[[spec.name for spec in FEATURES[3:]]])
    shared = tables[0].index.intersection(tables[1].index)
    assert len(shared)
    assert tables[0].loc[shared].equals(tables[1].loc[shared])
