"""Faults of production: what they do to the written scores and to users, and what they leave as it was."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
import pytest
from pydantic import ValidationError

from tests.unit.world.conftest import MakeWorld
from tests.unit.world.test_log import after, bytes_of
from tidewheel.contracts.recipe import WorldSource
from tidewheel.errors import ConfigError
from tidewheel.world import World
from tidewheel.world.population import examination

FIRST, LAST = 4, 6  # the day that is at fault, and the end of the log


class RateOfClicks:
    """A model of one counter and one category; what it does not know of, it takes for nothing."""

    def score(self, columns: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        rate = np.nan_to_num(columns["item_click_rate"].astype(np.float64), nan=0.0)
        is_music = columns["item_category"] == "music"
        logit = -3.0 + 0.2 * is_music + 10.0 * np.minimum(rate, 0.5)
        return {"click": 1.0 / (1.0 + np.exp(-logit))}


@pytest.fixture
def days(make_world: MakeWorld, served):
    """(fault) -> what the servers wrote with and without it, of all days; and both worlds."""

    def make(**fault: object) -> tuple[pd.DataFrame, pd.DataFrame, World]:
        found = []
        for name, wanted in (("healthy", ()), ("faulty", (fault,))):
            world = make_world(name, faults=())
            moments = {"start": after(world, FIRST), "end": after(world, FIRST + 1)}
            world = make_world(name, faults=tuple({**one, **moments} for one in wanted))
            world.ensure_log(after(world, 3), None, None)
            world.ensure_log(after(world, LAST), RateOfClicks(), "b1")
            found.append((served(world), world))
        (healthy, one), (faulty, other) = found
        before = [name for name in bytes_of(one.folder) if name < f"backend/date={after(one, FIRST):%Y-%m-%d}"]
        assert len(before) == FIRST
        assert {name: bytes_of(one.folder)[name] for name in before} == {name: bytes_of(other.folder)[name] for name in before}
        return healthy, faulty, other

    return make


def of_day(table: pd.DataFrame, world: World) -> pd.DataFrame:
    day = after(world, FIRST).date()
    is_whole = (table.served_time.dt.date == day) & ~table.is_feature_miss
    return table[is_whole].set_index(["request_id", "item_id"])


def both(healthy: pd.DataFrame, faulty: pd.DataFrame, world: World) -> pd.DataFrame:
    """The candidates that both worlds showed on the day."""
    return of_day(healthy, world).join(of_day(faulty, world), how="inner", rsuffix="_at_fault")


def logit(p: pd.Series) -> pd.Series:
    return np.log(p / (1 - p))


def test_a_missing_feature_is_scored_as_unknown_for_its_share_of_candidates(days):
    healthy, faulty, world = days(kind="missing_feature", feature="item_click_rate", share=0.4)
    rows = both(healthy, faulty, world)
    is_unknown = np.isclose(logit(rows.score_click_at_fault), -3.0 + 0.2 * (rows.item_category == "music"))
    at_random = rows.is_randomized & rows.is_randomized_at_fault  # a ranking shows fewer of those that lost their feature
    assert is_unknown[at_random].mean() == pytest.approx(0.4, abs=4 * np.sqrt(0.4 * 0.6 / at_random.sum()))
    assert 0 < is_unknown[~at_random].mean() < 0.4
    assert np.allclose(rows.score_click[~is_unknown], rows.score_click_at_fault[~is_unknown])
    assert (rows.item_category == rows.item_category_at_fault).all()


def test_a_rate_in_percent_is_scored_as_if_it_were_a_share(days):
    rows = both(*days(kind="scaled_feature", feature="item_click_rate", factor=100.0))
    assert np.allclose(logit(rows.score_click_at_fault), 2.0 + 0.2 * (rows.item_category == "music"))


def test_stale_counters_are_those_of_days_before(days):
    healthy, faulty, world = days(kind="stale_features", features=["item_click_rate"], days=2)
    rows = both(healthy, faulty, world).reset_index()
    earlier = world._counters.as_of(FIRST - 2, "item", rows.item_id.unique())["item_click_rate"]
    rate = pd.Series(earlier, rows.item_id.unique())[rows.item_id].to_numpy()
    expected = -3.0 + 0.2 * (rows.item_category == "music") + 10.0 * np.minimum(rate, 0.5)
    assert np.allclose(logit(rows.score_click_at_fault), expected)
    assert not np.allclose(rows.score_click, rows.score_click_at_fault)


def test_a_broken_calibrator_moves_every_logit_alike(days):
    rows = both(*days(kind="broken_calibrator", slope=0.5, shift=1.0))
    assert np.allclose(logit(rows.score_click_at_fault), 0.5 * logit(rows.score_click) + 1.0)


def test_traffic_shifts_to_one_surface_and_the_others_keep_their_proportions(days):
    healthy, faulty, world = days(kind="traffic_shift", surface="related", share=0.6)
    shares = of_day(faulty, world).surface.value_counts(normalize=True)
    assert shares["related"] == pytest.approx(0.6, abs=0.06)
    assert shares["feed"] / shares["search"] == pytest.approx(5 / 3, rel=0.35)
    assert of_day(healthy, world).surface.value_counts(normalize=True)["related"] == pytest.approx(0.2, abs=0.05)


def test_after_a_layout_change_less_is_looked_at_below_the_first_place_alone(make_world, reported):
    worlds = [make_world("a", requests_per_day=4000)]
    moments = {"start": after(worlds[0], 0), "end": after(worlds[0], 1)}
    worlds.append(make_world("b", requests_per_day=4000, faults=({"kind": "layout_change", "power": 1.5} | moments,)))
    clicks = []
    for world in worlds:
        world.ensure_log(after(world, 1), None, None)
        slates, reactions = world.serve_day(0, None, None, np.random.default_rng(3).spawn(4))
        assert slates.shown.shape == reactions["click"].shape
        clicks.append(reactions["click"].mean(axis=0))
    places = np.arange(8)
    assert clicks[1][0] == clicks[0][0]
    expected = clicks[0] * examination(places, 1.5) / examination(places)
    assert clicks[1][1:] == pytest.approx(expected[1:], abs=4 * np.sqrt(0.1 / 4000))


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ({"kind": "missing_feature", "feature": "item_clickrate"}, ("item_clickrate", "item_click_rate")),
        ({"kind": "scaled_feature", "feature": "surface"}, ("surface", "vocabulary", "a number")),
        ({"kind": "stale_features", "features": ["item_age_days"]}, ("item_age_days", "counters or sequences")),
    ],
)
def test_a_fault_of_what_cannot_have_it_is_refused(make_world, fault, words):
    when = {"start": "2026-01-06", "end": "2026-01-07"}
    with pytest.raises(ConfigError) as refused:
        make_world(faults=({**fault, **when},))
    assert [word for word in words if word not in str(refused.value)] == []


def test_each_kind_of_fault_has_its_own_fields_only():
    fault = {"kind": "inverted_labels", "start": "2026-01-06", "end": "2026-01-07", "share": 0.5}
    with pytest.raises(ValidationError, match="share"):
        WorldSource.model_validate({"kind": "world", "start": "2026-01-05", "faults": [fault]})
