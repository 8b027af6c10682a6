from __future__ import annotations

from datetime import timedelta

import numpy as np
import pytest

from tidewheel.contracts.schema import Entity
from tidewheel.errors import ContractError
from tidewheel.rollout.traffic import Traffic
from tidewheel.world.faults import broken_features, is_active

SLATE = 8
CANDIDATES = 24


@pytest.fixture
def world(make_world):
    world = make_world()
    world.ensure_log(world.source.start + timedelta(days=2), None, None)
    return world


def scores_of(count: int) -> list[dict[str, np.ndarray]]:
    rng = np.random.default_rng(5)
    return [{"click": rng.random(CANDIDATES), "long_view": rng.random(CANDIDATES)} for _ in range(count)]


def test_requests_do_not_depend_on_how_many_are_taken_at_a_time(world):
    at = world.source.start + timedelta(days=2)
    at_once, in_parts = world.traffic(at), world.traffic(at)
    requests = [request for size in (1, 998, 2, 0, 1200, 299) for request in in_parts.take(size)]
    wanted = at_once.take(2500)
    assert len(requests) == len(wanted) == 2500
    assert len({request.request_id for request in wanted}) == 2500
    for one, other, scores in zip(requests, wanted, scores_of(2500), strict=True):
        assert (one.request_id, one.user_id) == (other.request_id, other.user_id)
        np.testing.assert_array_equal(one.item_ids, other.item_ids)
        reactions = in_parts.react(one, scores), at_once.react(other, scores)
        np.testing.assert_array_equal(reactions[0].shown, reactions[1].shown)
        np.testing.assert_array_equal(reactions[0].labels["click"], reactions[1].labels["click"])


def test_requests_are_not_those_of_the_log_and_differ_from_day_to_day(world, served):
    at = world.source.start + timedelta(days=1)
    today, tomorrow = world.traffic(at).take(50), world.traffic(at + timedelta(days=1)).take(50)
    assert not {r.request_id for r in today} & set(served(world).request_id)
    assert not {r.request_id for r in today} & {r.request_id for r in tomorrow}
    assert [r.user_id for r in today] != [r.user_id for r in tomorrow]


def test_features_have_the_lengths_and_types_of_the_interface(world):
    traffic: Traffic = world.traffic(world.source.start + timedelta(days=2))
    assert traffic.is_closed_loop
    for request in traffic.take(20):
        assert list(request.features) == [feature.name for feature in world.features]
        for feature in world.features:
            column = request.features[feature.name]
            assert column.shape == ((CANDIDATES,) if feature.entity is Entity.ITEM else (1,))
            kind = (
                "i"
                if feature.name.endswith("_id")
                else "f"
                if feature.name.endswith(("_days", "_rate", "_impressions"))
                else "O"
            )
            assert column.dtype.kind == kind
        assert request.features["user_id"][0] == request.user_id
        np.testing.assert_array_equal(request.features["item_id"], request.item_ids)
        assert "event_time" not in request.features
        with pytest.raises(KeyError):
            request.features["event_time"]


def test_served_counters_are_those_known_at_the_start_of_the_day(world):
    snapshot = world.snapshot(2)
    rate_of = dict(zip(snapshot.item["item_id"].tolist(), snapshot.item["item_click_rate"].tolist(), strict=True))
    assert len(set(rate_of.values())) > 20
    for request in world.traffic(world.source.start + timedelta(days=2)).take(10):
        assert request.features["item_click_rate"].tolist() == [rate_of[key] for key in request.item_ids.tolist()]


def test_the_best_by_scores_are_shown_best_first(world):
    traffic = world.traffic(world.source.start + timedelta(days=2))
    for request, scores in zip(traffic.take(50), scores_of(50), strict=True):
        outcome = traffic.react(request, scores)
        worth = scores["click"] + 0.5 * scores["long_view"]
        np.testing.assert_array_equal(outcome.shown, np.argsort(-worth)[:SLATE])
        assert set(outcome.labels) == {"click", "long_view", "like"}
        for label in outcome.labels.values():
            assert label.shape == (SLATE,)
            assert (label <= outcome.labels["click"]).all()


def test_both_arms_share_their_luck(world):
    """An item that two rankings show at the same position gets the same reaction from the same user."""
    traffic = world.traffic(world.source.start + timedelta(days=2))
    clicks = 0
    for request in traffic.take(300):
        one = np.arange(CANDIDATES, 0.0, -1.0)
        other = one.copy()
        other[1], other[2] = one[2], one[1]
        first, second = traffic.react(request, {"click": one}), traffic.react(request, {"click": other})
        same = first.shown == second.shown
        assert same.sum() == SLATE - 2
        for label in first.labels:
            np.testing.assert_array_equal(first.labels[label][same], second.labels[label][same])
        clicks += int(first.labels["click"].sum())
    assert clicks > 50


def test_an_item_gets_fewer_clicks_further_down(world):
    """(1 + position) ** -0.2: the last of eight is looked at with 0.66 of the first's probability."""
    traffic = world.traffic(world.source.start + timedelta(days=2))
    requests = traffic.take(6000)
    top = np.arange(CANDIDATES, 0.0, -1.0)
    bottom = top.copy()
    bottom[0] = CANDIDATES - SLATE + 0.5  # candidate 0 comes eighth, behind candidates 1 to 7
    clicks = []
    for scores, position in ((top, 0), (bottom, SLATE - 1)):
        outcomes = [traffic.react(request, {"click": scores}) for request in requests]
        assert all(outcome.shown[position] == 0 for outcome in outcomes)
        clicks.append(sum(int(outcome.labels["click"][position]) for outcome in outcomes))
    ratio = clicks[1] / clicks[0]
    assert abs(ratio - 8**-0.2) < 4 * np.sqrt(ratio * (1 - ratio) / clicks[0])


def test_scores_that_do_not_fit_are_refused(world):
    traffic, other = (world.traffic(world.source.start + timedelta(days=2)) for _ in range(2))
    request = traffic.take(1)[0]
    with pytest.raises(ContractError, match="expected click"):
        traffic.react(request, {"long_view": np.ones(CANDIDATES)})
    with pytest.raises(ContractError, match=r"shape \(3,\), expected \(24,\)"):
        traffic.react(request, {"click": np.ones(3)})
    with pytest.raises(ContractError, match="was not taken"):
        other.react(request, {"click": np.ones(CANDIDATES)})


def faulty(make_world, start_hours: float, end_hours: float):
    at = make_world().source.start + timedelta(days=2)
    fault = {"kind": "served_features", "start": at + timedelta(hours=start_hours), "end": at + timedelta(hours=end_hours)}
    world = make_world("faulty", faults=(fault,))
    world.ensure_log(at, None, None)
    return world, world.traffic(at)


def test_a_fault_breaks_what_the_candidate_is_served_and_nothing_else(make_world):
    broken_world, traffic = faulty(make_world, 0, 24)
    for request in traffic.take(20):
        assert traffic.served_features(request, False) is request.features
        served = traffic.served_features(request, True)
        assert list(served) == list(request.features)
        for feature in broken_world.features:
            own, got = request.features[feature.name], served[feature.name]
            assert own.dtype == got.dtype
            scale = 100.0 if feature.name.endswith("_rate") else 1
            is_misplaced = feature.entity is Entity.ITEM and feature.name != "item_id"
            want = own[::-1] if is_misplaced else own
            np.testing.assert_array_equal(got, want * scale if scale != 1 else want)


def test_a_fault_lasts_from_its_start_to_before_its_end(make_world):
    _, traffic = faulty(make_world, 1 / 3600, 3 / 3600)  # requests come one second apart: the second and the third
    requests = traffic.take(5)
    broken = [traffic.served_features(request, True) is not request.features for request in requests]
    assert broken == [False, True, True, False, False]


def test_a_fault_of_another_time_is_not_active(make_world):
    world, _ = faulty(make_world, 0, 1)
    fault = world.source.faults[0]
    assert is_active(world.source.faults, "served_features", fault.start)
    assert not is_active(world.source.faults, "served_features", fault.end)
    assert not is_active((), "served_features", fault.start)


def test_breaking_leaves_the_request_as_it_was(world):
    request = world.traffic(world.source.start + timedelta(days=2)).take(1)[0]
    before = {name: column.copy() for name, column in request.features.items()}
    broken_features(request.features, world.features)
    for name, column in request.features.items():
        np.testing.assert_array_equal(column, before[name])
    assert (world.snapshot(2).item["item_click_rate"] < 1.0).all()
