from __future__ import annotations

import hashlib
from datetime import timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from tests.unit.world.conftest import part_of
from tidewheel.contracts.hybrid import COLUMNS, MARKER, Part, is_feature_column
from tidewheel.contracts.schema import Entity, FeatureKind, FeatureSpec
from tidewheel.errors import ConfigError, ContractError


def bytes_of(folder: Path) -> dict[str, str]:
    """Partition, e.g. `backend/date=2026-01-05` -> digest of its file."""
    return {
        f"{path.parts[-3]}/{path.parts[-2]}": hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.glob("*/date=*/part-0.parquet")
    }


def after(world, days: float):
    return world.source.start + timedelta(days=days)


def test_the_same_seed_writes_the_same_bytes_whatever_the_number_of_calls(make_world):
    at_once, day_by_day = make_world("a"), make_world("b")
    at_once.ensure_log(after(at_once, 3), None, None)
    for day in (1, 2, 3):
        day_by_day.ensure_log(after(day_by_day, day), None, None)
    assert len(bytes_of(at_once.folder)) == 2 * 3
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
def test_the_log_holds_whole_days_and_nothing_after_the_requested_end(make_world, served, reported, hours):
    world = make_world()
    until = after(world, hours / 24)
    assert world.ensure_log(until, None, None) == hours // 24
    for times in (served(world).served_time, reported(world).logged_time):
        assert times.max() < until
        assert times.min() >= world.source.start


def test_every_row_lies_in_the_partition_of_the_day_on_which_it_arrived(make_world):
    world = make_world()
    world.ensure_log(after(world, 3), None, None)
    for part, column in (("backend", "served_time"), ("frontend", "logged_time")):
        for path in world.folder.glob(f"{part}/date=*/part-0.parquet"):
            days = pq.ParquetFile(path).read()[column].to_pandas().dt.date.unique()
            assert [f"date={day}" for day in days] == [path.parent.name]


def test_reactions_around_midnight_arrive_in_the_partition_of_the_next_day(make_world, reported):
    world = make_world(requests_per_day=4000)
    world.ensure_log(after(world, 3), None, None)
    events = reported(world)
    late = events[events.logged_time.dt.date > events.served_time.dt.date]
    assert 0 < len(late) < 0.02 * len(events)
    assert (late.logged_time - late.served_time).max() < timedelta(hours=4, minutes=5)


def test_days_that_are_there_are_never_ranked_again(make_world, prefers):
    world = make_world()
    world.ensure_log(after(world, 2), None, None)
    before = bytes_of(world.folder)
    assert world.ensure_log(after(world, 3), prefers("music"), "b1") == 1
    assert {day: digest for day, digest in bytes_of(world.folder).items() if day in before} == before


def test_a_scorer_ranks_the_new_days_and_its_bundle_and_scores_stand_in_the_log(make_world, served, prefers):
    world = make_world(randomized_share=0.0)
    world.ensure_log(after(world, 1), None, None)
    world.ensure_log(after(world, 2), prefers("music"), "b1")
    log = served(world)
    by_popularity, by_model = log[log.bundle.isna()], log[log.bundle == "b1"]
    assert len(by_popularity) + len(by_model) == len(log)
    assert by_popularity.score_click.isna().all()
    scored = by_model[~by_model.is_feature_miss]
    assert (scored.score_click == np.where(scored.item_category == "music", 0.9, 0.01)).all()

    def share_of_music(rows):
        first = rows[rows.position < 2]
        return (first.item_category == "music").mean()

    assert share_of_music(by_popularity) < 0.25
    assert share_of_music(by_model) > 0.5  # some lists hold no music at all


def test_both_parts_are_what_the_contract_says(make_world):
    world = make_world()
    world.ensure_log(after(world, 1), None, None)
    for part, columns in COLUMNS.items():
        folder = world.folder / part / "date=2026-01-05"
        assert (folder / MARKER).exists()
        table = pq.ParquetFile(folder / "part-0.parquet").read()
        for name, (kind, may_be_null, _) in columns.items():
            assert str(table.schema.field(name).type) == kind
            assert may_be_null or not table[name].null_count
        features = [name for name in table.column_names if part is Part.BACKEND and is_feature_column(name)]
        assert bool(features) == (part is Part.BACKEND)


def test_every_request_serves_a_slate_and_an_item_at_most_once(make_world, served):
    world = make_world()
    world.ensure_log(after(world, 1), None, None)
    log = served(world)
    assert len(log) == 400 * 8
    assert not log.duplicated(["request_id", "item_id"]).any()
    assert (log.groupby("request_id").position.apply(sorted).map(tuple) == tuple(range(8))).all()


def test_engagements_are_always_reported_and_impressions_at_their_rate(make_world, served, reported):
    world = make_world(negative_logging_rate=0.25, randomized_logging_rate=0.25, requests_per_day=2000)
    world.ensure_log(after(world, 2), None, None)
    events = reported(world).drop_duplicates()
    assert (events.logging_rate == 0.25).all()
    count = events.event.value_counts()
    assert count["click"] > count["long_view"] > count["like"] > 0
    # A share of the requests is left before anything is seen: neither impressions nor engagements.
    candidates = len(served(world))
    expected = candidates * 0.98 * 0.25
    spread = np.sqrt(candidates * 0.25 * 0.75 + 4000 * 0.02 * 0.98 * 64 * 0.25**2)
    assert abs(count["impression"] - expected) < 5 * spread
    keys = events[["request_id", "item_id"]]
    clicks = keys[events.event == "click"]
    for label in ("long_view", "like"):
        assert len(keys[events.event == label].merge(clicks)) == count[label]  # nobody likes what they did not click


def test_reactions_follow_the_serving_and_no_candidate_is_reported_that_was_not_served(make_world, served, reported):
    world = make_world()
    world.ensure_log(after(world, 3), None, None)
    events, log = reported(world), served(world)
    assert len(events.merge(log[["request_id", "item_id", "served_time"]])) == len(events)
    assert (events.event_time > events.served_time).all()
    assert (events.logged_time >= events.event_time).all()


def test_a_few_events_are_delivered_twice_and_a_few_candidates_miss_their_features(make_world, served, reported):
    world = make_world(requests_per_day=4000)
    world.ensure_log(after(world, 2), None, None)
    events, log = reported(world), served(world)
    assert 0 < events.duplicated().mean() < 0.006
    missed = log[log.is_feature_miss]
    assert 0 < len(missed) < 0.002 * len(log)
    assert missed[["user_segment", "item_age_days", "surface"]].isna().all(axis=None)
    assert log[~log.is_feature_miss][["user_segment", "item_age_days", "surface"]].notna().all(axis=None)


def test_inclusion_weighted_totals_estimate_what_was_seen(make_world, reported):
    """With everything logged the same world shows the truth: the sampled log must estimate it without bias."""
    errors = []
    for seed in range(12):
        totals = {}
        for rate in (1.0, 0.25):
            world = make_world(f"{seed}-{rate}", negative_logging_rate=rate, randomized_logging_rate=rate, seed=seed)
            world.ensure_log(after(world, 2), None, None)
            events = reported(world).drop_duplicates()
            events = events[events.served_time < after(world, 1)]
            rows = events.assign(is_positive=events.event != "impression").groupby(["request_id", "item_id"]).is_positive.any()
            totals[rate] = np.where(rows, 1.0, 1.0 / rate).sum()
        errors.append(totals[0.25] / totals[1.0] - 1.0)
    # Standard error of one day: sqrt(negatives x 0.25 x 0.75) x 4 / impressions; four of them over twelve seeds.
    standard_error = np.sqrt(3200 * 0.9 * 0.25 * 0.75) * 4 / 3200 / np.sqrt(12)
    assert abs(np.mean(errors)) < 4 * standard_error
    assert np.std(errors) > 0.0


def test_randomized_requests_that_were_seen_are_logged_as_a_whole(make_world, served, reported):
    world = make_world(randomized_share=0.3, negative_logging_rate=0.1, requests_per_day=2000)
    world.ensure_log(after(world, 2), None, None)
    log, events = served(world), reported(world).drop_duplicates()
    impressions = events[events.event == "impression"].merge(log[["request_id", "item_id", "is_randomized"]])
    assert (impressions.logging_rate == np.where(impressions.is_randomized, 1.0, 0.1)).all()
    whole = impressions[impressions.is_randomized].groupby("request_id").size()
    assert (whole == 8).all()
    assert abs(len(whole) / log[log.is_randomized].request_id.nunique() - 0.98) < 0.02  # the others were left before


def test_randomized_requests_show_every_candidate_with_the_propensity_that_they_log(make_world, served):
    world = make_world(randomized_share=0.5, negative_logging_rate=1.0)
    world.ensure_log(after(world, 2), None, None)
    log = served(world)
    randomized = log[log.is_randomized]
    assert (randomized.propensity == 1 / 24).all()
    assert log[~log.is_randomized].propensity.isna().all()
    shares = randomized.request_id.nunique() / log.request_id.nunique()
    assert abs(shares - 0.5) < 4 * np.sqrt(0.25 / 800)
    # In random order the rank says nothing about the item: quality's proxy does not fall with the position.
    age = randomized.groupby("position").item_age_days.mean()
    assert np.ptp(age) < 6 * 24.2 * np.sqrt(2 / randomized.request_id.nunique())  # ages are uniform over 84 days


def test_counters_follow_their_definition(make_world, served, reported):
    """By hand over the whole log, as the docstring of CounterConfig says: days [D - 3, D), weights, smoothing 20, priors."""
    world = make_world(requests_per_day=6000)
    world.ensure_log(after(world, 6), None, None)
    log, events = served(world), reported(world).drop_duplicates()
    day_of = lambda times: (times - world.source.start).dt.days  # noqa: E731
    first = events[events.event != "impression"].assign(day=day_of(events.event_time))
    known = first.groupby(["request_id", "item_id"]).day.min().rename("positive_day")
    sampled = events[events.event == "impression"].groupby(["request_id", "item_id"]).size().rename("sampled")
    rows = log[~log.is_feature_miss].assign(day=day_of(log.served_time)).set_index(["request_id", "item_id"])
    rows = rows.join(known).join(sampled)
    rows["alone"] = rows.sampled.fillna(0) / np.where(rows.is_randomized, 1.0, 0.25)
    asked, snapshot = 5, world.snapshot(5)
    assert (rows.positive_day > rows.day).any()  # some labels came after midnight
    is_known = rows.positive_day < asked
    # What a row of an earlier day counts by now, less what it counted before the lookback began.
    now = np.where(is_known, 1.0, rows.alone)
    within = (rows.day >= 2) & (rows.day < asked)
    turned = (rows.day == 1) & (rows.positive_day == 2)
    added = np.where(within, now, np.where(turned, 1.0 - rows.alone, 0.0))
    for entity, columns in (("user", snapshot.user), ("item", snapshot.item), ("author", snapshot.item)):
        keys = columns[f"{entity}_id"]
        key = rows.index.get_level_values("item_id") if entity == "item" else rows[f"{entity}_id"].to_numpy()
        impressions = pd.Series(added).groupby(key).sum().reindex(keys, fill_value=0.0).to_numpy()
        assert impressions.max() > 0
        np.testing.assert_allclose(columns[f"{entity}_impressions"], impressions, rtol=1e-12, atol=1e-12)
        for label, prior in (("click", 0.1), ("long_view", 0.05)):
            came = first[(first.event == label) & (first.day >= 2) & (first.day < asked)]
            engaged = came.set_index(["request_id", "item_id"]).join(rows[["user_id", "author_id"]], how="inner")
            of = engaged.index.get_level_values("item_id") if entity == "item" else engaged[f"{entity}_id"].to_numpy()
            sums = pd.Series(np.ones(len(engaged))).groupby(of).sum().reindex(keys, fill_value=0.0).to_numpy()
            rate = (sums + 20.0 * prior) / (impressions + 20.0)
            np.testing.assert_allclose(columns[f"{entity}_{label}_rate"], rate, rtol=1e-9)


def test_before_any_log_counters_are_the_priors(make_world):
    snapshot = make_world().snapshot(0)
    assert (snapshot.item["item_click_rate"] == 0.1).all()
    assert (snapshot.user["user_long_view_rate"] == 0.05).all()
    assert (snapshot.item["author_impressions"] == 0.0).all()


def test_damaged_counters_are_named(make_world):
    world = make_world()
    world.ensure_log(after(world, 2), None, None)
    damaged = world.folder / ".online" / "1.parquet"
    damaged.write_bytes(damaged.read_bytes()[:100])
    with pytest.raises(ContractError, match=r"online/1\.parquet"):
        make_world().ensure_log(after(world, 3), None, None)
    assert not (world.folder / "frontend" / "date=2026-01-07").exists()


@pytest.mark.parametrize("dies_at", [1, 2, 3, 4])
def test_a_write_that_dies_leaves_no_whole_day_and_the_next_call_completes(make_world, monkeypatch, dies_at):
    world, untouched = make_world("a"), make_world("b")
    untouched.ensure_log(after(untouched, 2), None, None)
    real, calls = pq.write_table, []

    def disk_is_full(table, where):
        calls.append(where)
        real(table.slice(0, 10), where)
        if len(calls) == dies_at:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(pq, "write_table", disk_is_full)
    with pytest.raises(ConfigError, match="No space left"):
        world.ensure_log(after(world, 2), None, None)
    assert not list(world.folder.glob("frontend/date=*"))
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


def test_inverted_labels_say_the_opposite_on_their_days_and_nothing_else_changes(make_world):
    world = make_world("right", negative_logging_rate=1.0)
    fault = {"kind": "inverted_labels", "start": after(world, 1), "end": after(world, 2)}
    inverted = make_world("wrong", negative_logging_rate=1.0, faults=(fault,))
    clicks = {}
    for each in (world, inverted):
        each.ensure_log(after(world, 2), None, None)
        events = part_of(each, Part.FRONTEND).to_pandas().drop_duplicates(["request_id", "item_id", "event"])
        on_day = events.served_time.dt.floor("D").dt.tz_localize(None)
        start = pd.Timestamp(world.source.start.replace(tzinfo=None))
        clicks[each] = [
            events[(on_day == start + pd.Timedelta(days=day)) & (events.event == "click")].shape[0] for day in (0, 1)
        ]
    shown = 400 * world.source.slate_size
    assert clicks[inverted][0] == clicks[world][0] < shown / 2
    assert clicks[inverted][1] > shown / 2 > clicks[world][1]


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
