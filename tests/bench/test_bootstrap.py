import math

import numpy as np
import pytest

from bench.bootstrap import PresortedAuc, bootstrap, interval, resampled_weights
from tidewheel.evaluation.metrics import auc


def test_a_replicate_draws_whole_users_and_as_many_as_there_are():
    users, weight = np.array([0, 0, 1, 2, 2, 2]), np.array([1.0, 2, 3, 4, 5, 6])
    for resampled in resampled_weights(users, weight, 50, seed=1):
        times = resampled / weight
        assert times[0] == times[1]
        assert times[3] == times[4] == times[5]
        assert times[0] + times[2] + times[3] == 3


def test_the_same_seed_gives_the_same_replicates_and_no_rows_give_none():
    users, weight = np.arange(20), np.ones(20)
    first = bootstrap({"sum": lambda w: float(w @ np.arange(20))}, users, weight, 30)
    again = bootstrap({"sum": lambda w: float(w @ np.arange(20))}, users, weight, 30)
    assert np.array_equal(first["sum"], again["sum"])
    assert bootstrap({"sum": lambda w: 1.0}, users[:0], weight[:0], 30)["sum"].shape == (0,)


def test_replicates_of_an_auc_are_the_auc_of_the_rows_that_were_drawn():
    generator = np.random.default_rng(5)
    scores, labels = generator.integers(0, 8, 60) / 8, generator.integers(0, 2, 60)
    users, weight = generator.integers(0, 25, 60), generator.uniform(0.5, 3, 60)
    _, users = np.unique(users, return_inverse=True)
    found = bootstrap({"auc": PresortedAuc(scores, labels)}, users, weight, 20, seed=2)["auc"]
    expected = [auc(scores, labels, w).value for w in resampled_weights(users, weight, 20, seed=2)]
    assert found == pytest.approx(expected)


def test_the_interval_cuts_the_tails_and_refuses_mostly_undefined_replicates():
    assert interval(np.arange(1001.0)) == pytest.approx((25, 975))
    assert all(map(math.isnan, interval(np.array([1.0, float("nan")] * 50))))
    assert all(map(math.isnan, interval(np.empty(0))))
    assert interval(np.array([float("nan"), *np.arange(101.0)])) == pytest.approx((2.5, 97.5))


def coverage(clustered, rounds, seed):
    """Share of rounds in which the interval of a weighted mean holds the truth, 0, in data with strong user effects."""
    generator, held = np.random.default_rng(seed), 0
    for _ in range(rounds):
        users = np.repeat(np.arange(60), 5)
        values = generator.normal(size=60)[users] + 0.5 * generator.normal(size=300)
        weight = generator.choice([1.0, 4.0], 300)
        codes = users if clustered else np.arange(300)

        def mean(w, values=values):
            return float(w @ values / w.sum())

        lower, upper = interval(bootstrap({"mean": mean}, codes, weight, 200, seed=0)["mean"])
        held += lower <= 0.0 <= upper
    return held / rounds


def test_intervals_over_users_hold_the_truth_as_often_as_they_say_and_over_rows_they_do_not():
    """95% nominal; 60 clusters and 200 replicates cost about a point and a half, four binomial deviations are allowed."""
    rounds = 400
    deviation = math.sqrt(0.95 * 0.05 / rounds)
    found = coverage(clustered=True, rounds=rounds, seed=11)
    assert 0.935 - 4 * deviation < found < 0.95 + 4 * deviation
    assert coverage(clustered=False, rounds=100, seed=11) < 0.8
