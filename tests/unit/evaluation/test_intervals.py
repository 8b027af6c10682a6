"""Intervals of weighted metrics over users: the bootstrap's, at a hundredth of its time, and right as often as they say."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.special import expit

from bench.bootstrap import interval as percentiles
from bench.bootstrap import resampled_weights
from tidewheel.evaluation.calibration_error import debiased_ece
from tidewheel.evaluation.intervals import PLAIN, POSITIVE, SHARE, Users, interval
from tidewheel.evaluation.metrics import (
    Measured,
    auc,
    base_rate,
    calibration_ratio,
    ece,
    logloss,
    normalized_entropy,
    ratio,
    request_auc,
)

SEEDS = 500
FOUR_DEVIATIONS = 4 * math.sqrt(0.95 * 0.05 / SEEDS)


class Log:
    """Sampled impressions of users who differ: (B,) of what the log kept, and two models' probabilities for them.

    All positives are kept and `share` of the rest; weights are the inverse. A user has eight impressions, in two requests.
    """

    def __init__(self, seed: int, users: int, share: float) -> None:
        random = np.random.default_rng(seed)
        mood = np.repeat(random.normal(-2.0, 0.8, users), 8)
        taste = random.normal(0.0, 1.0, users * 8)
        happened = random.random(users * 8) < expit(mood + taste)
        kept = happened | (random.random(users * 8) < share)
        self.users = Users.of(np.repeat(np.arange(users), 8)[kept])
        self.requests = np.repeat(np.arange(users * 2), 4)[kept]
        self.labels = happened[kept].astype(np.int8)
        self.weight = np.where(self.labels == 1, 1.0, 1 / share)
        noise = random.normal(0.0, 1.0, (2, users * 8))
        # both know half of what there is to know, with noise of their own, and are off by a constant
        self.one, self.other = (expit(-1.6 + 0.5 * mood + 0.8 * taste + 0.5 * noise[at])[kept] for at in (0, 1))


def measured(log: Log, weight: np.ndarray) -> dict[str, Measured]:
    loss, rate = logloss(log.one, log.labels, weight), base_rate(log.labels, weight)
    return {
        "auc": auc(log.one, log.labels, weight),
        "request_auc": request_auc(log.one, log.labels, weight, log.requests),
        "logloss": loss,
        "normalized_entropy": normalized_entropy(loss, rate),
        "calibration_ratio": calibration_ratio(log.one, log.labels, weight),
        "base_rate": rate,
        "auc difference": auc(log.one, log.labels, weight) - auc(log.other, log.labels, weight),
        "logloss difference": loss - logloss(log.other, log.labels, weight),
    }


SCALES = {"auc": SHARE, "request_auc": SHARE, "calibration_ratio": POSITIVE, "base_rate": SHARE}


@pytest.fixture(scope="module")
def truth() -> dict[str, float]:
    """Of a log so large that its own error is a tenth of what is tested."""
    log = Log(seed=1_000_000, users=400_000, share=1.0)
    found = {name: metric.value for name, metric in measured(log, log.weight).items()}
    return found | {"ece": ece(log.one, log.labels, log.weight)}


@pytest.mark.slow
@pytest.mark.parametrize(("share", "users"), [(0.03, 4000), (0.1, 2000)], ids=["3% of negatives", "a tenth of negatives"])
def test_95_percent_intervals_hold_the_truth_in_95_percent_of_sampled_logs(truth: dict[str, float], share: float, users: int):
    """Figures: docs/evidence/decision-plane.md. Allowed are four binomial deviations and the truth's own error."""
    held, unweighted = dict.fromkeys(truth, 0), dict.fromkeys(truth, 0)
    for seed in range(SEEDS):
        log = Log(seed, users, share)
        for counts, weight in ((held, log.weight), (unweighted, np.ones(len(log.weight)))):
            for name, found in measured(log, weight).items():
                lower, upper = interval(found, log.users, SCALES.get(name, PLAIN))
                counts[name] += lower <= truth[name] <= upper
            _, (lower, upper) = debiased_ece(log.one, log.labels, weight, log.users)
            counts["ece"] += lower <= truth["ece"] <= upper
    print({name: (held[name] / SEEDS, unweighted[name] / SEEDS) for name in truth})
    for name in truth:
        assert abs(held[name] / SEEDS - 0.95) < FOUR_DEVIATIONS + 0.005, name
    for name in ("logloss", "normalized_entropy", "calibration_ratio", "base_rate", "ece"):
        assert unweighted[name] == 0, name


def test_the_delta_method_agrees_with_a_thousand_draws_of_users():
    log = Log(seed=3, users=3000, share=0.1)
    drawn: dict[str, list[float]] = {}
    for weight in resampled_weights(log.users.codes, log.weight, 1000, seed=0):
        # a request of a user who is drawn twice counts twice, and so does each of its pairs: the product of two weights
        of_pairs = np.sqrt(weight * log.weight)
        again = request_auc(log.one, log.labels, of_pairs, log.requests)
        for name, found in (measured(log, weight) | {"request_auc": again}).items():
            drawn.setdefault(name, []).append(found.value)
    for name, found in measured(log, log.weight).items():
        lower, upper = interval(found, log.users, SCALES.get(name, PLAIN))
        low, high = percentiles(np.array(drawn[name]))
        assert (upper - lower) / (high - low) == pytest.approx(1, abs=0.12), name  # quantiles of 1,000 draws are off by 5%
        assert abs((lower + upper) - (low + high)) / 2 < 0.15 * (high - low), name


def test_over_rows_instead_of_users_intervals_are_too_narrow():
    log = Log(seed=3, users=3000, share=1.0)
    rate = base_rate(log.labels, log.weight)
    over_users, over_rows = (interval(rate, users) for users in (log.users, Users.of(np.arange(len(log.weight)))))
    assert (over_users.upper - over_users.lower) > 1.1 * (over_rows.upper - over_rows.lower)


def test_few_users_or_few_that_carry_the_variance_give_wide_intervals():
    """Student's t of 4 degrees of freedom, and of about 2 where one user is all that varies."""
    values = np.array([1.0, 2.0, 3.0, 4.0, 5.0])
    lower, upper = interval(ratio(np.ones(5), values, 1.0), Users.of(np.arange(5)))
    assert (lower, upper) == pytest.approx((3 - 2.776 * math.sqrt(2.5 / 5), 3 + 2.776 * math.sqrt(2.5 / 5)), abs=1e-3)
    far = ratio(np.ones(1000), np.append(np.random.default_rng(0).normal(size=999), 1000.0), 1.0)
    lower, upper = interval(far, Users.of(np.arange(1000)))
    assert (upper - lower) / 2 == pytest.approx(4.3 * math.sqrt(float((far.influence**2).sum())), rel=0.05)


def test_bounds_stay_where_the_metric_can_be():
    labels, scores = np.array([0] * 30 + [1] * 30), np.arange(60.0)
    scores[29], scores[30] = scores[30], scores[29]  # one pair in the wrong order: an AUC of 899 / 900
    lower, upper = interval(auc(scores, labels, np.ones(60)), Users.of(np.arange(60)), SHARE)
    assert 0 < lower < 899 / 900 < upper < 1


def test_what_is_not_defined_has_no_interval_and_equal_models_differ_by_exactly_nothing():
    one = Users.of(np.zeros(5))
    metric = ratio(np.ones(5), np.arange(5.0), 1.0)
    assert all(map(math.isnan, interval(metric, one)))
    assert all(map(math.isnan, interval(Measured.undefined(5), Users.of(np.arange(5)))))
    assert interval(metric - metric, Users.of(np.arange(5))) == (0.0, 0.0)
