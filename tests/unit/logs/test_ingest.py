from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tidewheel.contracts.recipe import CounterConfig, IngestConfig, LabelConfig, ParquetSource
from tidewheel.contracts.schema import KEY_COLUMNS, Entity, FeatureKind, FeatureSpec
from tidewheel.contracts.window import Window
from tidewheel.errors import ConfigError, ContractError, RejectedError
from tidewheel.logs import IngestResult, ingest
from tidewheel.logs.adapter import GIVEN_COLUMNS
from tidewheel.sampling.hash import xxhash64

START = datetime(2026, 1, 5, tzinfo=UTC)
WINDOW = Window(start=START + timedelta(days=4), end=START + timedelta(days=7))
SOURCE = ParquetSource(
    kind="parquet",
    columns={name: name for name in GIVEN_COLUMNS},
    labels={"click": "label_click", "like": "label_like"},
)
LABELS = (LabelConfig(name="click", prior=0.1), LabelConfig(name="like", prior=0.02, gated=False))
COUNTERS = CounterConfig(labels=("click",), smoothing=20, lookback_days=3)
CONFIG = IngestConfig(max_quarantine_share=0.05, counters=COUNTERS)
SCHEMA = pa.schema(
    [
        ("request_id", pa.string()),
        ("user_id", pa.int64()),
        ("item_id", pa.int64()),
        ("author_id", pa.int64()),
        ("event_time", pa.timestamp("us", tz="UTC")),
        ("position", pa.int32()),
        ("is_randomized", pa.bool_()),
        ("propensity", pa.float64()),
        ("inclusion_probability", pa.float64()),
        ("label_click", pa.int8()),
        ("label_like", pa.int8()),
        ("surface", pa.string()),
    ]
)


def feature(number: int, name: str, kind: FeatureKind = FeatureKind.NUMERIC, buckets: int = 0) -> FeatureSpec:
    return FeatureSpec(id=number, name=name, kind=kind, entity=Entity.CONTEXT, num_buckets=buckets)


FEATURES = (
    feature(1, "user_id", FeatureKind.HASHED, 64),
    feature(2, "surface", FeatureKind.VOCABULARY),
    *(
        feature(3 + number, name)
        for number, name in enumerate(
            f"{entity}_{what}" for entity in ("user", "item", "author") for what in ("click_rate", "impressions")
        )
    ),
)


def log(count: int = 600, days: int = 7, seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    is_randomized = rng.random(count) < 0.1
    seconds = np.sort(rng.integers(0, days * 86_400, count))
    item = rng.integers(0, 30, count)
    return pd.DataFrame(
        {
            "request_id": [f"r{number}" for number in range(count)],
            "user_id": rng.integers(0, 40, count),
            "item_id": item,
            "author_id": item // 3,
            "event_time": [START + timedelta(seconds=int(second)) for second in seconds],
            "position": rng.integers(0, 8, count),
            "is_randomized": is_randomized,
            "propensity": np.where(is_randomized, 0.125, np.nan),
            "inclusion_probability": rng.choice([0.3, 1.0], count),
            "label_click": rng.integers(0, 2, count),
            "label_like": rng.integers(0, 2, count),
            "surface": rng.choice(["feed", "search"], count),
        }
    )


def write_log(frame: pd.DataFrame, folder: Path) -> Path:
    for day, rows in frame.groupby(frame.event_time.dt.date):
        target = folder / f"date={day.isoformat()}"
        target.mkdir(parents=True)
        pq.write_table(pa.Table.from_pandas(rows, SCHEMA, preserve_index=False), target / "part-0.parquet")
    return folder


def run(spark, base: Path, out: Path, window: Window = WINDOW, config: IngestConfig = CONFIG) -> IngestResult:
    out.mkdir()
    return ingest(spark, SOURCE, LABELS, FEATURES, config, window, out, base)


def read(folder: Path) -> pd.DataFrame:
    return pd.concat([pd.read_parquet(path) for path in sorted(folder.rglob("*.parquet"))], ignore_index=True)


def counters_by_hand(frame: pd.DataFrame, row: pd.Series, key: str) -> tuple[float, float]:
    day = row.event_time.floor("D")
    seen = frame[(frame[key] == row[key]) & (frame.event_time < day) & (frame.event_time >= day - pd.Timedelta(days=3))]
    weight = 1 / seen.inclusion_probability
    return weight.sum(), ((weight * seen.label_click).sum() + 20 * 0.1) / (weight.sum() + 20)


def test_rows_of_the_window_come_out_in_canonical_columns(spark, tmp_path: Path) -> None:
    frame = log()
    result = run(spark, write_log(frame, tmp_path / "log"), tmp_path / "out")
    want = frame[frame.event_time >= WINDOW.start]
    got = read(tmp_path / "out" / "impressions")
    names = [*KEY_COLUMNS, "label_click", "label_like", "surface", *(spec.name for spec in FEATURES[2:])]
    assert list(got.columns) == names
    assert got.row_key.is_monotonic_increasing
    merged = want.merge(got, on=["request_id", "item_id", "event_time"], suffixes=("", "_got"))
    assert len(merged) == len(got) == len(want) == result.rows
    for name in ("user_id", "author_id", "is_randomized", "inclusion_probability", "label_click", "surface"):
        assert (merged[name] == merged[f"{name}_got"]).all()
    assert result.randomized_rows == want.is_randomized.sum()
    assert result.weight_sum == pytest.approx((1 / want.inclusion_probability).sum())
    assert result.statistics["rows_read"] == len(want)
    assert result.statistics["positives.click"] == want.label_click.sum()
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"impressions", "counters", "quarantine"}


def test_counters_see_whole_earlier_days_of_the_lookback_and_nothing_later(spark, tmp_path: Path) -> None:
    frame = log()
    run(spark, write_log(frame, tmp_path / "log"), tmp_path / "out")
    got = read(tmp_path / "out" / "impressions")
    for _, row in got.iterrows():
        for entity in ("user", "item", "author"):
            impressions, rate = counters_by_hand(frame, row, f"{entity}_id")
            assert row[f"{entity}_impressions"] == pytest.approx(impressions, abs=1e-6)
            assert row[f"{entity}_click_rate"] == pytest.approx(rate, abs=1e-8)


def test_the_snapshot_is_what_a_row_on_the_day_of_the_windows_end_would_see(spark, tmp_path: Path) -> None:
    frame = log()
    run(spark, write_log(frame, tmp_path / "log"), tmp_path / "out")
    snapshot = read(tmp_path / "out" / "counters")
    assert list(snapshot.columns) == ["entity", "key", "impressions", "click_rate"]
    for _, row in snapshot.iterrows():
        asked = pd.Series({"event_time": pd.Timestamp(WINDOW.end), f"{row.entity}_id": row.key})
        impressions, rate = counters_by_hand(frame, asked, f"{row.entity}_id")
        assert row.impressions == pytest.approx(impressions, abs=1e-6)
        assert row.click_rate == pytest.approx(rate, abs=1e-8)
    recent = frame[frame.event_time >= WINDOW.end - timedelta(days=3)]
    assert set(snapshot[snapshot.entity == "user"].key) == set(recent.user_id)


def test_what_happens_on_a_rows_own_day_cannot_reach_its_counters(spark, tmp_path: Path) -> None:
    frame = log()
    last = frame.event_time >= WINDOW.end - timedelta(days=1)
    flipped = frame.assign(label_click=frame.label_click.where(~last, 1 - frame.label_click))
    tables = []
    for name, rows in (("a", frame), ("b", flipped)):
        run(spark, write_log(rows, tmp_path / f"log-{name}"), tmp_path / f"out-{name}")
        tables.append(read(tmp_path / f"out-{name}" / "impressions").drop(columns=["label_click"]))
    assert tables[0].equals(tables[1])


def test_the_same_log_gives_the_same_bytes_however_its_rows_lie(spark, tmp_path: Path) -> None:
    frame = log()
    run(spark, write_log(frame, tmp_path / "log-a"), tmp_path / "a")
    run(spark, write_log(frame.sample(frac=1, random_state=1), tmp_path / "log-b"), tmp_path / "b")
    files = sorted(path.relative_to(tmp_path / "a") for path in (tmp_path / "a").rglob("*.parquet"))
    assert [path.as_posix() for path in files] == [
        *(f"counters/{entity}/part-00000.parquet" for entity in ("author", "item", "user")),
        "impressions/part-00000.parquet",
    ]
    for path in files:
        assert (tmp_path / "a" / path).read_bytes() == (tmp_path / "b" / path).read_bytes()


def test_repeats_are_removed_and_counted_and_the_row_that_saw_more_stays(spark, tmp_path: Path) -> None:
    frame = log().assign(label_click=0)
    frame.loc[frame.index[-5], "label_click"] = 1
    exact = frame.iloc[[-1, -1, -2]]
    conflicting = frame.iloc[[-3]].assign(label_click=1)
    base = write_log(pd.concat([frame, exact, conflicting]), tmp_path / "log")
    result = run(spark, base, tmp_path / "out")
    got = read(tmp_path / "out" / "impressions").set_index("request_id")
    want = frame[frame.event_time >= WINDOW.start]
    assert sorted(got.index) == sorted(want.request_id)
    assert result.statistics["exact_duplicates"] == 3
    assert result.statistics["conflicting_duplicates"] == 1
    assert result.statistics["rows_read"] == len(want) + 4
    assert got.loc[frame.request_id.iloc[-3], "label_click"] == 1


def test_malformed_rows_are_quarantined_with_a_reason_and_never_counted(spark, tmp_path: Path) -> None:
    frame = log().astype({"user_id": "Int64", "label_click": "Int64", "is_randomized": "boolean"})
    faults = {
        "no_user_id": ("user_id", pd.NA),
        "no_request_id": ("request_id", None),
        "label_click_not_0_or_1": ("label_click", 2),
        "inclusion_probability_outside_0_1": ("inclusion_probability", 0.0),
        "propensity_outside_0_1": ("propensity", np.nan),
    }
    rows = frame.index[-len(faults) :]
    frame.loc[rows, "is_randomized"] = True
    frame.loc[rows, "propensity"] = 0.5
    for row, (column, value) in zip(rows, faults.values(), strict=True):
        frame.loc[row, column] = value
    result = run(spark, write_log(frame, tmp_path / "log"), tmp_path / "out")
    quarantine = read(tmp_path / "out" / "quarantine").set_index("reason").row
    assert set(quarantine.index) == set(faults)
    assert json.loads(quarantine["label_click_not_0_or_1"])["label_click"] == 2
    in_window = (frame.event_time >= WINDOW.start).sum()
    assert result.rows == in_window - len(faults)
    assert result.statistics["quarantined"] == len(faults)
    assert result.statistics["quarantine_share"] == pytest.approx(len(faults) / in_window)
    assert all(result.statistics[f"quarantined.{reason}"] == 1 for reason in faults)
    healthy = frame.drop(index=rows)
    author = read(tmp_path / "out" / "counters").query("entity == 'author'").impressions.sum()
    recent = healthy[healthy.event_time >= WINDOW.end - timedelta(days=3)]
    assert author == pytest.approx((1 / recent.inclusion_probability).sum())


def test_too_many_malformed_rows_reject_the_window_with_numbers(spark, tmp_path: Path) -> None:
    frame = log()
    frame.loc[frame.index[-60:], "inclusion_probability"] = 7.0
    with pytest.raises(
        RejectedError, match=r"60 of \d+ rows are malformed \(inclusion_probability_outside_0_1 60\).* > limit 0.05"
    ):
        run(spark, write_log(frame, tmp_path / "log"), tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


def test_an_empty_window_names_the_time_span_of_the_log(spark, tmp_path: Path) -> None:
    base = write_log(log(), tmp_path / "log")
    later = Window.ending(START + timedelta(days=60), 7)
    with pytest.raises(RejectedError, match=r"window \[2026-02-27, 2026-03-06\): .* from 2026-01-05T.* to 2026-01-11T"):
        run(spark, base, tmp_path / "out", window=later)


def test_a_label_without_positives_rejects_the_window(spark, tmp_path: Path) -> None:
    base = write_log(log().assign(label_like=0), tmp_path / "log")
    with pytest.raises(RejectedError, match="label like has no positives in"):
        run(spark, base, tmp_path / "out")


def test_a_missing_column_names_the_column_and_the_file(spark, tmp_path: Path) -> None:
    base = write_log(log(), tmp_path / "log")
    path = base / "date=2026-01-11" / "part-0.parquet"
    pq.write_table(pq.read_table(path).drop(["surface"]), path)
    with pytest.raises(ContractError, match=r"date=2026-01-11/part-0\.parquet: no column surface; found "):
        run(spark, base, tmp_path / "out")


def test_a_truncated_file_is_named_before_the_engine_sees_it(spark, tmp_path: Path) -> None:
    base = write_log(log(), tmp_path / "log")
    path = base / "date=2026-01-06" / "part-0.parquet"
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(ContractError, match=r"date=2026-01-06/part-0\.parquet: not a whole Parquet file"):
        run(spark, base, tmp_path / "out")


def test_damage_behind_a_whole_footer_is_one_line_without_a_trace(spark, tmp_path: Path) -> None:
    base = write_log(log(), tmp_path / "log")
    path = base / "date=2026-01-10" / "part-0.parquet"
    content = bytearray(path.read_bytes())
    content[4:400] = b"\xff" * 396
    path.write_bytes(bytes(content))
    with pytest.raises(ContractError, match="the log cannot be read") as raised:
        run(spark, base, tmp_path / "out")
    assert "\n" not in str(raised.value)


def test_a_parquet_log_gives_the_same_impressions_under_the_recipes_names(spark, tmp_path: Path) -> None:
    frame = log()
    run(spark, write_log(frame, tmp_path / "world"), tmp_path / "want")
    other = frame.rename(columns={"user_id": "who", "item_id": "what", "event_time": "when", "label_click": "clicked"})
    other["when"] = [moment.isoformat() for moment in other["when"]]
    (tmp_path / "log").mkdir()
    other.to_parquet(tmp_path / "log" / "log.parquet")
    names = ("request_id", "author_id", "position", "is_randomized", "propensity", "inclusion_probability")
    source = ParquetSource(
        kind="parquet",
        columns={"user_id": "who", "item_id": "what", "event_time": "when"} | {name: name for name in names},
        labels={"click": "clicked", "like": "label_like"},
    )
    (tmp_path / "got").mkdir()
    ingest(spark, source, LABELS, FEATURES, CONFIG, WINDOW, tmp_path / "got", tmp_path / "log")
    assert read(tmp_path / "got" / "impressions").equals(read(tmp_path / "want" / "impressions"))


def test_a_parquet_log_without_requests_gets_one_a_user_and_hour(spark, tmp_path: Path) -> None:
    milliseconds = int(WINDOW.start.timestamp() * 1000)
    rows = {
        "u": [5, 5],
        "i": [1, 2],
        "ms": [milliseconds, milliseconds + 3_600_000],
        "click": [0.0, 1.0],
        "like": [True, False],
    }
    pq.write_table(pa.table(rows), tmp_path / "log.parquet")
    columns = {"user_id": "u", "item_id": "i", "event_time": "ms"}
    source = ParquetSource(kind="parquet", columns=columns, labels={"click": "click", "like": "like"})
    (tmp_path / "out").mkdir()
    ingest(spark, source, LABELS, FEATURES[:1], CONFIG, WINDOW, tmp_path / "out", tmp_path)
    got = read(tmp_path / "out" / "impressions").sort_values("event_time")
    assert got.request_id.tolist() == ["u5-491088", "u5-491089"]
    assert got.author_id.tolist() == [1, 2]
    assert got.inclusion_probability.tolist() == [1.0, 1.0]
    assert got.label_like.tolist() == [1, 0]


def test_features_that_a_parquet_log_lacks_are_named(spark, tmp_path: Path) -> None:
    milliseconds = int(WINDOW.start.timestamp() * 1000)
    pq.write_table(pa.table({"u": [1], "i": [1], "ms": [milliseconds], "click": [1], "like": [1]}), tmp_path / "log.parquet")
    source = ParquetSource(
        kind="parquet",
        columns={"user_id": "u", "item_id": "i", "event_time": "ms"},
        labels={"click": "click", "like": "like"},
    )
    with pytest.raises(ContractError, match=r"log\.parquet: no column surface"):
        ingest(spark, source, LABELS, FEATURES, CONFIG, WINDOW, tmp_path / "out", tmp_path)


def test_a_feature_of_the_outcome_is_refused_before_anything_is_read(spark, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="label_click cannot be a feature"):
        ingest(spark, SOURCE, LABELS, [feature(9, "label_click")], CONFIG, WINDOW, tmp_path, tmp_path / "nowhere")


def test_the_row_key_is_the_hash_of_request_item_and_time(spark, tmp_path: Path) -> None:
    from pyspark.sql import functions as F

    run(spark, write_log(log(), tmp_path / "log"), tmp_path / "out")
    row = read(tmp_path / "out" / "impressions").iloc[0]
    request = spark.range(1).select(F.xxhash64(F.lit(row.request_id))).collect()[0][0]
    item = xxhash64(np.array([row.item_id]), seed=np.array([request]))
    microseconds = row.event_time.value // 1000
    assert xxhash64(np.array([microseconds]), seed=item).tolist() == [row.row_key]


def test_a_time_beyond_all_calendars_is_quarantined(spark, tmp_path: Path) -> None:
    milliseconds = int(WINDOW.start.timestamp() * 1000)
    times = [milliseconds + number for number in range(40)] + [2**62]
    rows = {"u": [5] * 41, "i": [1] * 41, "ms": times, "click": [1] * 41, "like": [1] * 41}
    pq.write_table(pa.table(rows), tmp_path / "log.parquet")
    columns = {"user_id": "u", "item_id": "i", "event_time": "ms"}
    source = ParquetSource(kind="parquet", columns=columns, labels={"click": "click", "like": "like"})
    (tmp_path / "out").mkdir()
    result = ingest(spark, source, LABELS, FEATURES[:1], CONFIG, WINDOW, tmp_path / "out", tmp_path)
    # Without a time there is no derived request either: the first fault is the reason.
    assert (result.rows, result.statistics["quarantined"], result.statistics["quarantined.no_request_id"]) == (40, 1, 1)


def test_a_column_that_the_log_grew_meanwhile_is_null_in_the_days_before(spark, tmp_path: Path) -> None:
    base = write_log(log(), tmp_path / "log")
    path = base / "date=2026-01-10" / "part-0.parquet"
    pq.write_table(pq.read_table(path).drop(["surface"]), path)
    run(spark, base, tmp_path / "out")
    got = read(tmp_path / "out" / "impressions")
    is_before = got.event_time.dt.date.astype(str) == "2026-01-10"
    assert is_before.any()
    assert (got.surface.isna() == is_before).all()


def test_a_schema_that_changes_in_the_window_changes_nothing_about_the_rows(spark, tmp_path: Path) -> None:
    """Ids in 32 bits until one day, in 64 after it; labels as integers, then as doubles: the same impressions."""
    base = write_log(log(), tmp_path / "log")
    run(spark, base, tmp_path / "want")
    for day in ("2026-01-09", "2026-01-10"):
        path = base / f"date={day}" / "part-0.parquet"
        table = pq.read_table(path)
        for name, kind in (("user_id", pa.int32()), ("item_id", pa.int32()), ("label_click", pa.float64())):
            table = table.set_column(table.column_names.index(name), name, table[name].cast(kind))
        pq.write_table(table, path)
    run(spark, base, tmp_path / "got")
    assert read(tmp_path / "got" / "impressions").equals(read(tmp_path / "want" / "impressions"))


def test_a_partition_delivered_twice_doubles_no_row(spark, tmp_path: Path) -> None:
    base = write_log(log(), tmp_path / "log")
    once = run(spark, base, tmp_path / "once")
    day = base / "date=2026-01-10"
    (day / "part-1.parquet").write_bytes((day / "part-0.parquet").read_bytes())
    twice = run(spark, base, tmp_path / "twice")
    assert read(tmp_path / "twice" / "impressions").equals(read(tmp_path / "once" / "impressions"))
    assert twice.statistics["exact_duplicates"] == pq.read_metadata(day / "part-0.parquet").num_rows
    assert twice.statistics["rows_read"] == once.statistics["rows_read"] + twice.statistics["exact_duplicates"]
