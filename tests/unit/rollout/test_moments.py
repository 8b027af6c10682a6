from __future__ import annotations

import math

import numpy as np
import pytest

from tidewheel.rollout.moments import ONE, Moments


def moments_of(users: np.ndarray, **series: np.ndarray) -> Moments:
    moments = Moments()
    for part in np.array_split(np.arange(len(users)), 7):
        moments.add(users[part], {name: values[part] for name, values in series.items()})
    return moments


def test_the_clustered_error_of_single_requests_is_the_textbook_one() -> None:
    values = np.random.default_rng(1).normal(size=500)
    estimate = moments_of(np.arange(500), y=values).ratio("y")
    assert estimate.value == pytest.approx(values.mean())
    assert estimate.standard_error == pytest.approx(values.std(ddof=1) / math.sqrt(500))


def test_requests_of_one_user_count_as_one_observation() -> None:
    values, users = np.repeat([1.0, 2.0, 3.0, 4.0], 50), np.repeat([1, 2, 3, 4], 50)
    want = np.array([1.0, 2.0, 3.0, 4.0]).std(ddof=1) / 2.0
    assert moments_of(users, y=values).ratio("y").standard_error == pytest.approx(want)


def test_the_error_of_a_ratio_of_sums_is_that_of_its_linearization() -> None:
    rng = np.random.default_rng(2)
    users, x = rng.integers(0, 40, 300), rng.uniform(1.0, 9.0, 300)
    y = 2.0 * x + rng.normal(size=300)
    influence = (y - y.sum() / x.sum() * x) / x.sum()
    squares = sum(influence[users == user].sum() ** 2 for user in set(users))
    estimate = moments_of(users, y=y, x=x).ratio("y", "x")
    assert estimate.value == pytest.approx(y.sum() / x.sum())
    assert estimate.standard_error == pytest.approx(math.sqrt(40 / 39 * squares))


def test_one_user_alone_has_no_standard_error() -> None:
    assert math.isnan(moments_of(np.full(20, 5), y=np.arange(20.0)).ratio("y").standard_error)


def test_a_ratio_to_nothing_is_none() -> None:
    assert math.isnan(moments_of(np.arange(20), y=np.ones(20)).ratio("y", "never named").value)


def test_numbers_of_which_only_the_last_digits_vary_keep_their_spread() -> None:
    values = 1e6 + np.random.default_rng(3).normal(size=500)
    assert moments_of(np.arange(500), y=values).ratio("y").standard_error == pytest.approx(
        values.std(ddof=1) / math.sqrt(500), rel=1e-7
    )


def test_a_series_that_never_varies_has_an_error_of_exactly_zero() -> None:
    assert moments_of(np.arange(300) % 41, y=np.full(300, 0.1)).ratio("y").standard_error == 0.0


def test_series_that_cancel_but_for_rounding_have_an_error_above_zero() -> None:
    x = np.random.default_rng(4).uniform(0.5, 1.5, 3000)
    error = moments_of(np.arange(3000) % 400, x=x, y=0.3 * x).error({"y": 1.0, "x": -0.3})
    assert 0.0 < error < 1e-5


def test_a_series_is_zero_where_it_is_not_named() -> None:
    moments = Moments()
    moments.add([1, 2], {"y": [3.0, 5.0]})
    moments.add([2, 3], {"y": [1.0, 1.0], "z": [1.0, 0.0]})
    moments.add([], {})
    assert (moments.num_requests, moments.num_users, moments.total(ONE)) == (4, 3, 4.0)
    assert (moments.total("y"), moments.mean("z"), moments.total("w")) == (10.0, 0.25, 0.0)
    assert moments.comoment("y", "z") == pytest.approx(1.0 - 10.0 / 4.0)
