import numpy as np
import pytest
from scipy.stats import kendalltau

from tidewheel.evaluation.intervals import Users, interval
from tidewheel.evaluation.lists import ranks
from tidewheel.evaluation.metrics import ndcg
from tidewheel.evaluation.stability import MAX_PAIRS, kendall_tau, top_churn


def test_within_one_request_it_is_scipys_tau_b_with_ties():
    random = np.random.default_rng(1)
    one, other = random.integers(0, 6, 40) / 10, random.integers(0, 6, 40) / 10
    found = kendall_tau(one, other, np.ones(40), np.zeros(40, dtype=int))
    assert found.value == pytest.approx(kendalltau(one, other).statistic, abs=1e-12)


def test_pairs_of_different_requests_do_not_count():
    one, other = np.array([0.1, 0.2, 0.9, 0.8]), np.array([0.1, 0.2, 0.2, 0.1])
    requests = np.array([0, 1, 0, 1])  # both pairs agree within their request
    assert kendall_tau(one, other, np.ones(4), requests, 0).value == pytest.approx(0.0)
    assert kendall_tau(one, one * 0.5, np.ones(4), requests, 0).value == pytest.approx(1.0)
    assert kendall_tau(one, -one, np.ones(4), requests, 0).value == pytest.approx(-1.0)


def test_a_sampled_log_estimates_the_whole_one():
    """Rows kept by their label, as the hybrid log does: positives all, a fifth of the rest."""
    random = np.random.default_rng(2)
    requests = np.repeat(np.arange(4000), 8)
    worth = random.normal(size=32_000)
    one, other = worth + random.normal(size=32_000), worth + random.normal(size=32_000)
    whole = kendall_tau(one, other, np.ones(32_000), requests).value
    is_positive = random.random(32_000) < 1 / (1 + np.exp(2 - worth))
    kept = is_positive | (random.random(32_000) < 0.2)
    weight = np.where(is_positive, 1.0, 5.0)[kept]
    found = kendall_tau(one[kept], other[kept], weight, requests[kept])
    lower, upper = interval(found, Users.of(requests[kept]))
    assert lower < whole < upper
    assert upper - lower < 0.1


def test_long_requests_are_sampled_and_not_cut():
    random = np.random.default_rng(3)
    one = random.random(1000)
    other = one + random.normal(0, 0.3, 1000)
    found = kendall_tau(one, other, np.ones(1000), np.zeros(1000, dtype=int))
    assert found.value == pytest.approx(kendalltau(one, other).statistic, abs=3 / MAX_PAIRS**0.5 / 1000**0.5 * 3)


def test_a_few_pairs_that_stand_for_all_others_say_nothing():
    random = np.random.default_rng(4)
    one, other, requests = random.random(400), random.random(400), np.repeat(np.arange(100), 4)
    weight = np.ones(400)
    assert np.isfinite(kendall_tau(one, other, weight, requests).value)
    weight[:8] = 100.0  # two requests: twelve pairs of ten thousand
    assert np.isnan(kendall_tau(one, other, weight, requests).value)


def test_where_nothing_is_told_apart_it_is_not_defined():
    assert np.isnan(kendall_tau(np.ones(4), np.arange(4.0), np.ones(4), np.zeros(4, dtype=int)).value)
    assert np.isnan(kendall_tau(np.arange(4.0), np.arange(4.0), np.ones(4), np.arange(4)).value)


def test_churn_is_the_share_of_the_first_k_that_left():
    other = np.array([0.9, 0.8, 0.7, 0.1, 0.5, 0.4])
    one = np.array([0.9, 0.1, 0.7, 0.8, 0.5, 0.4])
    requests = np.array([0, 0, 0, 0, 1, 1])
    assert top_churn(one, other, requests, 2).value == pytest.approx(1 / 4)  # of 0.9 0.8 and 0.5 0.4 only the 0.8 left
    assert top_churn(other, other, requests, 2).value == 0.0


def test_places_count_from_the_best_of_each_request():
    assert ranks(np.array([0.1, 0.9, 0.5, 0.7]), np.array([7, 7, 7, 3])).tolist() == [2, 0, 1, 0]
    assert ranks(np.array([0.5, 0.5]), np.array([1, 1])).tolist() == [0, 1]
    assert ranks(np.zeros(0), np.zeros(0)).tolist() == []


def draw(seed, lists=600):
    """Requests of users who differ; scores of two models of the same worth, and clicks."""
    random = np.random.default_rng(seed)
    users = np.repeat(random.integers(0, lists // 4, lists), 6)
    of_user = random.normal(0, 0.7, lists // 4)[users]
    worth = random.normal(size=len(users))
    agreement = 1 / (1 + np.exp(-2 * of_user))  # some users' requests are reordered more than others'
    one = worth + random.normal(size=len(users))
    other = worth + (1 + agreement) * random.normal(size=len(users))
    clicks = random.random(len(users)) < 1 / (1 + np.exp(1.5 - worth - of_user))
    return one, other, clicks.astype(np.int8), np.repeat(np.arange(lists), 6), Users.of(users), random


@pytest.mark.slow
def test_intervals_hold_the_value_of_the_whole_population_in_95_percent_of_logs():
    measures = {
        "tau": lambda one, other, clicks, requests: kendall_tau(one, other, np.ones(len(one)), requests),
        "churn": lambda one, other, clicks, requests: top_churn(one, other, requests, 2),
        "ndcg": lambda one, other, clicks, requests: ndcg(one, clicks, requests, 3),
        "ndcg, one - other": lambda one, other, clicks, requests: (
            ndcg(one, clicks, requests, 3) - ndcg(other, clicks, requests, 3)
        ),
    }
    held, seeds = dict.fromkeys((*measures, "tau, a tenth", "tau, three percent"), 0), 500
    population = [draw(10_000 + seed, 20_000)[:4] for seed in range(4)]
    truth = {name: np.mean([measure(*whole).value for whole in population]) for name, measure in measures.items()}
    for seed in range(seeds):
        one, other, clicks, requests, users, random = draw(seed)
        for name, measure in measures.items():
            lower, upper = interval(measure(one, other, clicks, requests), users)
            held[name] += lower <= truth[name] <= upper
        for rate, lists, name in ((0.1, 2000, "tau, a tenth"), (0.03, 8000, "tau, three percent")):
            one, other, clicks, requests, users, random = draw(seed, lists)
            kept = (clicks == 1) | (random.random(len(one)) < rate)
            weight = np.where(clicks == 1, 1.0, 1 / rate)[kept]
            found = kendall_tau(one[kept], other[kept], weight, requests[kept])
            lower, upper = interval(found, Users.of(users.codes[kept]))
            held[name] += lower <= truth["tau"] <= upper
    print({name: f"{count / seeds:.1%}" for name, count in held.items()})
    assert all(abs(count / seeds - 0.95) < 4 * (0.95 * 0.05 / seeds) ** 0.5 for count in held.values()), held
