import numpy as np
import pytest
from scipy.stats import kendalltau

from tidewheel.evaluation.intervals import Users, interval
from tidewheel.evaluation.lists import ranks
from tidewheel.evaluation.stability import MAX_PAIRS, kendall_tau, top_churn


def test_within_one_request_it_is_scipys_tau_b_with_ties():
    random = np.random.default_rng(1)
    one, other = random.integers(0, 6, 40) / 10, random.integers(0, 6, 40) / 10
    found = kendall_tau(one, other, np.ones(40), np.zeros(40, dtype=int))
    assert found.value == pytest.approx(kendalltau(one, other).statistic, abs=1e-12)


def test_pairs_of_different_requests_do_not_count():
    one, other = np.array([0.1, 0.2, 0.9, 0.8]), np.array([0.1, 0.2, 0.2, 0.1])
    requests = np.array([0, 1, 0, 1])  # both pairs agree within their request
    assert kendall_tau(one, other, np.ones(4), requests).value == pytest.approx(0.0)
    assert kendall_tau(one, one * 0.5, np.ones(4), requests).value == pytest.approx(1.0)
    assert kendall_tau(one, -one, np.ones(4), requests).value == pytest.approx(-1.0)


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
