from __future__ import annotations

import hashlib
from datetime import timedelta
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from tidewheel.contracts.schema import Entity, FeatureKind, FeatureSpec
from tidewheel.errors import ConfigError, ContractError
from tidewheel.world import LOG_SCHEMA


def bytes_of(folder: Path) -> dict[str, str]:
    return {path.parent.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.glob("date=*/part-0.parquet")}


def after(world, days: float):
    return world.source.start + timedelta(days=days)


def test_the_same_seed_writes_the_same_bytes_whatever_the_number_of_calls(make_world):
    at_once, day_by_day = make_world("a"), make_world("b")
    at_once.ensure_log(after(at_once, 3), None, None)
    for day in (1, 2, 3):
        day_by_day.ensure_log(after(day_by_day, day), None, None)
    assert len(bytes_of(at_once.folder)) == 3
    assert bytes_of(at_once.folder) == bytes_of(day_by_day.folder)


def test_another_seed_writes_another_log(make_world):
    one, other = make_world("a"), make_world("b", seed=8)
    for world in (one, other):
        world.ensure_log(after(world, 1), None, None)
    assert bytes_of(one.folder) != bytes_of(other.folder)


def test_a_world_that_was_left_and_opened_again_goes_on_as_if_never_left(make_world):
    once, left = make_world("a"), make_world("b")
    once.ensure_log(after(once, 3), None, None)
    left.ensure_log(after(left, 2), None, None)
    opened_again = make_world("b")
    assert opened_again.ensure_log(after(left, 3), None, None) == 1
    assert bytes_of(once.folder) == bytes_of(left.folder)


@pytest.mark.parametrize("hours", [24, 30, 47.9, 48])
def test_the_log_holds_whole_days_and_nothing_after_the_requested_end(make_world, read_log, hours):
    world = make_world()
    until = after(world, hours / 24)
    assert world.ensure_log(until, None, None) == hours // 24
    times = read_log(world)["event_time"].to_numpy()
    assert times.max() < np.datetime64(until.replace(tzinfo=None))
    assert times.min() >= np.datetime64(world.source.start.replace(tzinfo=None))


def test_every_row_lies_in_the_folder_of_its_day(make_world):
    world = make_world()
    world.ensure_log(after(world, 2), None, None)
    for path in world.folder.glob("date=*/part-0.parquet"):
        days = np.unique(pq.ParquetFile(path).read()["event_time"].to_numpy().astype("datetime64[D]").astype(str))
        assert [f"date={day}" for day in days] == [path.parent.name]


def test_days_that_are_there_are_never_ranked_again(make_world, prefers):
    world = make_world()
    world.ensure_log(after(world, 2), None, None)
    before = bytes_of(world.folder)
    assert world.ensure_log(after(world, 3), prefers("music"), "b1") == 1
    assert {day: digest for day, digest in bytes_of(world.folder).items() if day in before} == before


def test_a_scorer_ranks_the_new_days_and_its_bundle_stands_in_the_log(make_world, read_log, prefers):
    world = make_world(randomized_share=0.0)
    world.ensure_log(after(world, 1), None, None)
    world.ensure_log(after(world, 2), prefers("music"), "b1")
    log = read_log(world).to_pandas()
    by_popularity, by_model = log[log.bundle.isna()], log[log.bundle == "b1"]
    assert len(by_popularity) + len(by_model) == len(log)

    def share_of_music(rows):
        first = rows[rows.position < 2]
        return (first.item_category == "music").mean()

    assert share_of_music(by_popularity) < 0.25
    assert share_of_music(by_model) > 0.5  # some lists hold no music at all


def test_the_columns_are_those_of_the_hybrid_log(make_world, read_log):
    world = make_world()
    world.ensure_log(after(world, 1), None, None)
    log = read_log(world)
    assert log.schema == LOG_SCHEMA
    nullable = {"propensity", "bundle"}
    assert {name for name in log.column_names if log[name].null_count} == nullable
    assert pc.count_distinct(pc.binary_join_element_wise(log["request_id"], log["item_id"].cast("string"), "/")).as_py() == len(
        log
    )


def test_a_positive_row_is_always_kept_and_says_so(make_world, read_log):
    world = make_world(negative_logging_rate=0.25)
    world.ensure_log(after(world, 2), None, None)
    log = read_log(world).to_pandas()
    is_positive = (log.label_click + log.label_long_view + log.label_like) > 0
    assert (log.inclusion_probability[is_positive] == 1.0).all()
    assert (log.inclusion_probability[~is_positive] == 0.25).all()
    assert (log.label_click >= log.label_long_view).all()
    assert (log.label_click >= log.label_like).all()


def test_inclusion_weighted_totals_estimate_what_was_shown(make_world, read_log):
    """With everything logged the same world shows the truth: the sampled log must estimate it without bias."""
    errors = []
    for seed in range(12):
        totals = {}
        for rate in (1.0, 0.25):
            world = make_world(f"{seed}-{rate}", negative_logging_rate=rate, seed=seed)
            world.ensure_log(after(world, 1), None, None)
            log = read_log(world).to_pandas()
            weight = 1.0 / log.inclusion_probability
            totals[rate] = np.array([weight.sum(), weight[log.position == 0].sum(), weight[log.surface == "search"].sum()])
            assert rate < 1.0 or totals[rate][0] == 400 * 8
        errors.append(totals[0.25] / totals[1.0] - 1.0)
    # Standard error of one day: sqrt(negatives x 0.25 x 0.75) x 4 / impressions; four of them over twelve seeds.
    impressions = np.array([3200, 400, 960])
    standard_error = np.sqrt(impressions * 0.9 * 0.25 * 0.75) * 4 / impressions / np.sqrt(12)
    assert (np.abs(np.mean(errors, axis=0)) < 4 * standard_error).all()
    assert np.std(errors, axis=0)[0] > 0.0


def test_randomized_requests_show_every_candidate_with_the_propensity_that_they_log(make_world, read_log):
    world = make_world(randomized_share=0.5, negative_logging_rate=1.0)
    world.ensure_log(after(world, 2), None, None)
    log = read_log(world).to_pandas()
    randomized = log[log.is_randomized]
    assert (randomized.propensity == 1 / 24).all()
    assert log[~log.is_randomized].propensity.isna().all()
    shares = randomized.request_id.nunique() / log.request_id.nunique()
    assert abs(shares - 0.5) < 4 * np.sqrt(0.25 / 800)
    # In random order the rank says nothing about the item: quality's proxy does not fall with the position.
    age = randomized.groupby("position").item_age_days.mean()
    assert np.ptp(age) < 6 * 24.2 * np.sqrt(2 / randomized.request_id.nunique())  # ages are uniform over 84 days


def test_counters_follow_their_definition(make_world, read_log):
    """By hand over the whole log, as the docstring of CounterConfig says: days [D - 3, D), weights, smoothing 20, priors."""
    world = make_world()
    world.ensure_log(after(world, 5), None, None)
    log = read_log(world).to_pandas()
    day = (log.event_time - world.source.start).dt.days
    snapshot = world.snapshot(5)
    history = log[(day >= 2) & (day < 5)].assign(w=lambda rows: 1.0 / rows.inclusion_probability)
    for entity, columns in (("user", snapshot.user), ("item", snapshot.item), ("author", snapshot.item)):
        keys = columns[f"{entity}_id"]
        impressions = history.groupby(f"{entity}_id").w.sum().reindex(keys, fill_value=0.0).to_numpy()
        assert impressions.max() > 0
        np.testing.assert_allclose(columns[f"{entity}_impressions"], impressions, rtol=1e-12)
        for label, prior in (("click", 0.1), ("long_view", 0.05)):
            engaged = history.w * history[f"label_{label}"]
            sums = engaged.groupby(history[f"{entity}_id"]).sum().reindex(keys, fill_value=0.0).to_numpy()
            rate = (sums + 20.0 * prior) / (impressions + 20.0)
            np.testing.assert_allclose(columns[f"{entity}_{label}_rate"], rate, rtol=1e-12)


def test_before_any_log_counters_are_the_priors(make_world):
    snapshot = make_world().snapshot(0)
    assert (snapshot.item["item_click_rate"] == 0.1).all()
    assert (snapshot.user["user_long_view_rate"] == 0.05).all()
    assert (snapshot.item["author_impressions"] == 0.0).all()


def test_a_damaged_day_is_named(make_world):
    world = make_world()
    world.ensure_log(after(world, 2), None, None)
    damaged = world.folder / "date=2026-01-06" / "part-0.parquet"
    damaged.write_bytes(damaged.read_bytes()[:100])
    with pytest.raises(ContractError, match="date=2026-01-06"):
        make_world().ensure_log(after(world, 3), None, None)
    assert not (world.folder / "date=2026-01-07").exists()


def test_a_write_that_dies_leaves_no_day_and_the_next_call_completes(make_world, monkeypatch):
    world, untouched = make_world("a"), make_world("b")
    untouched.ensure_log(after(world, 2), None, None)
    real = pq.write_table

    def disk_is_full(table, where):
        real(table.slice(0, 10), where)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pq, "write_table", disk_is_full)
    with pytest.raises(ConfigError, match="No space left"):
        world.ensure_log(after(world, 2), None, None)
    assert [path.name for path in world.folder.iterdir()] == ["world.sha256"]
    monkeypatch.undo()
    world.ensure_log(after(world, 2), None, None)
    assert bytes_of(world.folder) == bytes_of(untouched.folder)


def test_two_worlds_never_mix_in_one_folder(make_world):
    first = make_world()
    first.ensure_log(after(first, 1), None, None)
    with pytest.raises(ConfigError, match="another source section"):
        make_world(seed=8).ensure_log(after(first, 2), None, None)


def test_a_fault_is_not_part_of_the_world_that_a_log_belongs_to(make_world):
    world = make_world("a")
    faulty = make_world("b", faults=({"kind": "served_features", "start": world.source.start, "end": after(world, 9)},))
    for each in (world, faulty):
        each.ensure_log(after(world, 2), None, None)
    assert bytes_of(world.folder) == bytes_of(faulty.folder)
    assert make_world("b").ensure_log(after(world, 3), None, None) == 1


def test_a_folder_that_cannot_be_written_is_named(make_world, tmp_path):
    world = make_world()
    (tmp_path / "world").write_text("a file where the folder should be")
    with pytest.raises(ConfigError, match="cannot be written"):
        world.ensure_log(after(world, 1), None, None)


def test_a_window_before_the_world_starts_is_refused(make_world):
    world = make_world()
    with pytest.raises(ConfigError, match="the world starts at 2026-01-05"):
        world.ensure_log(after(world, -1), None, None)


@pytest.mark.parametrize(
    ("feature", "message"),
    [
        (
            FeatureSpec(id=1, name="item_clik_rate", kind=FeatureKind.NUMERIC, entity=Entity.ITEM),
            "did you mean item_click_rate",
        ),
        (FeatureSpec(id=1, name="surface", kind=FeatureKind.VOCABULARY, entity=Entity.ITEM), "expects context"),
        (FeatureSpec(id=1, name="item_age_days", kind=FeatureKind.VOCABULARY, entity=Entity.ITEM), "expected numeric"),
    ],
)
def test_a_feature_that_the_world_cannot_serve_is_refused(make_world, feature, message):
    with pytest.raises(ConfigError, match=message):
        make_world(features=(feature,))


def test_a_slate_of_all_candidates_is_refused(make_world):
    with pytest.raises(ConfigError, match="slate_size is 24"):
        make_world(slate_size=24)
