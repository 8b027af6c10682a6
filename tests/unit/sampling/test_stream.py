"""The sampler over Parquet: what lands in which split, and files that depend on the rows alone."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.unit.sampling.tables import DAYS, END, LABELS, WINDOW, counter_of, impressions, read, write
from tidewheel.contracts.recipe import WindowConfig
from tidewheel.contracts.sampling import Cap, Group, SampleConfig
from tidewheel.contracts.window import Window
from tidewheel.errors import ConfigError, ContractError, RejectedError
from tidewheel.sampling import SPLITS, make_plan, preview, read_groups, sample, select
from tidewheel.sampling.hash import xxhash64
from tidewheel.sampling.loader import TRAIN, split_of


def test_splits_are_by_time_and_randomized_rows_are_in_no_other(tmp_path: Path) -> None:
    table = impressions(3000)
    config = SampleConfig(salt=3, negative_rate=0.4, calibration_share=0.3, calibration_days=2)
    found = sample(write(table, tmp_path / "in"), config, DAYS, WINDOW, LABELS, tmp_path / "out")
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
    kept = splits["train"].set_index("row_key")
    positive = before[["label_click", "label_like", "label_hate"]].any(axis=1)
    assert set(before[positive].row_key) <= set(kept.index)
    assert kept[kept.label_click == 1].weight.equals(1 / kept[kept.label_click == 1].inclusion_probability)
    for split in ("calibration", "eval", "randomized"):
        assert np.array_equal(splits[split].weight, 1 / splits[split].inclusion_probability)
    for split, result in found.splits.items():
        assert result.rows == len(splits[split])
        assert result.weight_sum == pytest.approx(splits[split].weight.sum(), abs=1e-6 * len(splits[split]))
        assert result.statistics["positives.click"] == splits[split].label_click.sum()
    statistics = found.splits["train"].statistics
    assert statistics["rows_seen"] == len(before)
    assert statistics["rule.negatives.rows"] == (~positive).sum()
    assert statistics["rule.negatives.kept"] == len(kept) - positive.sum()


def test_excluded_groups_are_in_no_split_and_are_counted(tmp_path: Path) -> None:
    table = impressions(2000)
    config = SampleConfig(exclude=(Group(name="bots", where={"surface": ("search",)}),))
    found = sample(write(table, tmp_path / "in"), config, DAYS, WINDOW, LABELS, tmp_path / "out")

    assert "search" not in {value for split in SPLITS for value in read(tmp_path / "out" / split)["surface"].to_pylist()}
    excluded = {split: result.statistics["excluded"] for split, result in found.splits.items()}
    assert sum(excluded.values()) == table["surface"].to_pylist().count("search")
    assert min(excluded.values()) > 0
    assert (found.rules["bots"].rows_in, found.rules["bots"].rows_out) == (excluded["train"], 0)
    assert sum(result.rows for result in found.splits.values()) == 2000 - sum(excluded.values())


def test_other_files_and_another_order_of_rows_give_the_same_bytes(tmp_path: Path) -> None:
    table = impressions(2000)
    shuffled = table.take(np.random.default_rng(1).permutation(table.num_rows))
    arguments = (SampleConfig(negative_rate=0.5, caps=(Cap(column="user_id", rows=9),)), DAYS, WINDOW, LABELS)
    sample(write(table.sort_by("row_key"), tmp_path / "a"), *arguments, tmp_path / "out-a")
    sample(write(shuffled, tmp_path / "b", files=5), *arguments, tmp_path / "out-b")

    files = [{path.relative_to(out): path.read_bytes() for path in out.rglob("*.*")} for out in tmp_path.glob("out-*")]
    assert files[0] == files[1]
    assert {path.as_posix() for path in files[0]} == {
        *(f"{split}/part-00000.parquet" for split in SPLITS),
        "train/caps/0.arrow",
    }
    keys = pq.read_table(tmp_path / "out-a" / "train" / "part-00000.parquet")["row_key"].to_numpy()
    assert (keys[1:] >= keys[:-1]).all()


def test_several_parts_and_any_row_groups_give_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tidewheel.logs.parts.ROWS_A_PART", 400)
    monkeypatch.setattr("tidewheel.sampling.stream.ROW_GROUP", 50)
    table = impressions(1000).sort_by("row_key")
    arguments = (SampleConfig(negative_rate=0.5), DAYS, WINDOW, LABELS)
    for name, batch, group in (("a", 64, 1000), ("b", 7, 30)):
        monkeypatch.setattr("tidewheel.sampling.impressions.BATCH", batch)
        (tmp_path / name).mkdir()
        for part in range(4):
            own = table.filter(pa.array(xxhash64(table["user_id"].to_numpy()) % 4 == part))
            pq.write_table(own, tmp_path / name / f"part-{part:05d}.parquet", row_group_size=group)
        sample(tmp_path / name, *arguments, tmp_path / f"out-{name}")
    sample(write(table, tmp_path / "c"), *arguments, tmp_path / "out-c")

    files = [{path.relative_to(out): path.read_bytes() for path in out.rglob("*.parquet")} for out in tmp_path.glob("out-*")]
    assert files[0] == files[1] == files[2]
    assert len(files[0]) == 4 * len(SPLITS)


def test_a_preview_says_what_a_sample_does_and_writes_nothing(tmp_path: Path) -> None:
    source = write(impressions(1000), tmp_path / "in")
    config = SampleConfig(negative_rate=0.5, caps=(Cap(column="user_id", rows=9),))
    before = sorted(tmp_path.rglob("*"))

    seen = preview(source, config, DAYS, WINDOW, LABELS)

    assert sorted(tmp_path.rglob("*")) == before
    assert seen == sample(source, config, DAYS, WINDOW, LABELS, tmp_path / "out")
    kept = read(tmp_path / "out" / "train").to_pandas()
    negatives = kept[(kept.label_click == 0) & (kept.label_like == 0) & (kept.label_hate == 0)].weight
    tally = seen.rules["negatives"]
    assert (tally.rows_out, tally.weight_min, tally.weight_max) == (len(negatives), negatives.min(), negatives.max())
    assert tally.effective_rows == pytest.approx(negatives.sum() ** 2 / (negatives**2).sum())
    assert tally.total.variance == pytest.approx((negatives * (negatives - 1)).sum())


def test_a_loader_selects_from_the_unsampled_table_what_was_published(tmp_path: Path) -> None:
    table = impressions(1500).drop_columns(["age"])  # NaN, which equals nothing
    config = SampleConfig(salt=4, negative_rate=0.5, caps=(Cap(column="user_id", rows=9),))
    found = sample(write(table, tmp_path / "in"), config, DAYS, WINDOW, LABELS, tmp_path / "out")

    groups = read_groups(tmp_path / "out" / "train", found.plan)
    kept = select(table.filter(pa.array(split_of(table, found.plan) == TRAIN)), found.plan, groups)

    assert kept.sort_by("row_key").equals(read(tmp_path / "out" / "train"))
    (tmp_path / "out" / "train" / "caps" / "0.arrow").unlink()
    with pytest.raises(ContractError, match="groups over a cap cannot be read"):
        read_groups(tmp_path / "out" / "train", found.plan)


def test_a_cap_holds_in_expectation() -> None:
    table = impressions(4000)
    table = table.filter(pa.array(table["user_id"].to_numpy() == 1))
    counts = []
    for salt in range(100):
        config = SampleConfig(salt=salt, caps=(Cap(column="user_id", rows=100),), calibration_share=0.0)
        counter = counter_of([table])

        plan = make_plan(config, DAYS, WINDOW, LABELS, counter)
        train = table.filter(pa.array(split_of(table, plan) == TRAIN))
        counts.append(select(train, plan, counter.groups(plan)).num_rows)
    assert train.num_rows > 300
    assert abs(np.mean(counts) - 100) < 4 * np.std(counts, ddof=1) / np.sqrt(len(counts))


def test_weighted_sums_estimate_the_totals_of_all_rows() -> None:
    table = impressions(4000)
    clicks = table["label_click"].to_numpy()
    truth = np.array([(1 / table["inclusion_probability"].to_numpy()).sum(), (clicks == 0).sum()])
    estimates = []
    for salt in range(200):
        plan = make_plan(SampleConfig(salt=salt, negative_rate=0.2), DAYS, WINDOW, LABELS, counter_of([table]))
        kept = select(table, plan)
        per_row = kept["weight"].to_numpy() * kept["inclusion_probability"].to_numpy()
        estimates.append([kept["weight"].to_numpy().sum(), per_row[kept["label_click"].to_numpy() == 0].sum()])
    mean, error = np.mean(estimates, axis=0), np.std(estimates, axis=0, ddof=1) / np.sqrt(200)
    assert (np.abs(mean - truth) < 4 * error).all()


def test_a_window_whose_last_day_is_empty_is_rejected(tmp_path: Path) -> None:
    folder = write(impressions(100), tmp_path / "in")
    later = Window.ending(END + timedelta(days=2), 7)
    with pytest.raises(RejectedError, match="no eval rows in its last 1 day"):
        sample(folder, SampleConfig(), WindowConfig(days=7, first_end=END), later, LABELS, tmp_path / "out")


def test_a_recipe_that_excludes_everything_is_rejected_and_says_so(tmp_path: Path) -> None:
    everyone = Group(name="everyone", where={"is_new": (0, 1)})
    with pytest.raises(RejectedError, match=r"no train rows .* are excluded by the recipe"):
        preview(write(impressions(100), tmp_path / "in"), SampleConfig(exclude=(everyone,)), DAYS, WINDOW, LABELS)


def test_a_split_without_rows_still_has_the_schema(tmp_path: Path) -> None:
    table = impressions(200)
    table = table.set_column(table.column_names.index("is_randomized"), "is_randomized", pa.array([False] * 200))
    found = sample(write(table, tmp_path / "in"), SampleConfig(), DAYS, WINDOW, LABELS, tmp_path / "out")
    assert found.splits["randomized"].rows == 0
    assert read(tmp_path / "out" / "randomized").schema == read(tmp_path / "out" / "train").schema


def test_a_column_that_is_not_there_is_named_before_anything_is_read(tmp_path: Path) -> None:
    config = SampleConfig(exclude=(Group(name="bots", where={"is_bot": (1,)}),))
    with pytest.raises(ConfigError, match="no column is_bot in the impressions; expected one of age"):
        preview(write(impressions(100), tmp_path / "in"), config, DAYS, WINDOW, LABELS)


def test_a_flipped_byte_inside_a_column_is_named(tmp_path: Path) -> None:
    path = write(impressions(5000), tmp_path / "in") / "part-00000.parquet"
    column = pq.read_metadata(path).row_group(0).column(0)
    damaged = bytearray(path.read_bytes())
    damaged[column.data_page_offset + 1] ^= 0xFF
    path.write_bytes(damaged)
    with pytest.raises(ContractError, match=r"part-00000.parquet: impressions cannot be read"):
        preview(tmp_path / "in", SampleConfig(), DAYS, WINDOW, LABELS)


@pytest.mark.parametrize("bytes_", [b"", b"PAR1 not Parquet"])
def test_damaged_impressions_are_named(tmp_path: Path, bytes_: bytes) -> None:
    (tmp_path / "part-00000.parquet").write_bytes(bytes_)
    with pytest.raises(ContractError, match="impressions cannot be read"):
        preview(tmp_path, SampleConfig(), DAYS, WINDOW, LABELS)
