"""A world that two bundles serve, and users whom one of them tires: who got whose ranking, and what is true of it."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from tests.unit.world.conftest import MakeWorld
from tests.unit.world.test_log import after, bytes_of
from tidewheel.contracts.assignment import Assignment, Share
from tidewheel.contracts.faults import DelayedHarm
from tidewheel.world import HeldOut, World
from tidewheel.world.arms import clicks_after

NEW, OLD = "new", "old"
ASSIGNMENT = Assignment(
    recipe="quickstart", number=2, salt=11, shares=(Share(bundle=OLD, share=0.3), Share(bundle=NEW, share=0.7))
)


def is_held(user_ids: pd.Series) -> np.ndarray:
    return np.array([ASSIGNMENT.bundle_of(int(user)) == OLD for user in user_ids])


@pytest.fixture
def both_serve(make_world: MakeWorld, prefers):
    """Three days of popularity, then six of which NEW ranks music first, and OLD news for the held-out users."""

    def make(name: str, days: int = 6, **changes: object) -> World:
        world = make_world(name, **changes)
        world.ensure_log(after(world, 3), None, None)
        held_out = HeldOut(OLD, prefers("news"), ASSIGNMENT)
        world.ensure_log(after(world, 3 + days), prefers("music"), NEW, held_out=held_out)
        return world

    return make


def test_every_user_gets_the_ranking_of_the_bundle_that_the_row_names(both_serve, served) -> None:
    rows = served(both_serve("world", randomized_share=0.0)).query("bundle == bundle")
    held = is_held(rows.user_id)
    assert (rows.bundle == np.where(held, OLD, NEW)).all()
    for chosen, category in ((held, "news"), (~held, "music")):
        scored = rows[chosen & ~rows.is_feature_miss]
        assert (scored.score_click == np.where(scored.item_category == category, 0.9, 0.01)).all()
        is_first = (rows.position < 2) & (rows.item_category == category)
        assert is_first[chosen].mean() > 2 * is_first[~chosen].mean()


def test_what_the_other_users_see_is_as_if_nobody_were_held_out(make_world, both_serve, prefers, served) -> None:
    two = served(both_serve("two", days=1, randomized_share=0.0))
    alone = make_world("alone", randomized_share=0.0)
    alone.ensure_log(after(alone, 3), None, None)
    alone.ensure_log(after(alone, 4), prefers("music"), NEW)
    one = served(alone)
    columns = ["request_id", "item_id", "position", "bundle", "score_click"]
    assert (
        one[~is_held(one.user_id)][columns]
        .reset_index(drop=True)
        .equals(two[~is_held(two.user_id)][columns].reset_index(drop=True))
    )


def test_a_label_that_only_one_of_both_scores_is_null_where_the_other_ranks(make_world, served) -> None:
    class OfLikes:
        def score(self, columns):
            likes = np.where(columns["item_category"] == "music", 0.5, 0.1)
            return {"click": likes, "like": likes}

    class OfClicks:
        def score(self, columns):
            return {"click": np.where(columns["item_category"] == "news", 0.5, 0.1)}

    world = make_world()
    world.ensure_log(after(world, 1), OfLikes(), NEW, held_out=HeldOut(OLD, OfClicks(), ASSIGNMENT))
    rows = served(world)
    assert (rows.score_like.isna() == (rows.bundle == OLD)).all()


# --- delayed harm -----------------------------------------------------------------------------------------------------


def tiring(start: str = "2026-01-08", **changes: object) -> dict[str, object]:
    return {"kind": "delayed_harm", "start": start, "end": "2026-03-01", **changes}


def test_users_click_more_at_first_and_less_the_oftener_the_bundle_served_them() -> None:
    fault = DelayedHarm.model_validate(tiring(lift=0.2, loss=0.5, days=6.0))
    found = clicks_after(np.array([0.0, 6.0, 1000.0]), fault)
    assert found == pytest.approx([1.2, 1.2 - 0.7 * (1 - np.exp(-1)), 0.5])


def test_the_held_out_users_do_exactly_what_they_would_do_anyway(both_serve, reported, served) -> None:
    healthy, faulty = (
        both_serve("healthy", requests_per_day=800),
        both_serve("faulty", requests_per_day=800, faults=(tiring(),)),
    )
    assert {x: b for x, b in bytes_of(healthy.folder).items() if x < "backend/date=2026-01-09"} == {
        x: b for x, b in bytes_of(faulty.folder).items() if x < "backend/date=2026-01-09"
    }
    clicks = []
    for world in (healthy, faulty):
        of_request = served(world).drop_duplicates("request_id")[["request_id", "user_id", "bundle"]]
        found = reported(world).merge(of_request, on="request_id")
        found = found[(found.event == "click") & (found.bundle == OLD)]
        clicks.append(set(zip(found.request_id, found.item_id, strict=True)))
    assert clicks[0] == clicks[1]
    assert len(clicks[0]) > 100


def test_the_others_click_by_the_factor_of_their_own_earlier_days(both_serve, reported, served) -> None:
    """Luck is the same in both worlds; a loss of all makes the count of days plain: who was served before, clicks no more."""
    fault = tiring(lift=0.0, loss=1.0, days=1e-6)
    world = both_serve("faulty", requests_per_day=800, faults=(fault,))
    rows = served(world).query("bundle == @NEW").drop_duplicates("request_id")
    rows["day"] = rows.served_time.dt.date
    first_day = rows.groupby("user_id").day.transform("min")
    clicked = set(reported(world).query("event == 'click'").request_id)
    has_click = rows.request_id.isin(clicked)
    assert not has_click[rows.day > first_day].any()
    assert has_click[rows.day == first_day].mean() > 0.3


def test_a_bundle_that_served_before_the_start_tires_nobody(both_serve) -> None:
    faults = (tiring(start="2026-01-10"),)  # both bundles serve from 2026-01-08 on
    assert bytes_of(both_serve("faulty", faults=faults).folder) == bytes_of(both_serve("healthy").folder)


def test_a_world_left_and_opened_again_remembers_who_is_tired(both_serve, make_world, prefers) -> None:
    at_once = both_serve("once", faults=(tiring(),))
    both_serve("left", days=3, faults=(tiring(),))
    again = make_world("left", faults=(tiring(),))
    again.ensure_log(after(again, 9), prefers("music"), NEW, held_out=HeldOut(OLD, prefers("news"), ASSIGNMENT))
    assert bytes_of(again.folder) == bytes_of(at_once.folder)
