"""Dataframes and the loader keep the same rows with the same weights, whatever the recipe and the partitioning."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tidewheel.contracts.recipe import SampleConfig, SliceRate, WindowConfig
from tidewheel.contracts.window import Window
from tidewheel.errors import RejectedError
from tidewheel.sampling import SPLITS, keep, sample, select

LABELS = ("click", "like")
END = datetime(2026, 1, 12, tzinfo=UTC)
RATE = st.floats(0.01, 1.0)
RECIPES = st.builds(
    SampleConfig,
    salt=st.integers(-(2**63), 2**63 - 1),
    negative_rate=RATE,
    label_rates=st.dictionaries(st.sampled_from(LABELS), RATE),
    slices=st.lists(
        st.builds(
            SliceRate,
            column=st.sampled_from(["tab", "surface", "age"]),
            values=st.lists(st.sampled_from([0, 1, 2, "1", "feed", "search"]), min_size=1, max_size=3).map(tuple),
            negative_rate=RATE,
        ),
        max_size=3,
    ).map(tuple),
)


def impressions(count: int, seed: int = 0, days: int = 7) -> pa.Table:
    rng = np.random.default_rng(seed)
    start = END - timedelta(days=days)
    seconds = rng.integers(0, days * 86_400, count)
    none = rng.random(count) < 0.1
    return pa.table(
        {
            "row_key": pa.array(rng.integers(-(2**63), 2**63 - 1, count)),
            "request_id": [f"r{number}" for number in range(count)],
            "user_id": pa.array(rng.integers(0, 50, count)),
            "item_id": pa.array(rng.integers(0, 50, count)),
            "event_time": pa.array([start + timedelta(seconds=int(s)) for s in seconds], pa.timestamp("us", tz="UTC")),
            "is_randomized": rng.random(count) < 0.1,
            "inclusion_probability": rng.choice([0.1, 0.3, 1.0], count),
            "label_click": pa.array(rng.integers(0, 2, count), pa.int8()),
            "label_like": pa.array((rng.random(count) < 0.1).astype(np.int8)),
            "tab": pa.array(rng.integers(0, 3, count), mask=none),
            "surface": pa.array(rng.choice(["feed", "search", "1"], count), mask=none),
            "age": pa.array(rng.integers(0, 3, count).astype(float)),
        }
    )


def write(table: pa.Table, folder: Path, files: int = 1) -> Path:
    folder.mkdir(parents=True)
    for number in range(files):
        pq.write_table(table.take(np.arange(number, table.num_rows, files)), folder / f"part-{number}.parquet")
    return folder


def read(folder: Path) -> pa.Table:
    return pq.ParquetDataset(sorted(folder.glob("*.parquet"))).read()


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(config=RECIPES, seed=st.integers(0, 100))
def test_both_executors_keep_the_same_rows_with_the_same_weights(spark, config: SampleConfig, seed: int) -> None:
    table = impressions(200, seed)
    want = sorted(zip(*(select(table, config, LABELS)[name].to_pylist() for name in ("row_key", "weight")), strict=True))
    frame = spark.createDataFrame(table)
    for partitions in (1, 7):
        kept = keep(frame.repartition(partitions), config, LABELS).select("row_key", "weight").toArrow()
        assert sorted(zip(kept["row_key"].to_pylist(), kept["weight"].to_pylist(), strict=True)) == want


def test_splits_are_by_time_and_randomized_rows_are_in_no_other(spark, tmp_path: Path) -> None:
    table = impressions(3000)
    config = SampleConfig(salt=3, negative_rate=0.4, calibration_share=0.3, calibration_days=2)
    window_config = WindowConfig(days=7, eval_days=1, first_end=END)
    results = sample(
        spark, write(table, tmp_path / "in"), config, window_config, Window.ending(END, 7), LABELS, tmp_path / "out"
    )
    splits = {split: read(tmp_path / "out" / split).to_pandas() for split in SPLITS}
    frame = table.to_pandas()
    eval_start, calibration_start = END - timedelta(days=1), END - timedelta(days=3)
    ordered = frame[~frame.is_randomized]

    assert set(splits["randomized"].row_key) == set(frame[frame.is_randomized].row_key)
    assert set(splits["eval"].row_key) == set(ordered[ordered.event_time >= eval_start].row_key)
    recent = ordered[(ordered.event_time >= calibration_start) & (ordered.event_time < eval_start)]
    assert set(splits["calibration"].row_key) <= set(recent.row_key)
    share = len(splits["calibration"]) / len(recent)
    assert abs(share - 0.3) < 5 * np.sqrt(0.3 * 0.7 / len(recent))
    before = ordered[(ordered.event_time < eval_start) & ~ordered.row_key.isin(splits["calibration"].row_key)]
    want = select(pa.Table.from_pandas(before, preserve_index=False), config, LABELS).to_pandas()
    got = splits["train"].set_index("row_key").weight
    assert got.sort_index().equals(want.set_index("row_key").weight.sort_index())
    for split in ("calibration", "eval", "randomized"):
        assert np.array_equal(splits[split].weight, 1 / splits[split].inclusion_probability)
    for split, result in results.items():
        assert result.rows == len(splits[split])
        assert result.weight_sum == pytest.approx(splits[split].weight.sum(), rel=1e-9)
        assert result.statistics["positives.click"] == splits[split].label_click.sum()
    assert results["train"].statistics["rows_seen"] == len(before)


def test_other_files_and_another_order_of_rows_give_the_same_bytes(spark, tmp_path: Path) -> None:
    table = impressions(2000)
    shuffled = table.take(np.random.default_rng(1).permutation(table.num_rows))
    arguments = (SampleConfig(negative_rate=0.5), WindowConfig(days=7, first_end=END), Window.ending(END, 7), LABELS)
    sample(spark, write(table, tmp_path / "a"), *arguments, tmp_path / "out-a")
    sample(spark, write(shuffled, tmp_path / "b", files=5), *arguments, tmp_path / "out-b")
    for split in SPLITS:
        files = [sorted((tmp_path / out / split).iterdir()) for out in ("out-a", "out-b")]
        assert [path.name for path in files[0]] == [path.name for path in files[1]] == ["part-00000.parquet"]
        assert files[0][0].read_bytes() == files[1][0].read_bytes()
        keys = pq.read_table(files[0][0])["row_key"].to_numpy()
        assert (keys[1:] >= keys[:-1]).all()
    assert {path.name for path in (tmp_path / "out-a").iterdir()} == set(SPLITS)


def test_weighted_sums_estimate_the_totals_of_all_rows() -> None:
    table = impressions(4000)
    clicks = table["label_click"].to_numpy()
    truth = np.array([(1 / table["inclusion_probability"].to_numpy()).sum(), (clicks == 0).sum()])
    estimates = []
    for salt in range(200):
        kept = select(table, SampleConfig(salt=salt, negative_rate=0.2, label_rates={"click": 0.5}), LABELS)
        per_row = kept["weight"].to_numpy() * kept["inclusion_probability"].to_numpy()
        estimates.append([kept["weight"].to_numpy().sum(), per_row[kept["label_click"].to_numpy() == 0].sum()])
    mean, error = np.mean(estimates, axis=0), np.std(estimates, axis=0, ddof=1) / np.sqrt(200)
    assert (np.abs(mean - truth) < 4 * error).all()


def test_a_window_whose_last_day_is_empty_is_rejected(spark, tmp_path: Path) -> None:
    folder = write(impressions(100), tmp_path / "in")
    later = Window.ending(END + timedelta(days=2), 7)
    with pytest.raises(RejectedError, match="no eval rows in its last 1 day"):
        sample(spark, folder, SampleConfig(), WindowConfig(days=7, first_end=END), later, LABELS, tmp_path / "out")


def test_a_split_without_rows_still_has_the_schema(spark, tmp_path: Path) -> None:
    table = impressions(200)
    table = table.set_column(table.column_names.index("is_randomized"), "is_randomized", pa.array([False] * 200))
    arguments = (SampleConfig(), WindowConfig(days=7, first_end=END), Window.ending(END, 7), LABELS)
    results = sample(spark, write(table, tmp_path / "in"), *arguments, tmp_path / "out")
    assert results["randomized"].rows == 0
    assert read(tmp_path / "out" / "randomized").schema == read(tmp_path / "out" / "train").schema
