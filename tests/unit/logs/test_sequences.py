"""Sequences: the last items before the day, newest first, of what was known by then and of nothing else."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.unit.logs import hybrid_lines
from tests.unit.logs.hybrid_lines import HORIZON, candidate, event, filler, random_log
from tests.unit.logs.test_ingest import CONFIG, LABELS, SOURCE, START, WINDOW, log, read, write_log
from tests.unit.sampling.real_spark import real_spark
from tidewheel.contracts.schema import Entity, FeatureKind, FeatureSpec
from tidewheel.errors import ConfigError
from tidewheel.logs import ingest

HOUR = pd.Timedelta(hours=1)


def sequence(number: int, name: str, **changes: object) -> FeatureSpec:
    given = {"of": "item_id", "label": "click", "length": 3} | changes
    return FeatureSpec(id=number, name=name, kind=FeatureKind.SEQUENCE, entity=Entity.USER, **given)


ITEM = FeatureSpec(id=1, name="item_id", kind=FeatureKind.HASHED, entity=Entity.ITEM, num_buckets=64)
AUTHOR = FeatureSpec(id=2, name="author_id", kind=FeatureKind.HASHED, entity=Entity.ITEM, num_buckets=64)
CLICKS = sequence(3, "clicks")
SEEN = sequence(4, "seen", of="author_id", label="", length=5)
FEATURES = (ITEM, AUTHOR, CLICKS, SEEN)


def run(spark, base: Path, out: Path, features: tuple[FeatureSpec, ...] = FEATURES) -> None:
    out.mkdir()
    ingest(spark, SOURCE, LABELS, features, CONFIG, WINDOW, out, base)


def by_hand(frame: pd.DataFrame, user: int, day: pd.Timestamp, feature: FeatureSpec) -> tuple[list[int], list[int]]:
    """Items and ages before a day, over the three days of CONFIG's lookback; no two times of `log` are equal for a user."""
    seen = frame[(frame.user_id == user) & (frame.event_time < day) & (frame.event_time >= day - pd.Timedelta(days=3))]
    if feature.label:
        seen = seen[seen[f"label_{feature.label}"] == 1]
    last = seen.sort_values("event_time", ascending=False).head(feature.length)
    return last[feature.of].tolist(), [(day - time) // HOUR for time in last.event_time]


def test_a_row_has_the_last_items_before_its_day_newest_first_with_their_ages_in_hours(spark, tmp_path: Path) -> None:
    frame = log()
    assert not frame.duplicated(["user_id", "event_time"]).any()
    run(spark, write_log(frame, tmp_path / "log"), tmp_path / "out")
    got = read(tmp_path / "out" / "impressions")
    lengths = set()
    for _, row in got.iterrows():
        for feature in (CLICKS, SEEN):
            items, ages = by_hand(frame, row.user_id, row.event_time.floor("D"), feature)
            assert row[feature.name].tolist() == items
            assert row[f"{feature.name}_age_hours"].tolist() == ages
            lengths.add(len(items))
    assert lengths == {0, 1, 2, 3, 4, 5}


def test_the_snapshot_is_what_a_row_on_the_day_of_the_windows_end_would_see(spark, tmp_path: Path) -> None:
    frame = log()
    run(spark, write_log(frame, tmp_path / "log"), tmp_path / "out")
    snapshot = read(tmp_path / "out" / "sequences").set_index("user_id")
    assert list(snapshot.columns) == ["clicks", "clicks_age_hours", "seen", "seen_age_hours"]
    end = pd.Timestamp(WINDOW.end)
    for user in range(40):
        for feature in (CLICKS, SEEN):
            items, ages = by_hand(frame, user, end, feature)
            if user in snapshot.index:
                assert snapshot.loc[user, feature.name].tolist() == items
                assert snapshot.loc[user, f"{feature.name}_age_hours"].tolist() == ages
            else:
                assert items == []


def test_without_a_sequence_nothing_about_them_is_written(spark, tmp_path: Path) -> None:
    run(spark, write_log(log(), tmp_path / "log"), tmp_path / "out", FEATURES[:2])
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"impressions", "counters", "quarantine"}


def test_items_of_one_moment_are_in_the_order_of_their_row_keys(spark, tmp_path: Path) -> None:
    frame = log(count=40).assign(user_id=7, label_click=1)
    frame["event_time"] = [START + timedelta(days=3)] * 20 + [WINDOW.start] * 20
    frame["item_id"], frame["request_id"] = range(40), [f"r{number}" for number in range(40)]
    frame["label_like"] = 1
    everything = sequence(3, "clicks", length=20)
    run(spark, write_log(frame, tmp_path / "log"), tmp_path / "out", (ITEM, everything))
    got = read(tmp_path / "out" / "impressions")
    assert {tuple(found) for found in got.clicks} == {tuple(got.clicks.iloc[0])}
    # The window begins a day after the twenty; their keys are those of the same rows, had the window begun with them.
    (tmp_path / "keys").mkdir()
    earlier = WINDOW.model_copy(update={"start": START + timedelta(days=3)})
    ingest(spark, SOURCE, LABELS, (ITEM,), CONFIG, earlier, tmp_path / "keys", tmp_path / "log")
    keyed = read(tmp_path / "keys" / "impressions").query("item_id < 20").sort_values("row_key", ascending=False)
    assert got.clicks.iloc[0].tolist() == keyed.item_id.tolist()


def test_the_same_log_gives_the_same_bytes_however_its_rows_lie(spark, tmp_path: Path) -> None:
    frame = log()
    run(spark, write_log(frame, tmp_path / "log-a"), tmp_path / "a")
    run(spark, write_log(frame.sample(frac=1, random_state=1), tmp_path / "log-b"), tmp_path / "b")
    for path in ("impressions/part-00000.parquet", "sequences/part-00000.parquet"):
        assert (tmp_path / "a" / path).read_bytes() == (tmp_path / "b" / path).read_bytes()


@pytest.mark.slow
def test_spark_and_the_embedded_engine_give_the_same_sequences(spark, tmp_path: Path) -> None:
    base = write_log(log(), tmp_path / "log")
    run(spark, base, tmp_path / "embedded")
    with real_spark() as other:
        run(other, base, tmp_path / "spark")
    for table in ("impressions", "sequences"):
        names = [f"{table}/part-00000.parquet"]
        want, got = (pq.read_table([tmp_path / engine / name for name in names]) for engine in ("embedded", "spark"))
        assert got.to_pylist() == want.to_pylist()


# --- logs that know when labels came ------------------------------------------------------------------------------------


LATE_CLICKS = sequence(3, "clicks", length=20)
LATE_SEEN = sequence(4, "seen", label="", length=60)


def run_hybrid(spark, base: Path, out: Path) -> pd.DataFrame:
    features = (ITEM, LATE_CLICKS, LATE_SEEN)
    config, window = hybrid_lines.CONFIG, hybrid_lines.Window(start=hybrid_lines.at(2), end=hybrid_lines.at(6))
    ingest(spark, hybrid_lines.SOURCE, hybrid_lines.LABELS, features, config, window, out, base, HORIZON)
    return read(out / "impressions").set_index("request_id")


def test_a_click_counts_from_the_moment_it_became_known(spark, tmp_path: Path) -> None:
    """Served before midnight and clicked after it: the next day does not know of it, the one after does."""
    rows, events = filler()
    late = candidate("r5", 42, hybrid_lines.at(2, 86_000))
    next_day, after = candidate("r10", 1, hybrid_lines.at(3, 50_000)), candidate("r15", 2, hybrid_lines.at(4, 50_000))
    rows += [late, next_day, after]
    events += [event(late, "click", 3 * 3600.0), event(next_day, "impression"), event(after, "impression")]
    got = run_hybrid(spark, hybrid_lines.write(tmp_path / "log", rows, events), tmp_path / "out")
    assert (got.loc["r10", "user_id"], got.loc["r10", "clicks"].tolist(), got.loc["r10", "seen"].tolist()) == (0, [90], [90])
    # Known at 02:53:20 of day 3, which is 21 hours before day 4. The filler's click, of day 2, is within the two days.
    assert got.loc["r15", "clicks"].tolist() == [42, 90]
    assert got.loc["r15", "clicks_age_hours"].tolist() == [21, 47]
    assert got.loc["r15", "seen"].tolist() == [1, 42, 90]


@pytest.mark.parametrize("seed", range(4))
def test_no_item_is_of_the_day_or_was_known_after_it_began(spark, tmp_path: Path, seed: int) -> None:
    """Against the lines as they were written, without any of the code that joins them."""
    rows, events = random_log(seed)
    got = run_hybrid(spark, hybrid_lines.write(tmp_path / "log", rows, events), tmp_path / "out")
    served = {(row["request_id"], row["item_id"]): row for row in rows}
    clicks: dict[int, dict[int, list[pd.Timestamp]]] = {}
    for line in events:
        row = served.get((line["request_id"], line["item_id"]))
        if row is not None and line["event"] == "click" and line["event_time"] <= row["served_time"] + HORIZON:
            times = clicks.setdefault(row["user_id"], {}).setdefault(row["item_id"], [])
            times.append(pd.Timestamp(line["event_time"]))
    checked = 0
    for _, row in got.iterrows():
        day = row.event_time.floor("D")
        ages = row.clicks_age_hours.tolist()
        assert ages == sorted(ages)
        assert all(0 <= age < 48 for age in [*ages, *row.seen_age_hours])
        for item, age in zip(row.clicks, ages, strict=True):
            assert any((day - time) // HOUR == age and time < day for time in clicks[row.user_id][item])
            checked += 1
    assert checked > 100


def test_what_servers_logged_of_a_sequence_is_made_anew_from_what_happened(spark, tmp_path: Path) -> None:
    """As with counters. Servers began to log it on day 4, with one that was wrong; a malformed line keeps what it said."""
    rows, events = filler()
    seen, odd = candidate("r5", 1, hybrid_lines.at(4)), candidate("r6", 1, hybrid_lines.at(4), is_randomized=True)
    rows, events = [*rows, seen, odd], [*events, event(seen, "impression"), event(odd, "click")]
    base = hybrid_lines.write(tmp_path / "log", rows, events)
    for path in base.glob("backend/date=*/part-0.parquet"):
        if path.parent.name >= f"date={hybrid_lines.at(4).date()}":
            table = pq.ParquetFile(path).read()
            for name, value in (("clicks", 555), ("clicks_age_hours", 3)):
                table = table.append_column(name, pa.array([[value]] * table.num_rows, pa.list_(pa.int64())))
            pq.write_table(table, path)
    got = run_hybrid(spark, base, tmp_path / "out")
    assert got.loc["r5", "clicks"].tolist() == [90]
    assert '"clicks":[555]' in read(tmp_path / "out" / "quarantine").row.iloc[0]


def test_a_sequence_of_an_unknown_label_or_column_is_refused_before_anything_is_read(spark, tmp_path: Path) -> None:
    for wrong, message in (
        (sequence(3, "clicks", label="clik"), r"clicks is of label clik; expected .*Did you mean click\?"),
        (sequence(3, "clicks", of="author_id"), "clicks is of author_id; expected one of item_id"),
    ):
        with pytest.raises(ConfigError, match=message):
            ingest(spark, SOURCE, LABELS, (ITEM, wrong), CONFIG, WINDOW, tmp_path, tmp_path / "nowhere")
