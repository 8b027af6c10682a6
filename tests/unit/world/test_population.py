from __future__ import annotations

import itertools
from datetime import timedelta

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from tidewheel.contracts.recipe import WorldSource
from tidewheel.world.demand import NUM_CANDIDATES, Demand
from tidewheel.world.policy import rank
from tidewheel.world.population import CATEGORIES, ITEM_LIFE_DAYS, QUERIES, SURFACES, Population, examination


def source(**changes: object) -> WorldSource:
    return WorldSource.model_validate({"kind": "world", "start": "2026-01-05"} | changes)


def test_rates_are_those_of_a_real_feed():
    """Averaged over worlds, on what random order shows: click 8-13%, half of the clicks long, likes about 2%."""
    rates = []
    for seed in range(8):
        population = Population(source(seed=seed))
        requests = Demand(population).draw(np.random.default_rng(seed), 10, 1000)
        looked = examination(np.arange(8)).mean()
        truth = population.true_probabilities(10, requests)
        rates.append([truth[label].mean() * looked for label in ("click", "long_view", "like")])
    click, long_view, like = np.mean(rates, axis=0)
    assert 0.06 < click < 0.13
    assert 0.45 < long_view / click < 0.7
    assert 0.1 < like / click < 0.3


def test_the_oracle_beats_popularity_and_popularity_beats_chance(make_world):
    world = make_world(num_users=2000, num_items=800, requests_per_day=2500)
    day = 6
    world.ensure_log(world.source.start + timedelta(days=day), None, None)
    requests = world.draw_requests(day, 2000)
    truth = world.true_probabilities(day, requests)["click"]

    def engagement(worth: np.ndarray) -> float:
        return float(world.expected_engagement(day, requests, worth).mean())

    chance = engagement(np.random.default_rng(0).random(truth.shape))
    popular = engagement(world.popularity(day, requests))
    assert popular > 1.15 * chance
    assert engagement(truth) > 1.15 * popular


def test_truth_separates_clicks_as_well_as_a_good_ranker_may_hope_for():
    population = Population(source())
    requests = Demand(population).draw(np.random.default_rng(0), 10, 2000)
    truth = population.true_probabilities(10, requests)["click"].ravel()
    clicked = np.random.default_rng(1).random(truth.shape) < truth
    assert 0.72 < roc_auc_score(clicked, truth) < 0.9


def test_expected_engagement_is_what_drawing_reactions_gives_on_average(make_world):
    world = make_world()
    traffic = world.traffic(world.source.start)
    requests = traffic.take(4000)
    clicks = [
        traffic.react(request, {"click": np.linspace(1.0, 0.0, NUM_CANDIDATES)}).labels["click"].sum() for request in requests
    ]
    drawn = world.draw_requests(0, 4000)
    expected = world.expected_engagement(
        0, drawn, np.broadcast_to(np.linspace(1.0, 0.0, NUM_CANDIDATES), drawn.candidates.shape)
    )
    error = np.hypot(np.std(clicks), np.std(expected)) / np.sqrt(4000)
    assert abs(np.mean(clicks) - expected.mean()) < 4 * error


def test_examination_falls_with_the_position_from_one():
    looked = examination(np.arange(8))
    assert looked[0] == 1.0
    assert (np.diff(looked) < 0).all()
    assert looked[1] == pytest.approx(0.870551, abs=1e-6)  # 2 ** -0.2


def test_the_catalogue_keeps_its_size_and_ages_while_items_come_and_go():
    population = Population(source(num_items=840))
    weeks = [population.items(day) for day in range(0, 2 * ITEM_LIFE_DAYS, 7)]
    for before, after in itertools.pairwise(weeks):
        stayed = np.intersect1d(before.item_id, after.item_id)
        replaced = 1.0 - len(stayed) / 840
        assert abs(replaced - 7 / ITEM_LIFE_DAYS) < 4 * np.sqrt(7 / ITEM_LIFE_DAYS / 840)
        assert len(np.unique(after.item_id)) == 840
        assert after.age_days.min() >= 0.0
        assert after.age_days.max() < ITEM_LIFE_DAYS
        assert abs(after.age_days.mean() - 41.5) < 4 * 24.3 / np.sqrt(840)


def test_an_item_never_changes_what_it_is():
    population = Population(source(num_items=200))
    seen: dict[int, tuple[int, int, float]] = {}
    for day in range(0, 200, 5):
        items = population.items(day)
        for key, author, category, quality in zip(items.item_id, items.author, items.category, items.quality, strict=True):
            assert seen.setdefault(int(key), (author, category, quality)) == (author, category, quality)


def test_tastes_turn_week_by_week_without_fading():
    population = Population(source())
    first, next_week, next_month = (population.taste(day) for day in (0, 7, 28))

    def likeness(one: np.ndarray, other: np.ndarray) -> float:
        return float(np.mean(np.sum(one * other, axis=1) / np.linalg.norm(one, axis=1) / np.linalg.norm(other, axis=1)))

    assert 0.85 < likeness(first, next_week) < 0.98
    assert likeness(first, next_month) < likeness(first, next_week)
    assert np.linalg.norm(next_month, axis=1).mean() == pytest.approx(np.linalg.norm(first, axis=1).mean(), rel=0.05)


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    num_items=st.integers(10, 400),
    num_users=st.integers(10, 50),
    day=st.integers(0, 400),
    count=st.integers(1, 60),
)
def test_candidates_are_distinct_and_in_the_catalogue_whatever_the_sizes(seed, num_items, num_users, day, count):
    population = Population(source(seed=seed, num_items=num_items, num_users=num_users))
    requests = Demand(population).draw(np.random.default_rng(seed), day, count)
    assert requests.candidates.shape == (count, min(NUM_CANDIDATES, num_items))
    assert all(len(set(row)) == len(row) for row in requests.candidates.tolist())
    assert requests.candidates.min() >= 0
    assert requests.candidates.max() < num_items
    assert (np.diff(requests.seconds) >= 0).all()
    assert 0 <= requests.seconds.min() <= requests.seconds.max() < 86_400
    is_search = requests.surfaces == SURFACES.index("search")
    assert ((requests.queries < len(CATEGORIES)) == is_search).all()
    assert requests.queries.max() < len(QUERIES)


def test_the_order_of_candidates_says_nothing_about_them():
    """A ranker that cannot tell candidates apart must not profit from the order in which retrieval found them."""
    population = Population(source())
    requests = Demand(population).draw(np.random.default_rng(0), 3, 4000)
    truth = population.true_probabilities(3, requests)["click"]
    first, last = truth[:, :4].mean(axis=1), truth[:, -4:].mean(axis=1)
    difference = first - last
    assert abs(difference.mean()) < 4 * difference.std() / np.sqrt(len(difference))


def test_ranking_puts_the_best_first_and_what_has_no_score_last():
    worth = np.array([[0.1, np.nan, 0.5, 0.5, 0.2], [1.0, 2.0, 3.0, 4.0, 5.0]])
    np.testing.assert_array_equal(rank(worth, 3), [[2, 3, 4], [4, 3, 2]])
    np.testing.assert_array_equal(rank(worth[0], 5), [2, 3, 4, 0, 1])
