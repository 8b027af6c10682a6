"""Statistics are tested as statistics: over many seeds, with a tolerance from their number."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy.stats import norm

from tidewheel.rollout.sequence import (
    Estimate,
    bounds,
    clustered_error,
    log_evidence_above,
    log_evidence_below,
    median_bounds,
    rate_bounds,
    width,
)

SEEDS = 400


def at_most(alpha: float, seeds: int = SEEDS) -> float:
    """The share of misses that `seeds` runs may show when each misses with probability `alpha`: four standard errors."""
    return alpha + 4 * math.sqrt(alpha * (1 - alpha) / seeds)


def test_the_bound_of_a_mean_holds_at_every_look_at_once() -> None:
    rng = np.random.default_rng(0)
    looks = np.arange(100, 4001, 20)
    sums = rng.exponential(1.0, (SEEDS, 4000)).cumsum(axis=1)[:, looks - 1]
    errors = 1.0 / np.sqrt(looks)
    widths = np.array([width(error, 0.05, 0.03) for error in errors])
    means = sums / looks
    assert np.mean((means - widths > 1.0).any(axis=1)) <= at_most(0.05)
    assert np.mean((means + widths < 1.0).any(axis=1)) <= at_most(0.05)


def test_a_fixed_interval_does_not_hold_under_peeking_which_is_why_this_one_exists() -> None:
    rng = np.random.default_rng(0)
    looks = np.arange(100, 4001, 20)
    means = rng.normal(0.0, 1.0, (SEEDS, 4000)).cumsum(axis=1)[:, looks - 1] / looks
    assert np.mean((means > 1.645 / np.sqrt(looks)).any(axis=1)) > 0.15


@given(st.floats(1e-4, 1.0), st.floats(1e-6, 0.1), st.floats(0.25, 4.0))
def test_the_bound_is_wider_than_a_fixed_one_and_wider_for_a_smaller_alpha(error: float, alpha: float, ratio: float) -> None:
    """Far from the standard error where it is sharpest, tuning for another alpha may outweigh the alpha itself."""
    sharpest = error * ratio
    assert width(error, alpha, sharpest) > error * norm.isf(alpha)
    assert width(error, alpha / 2, sharpest) > width(error, alpha, sharpest)


def test_the_bound_is_sharpest_near_the_standard_error_it_was_asked_to_be() -> None:
    errors = np.geomspace(0.001, 1.0, 200)
    ratios = [width(error, 0.05, 0.03) / error for error in errors]
    assert 0.015 < errors[int(np.argmin(ratios))] < 0.06
    assert min(ratios) < 2.9


def test_no_spread_or_no_number_gives_no_bound() -> None:
    for estimate in (Estimate(0.0, 0.0), Estimate(math.nan, 1.0), Estimate(0.0, math.nan)):
        assert bounds(estimate, 0.05, 0.1) == (-math.inf, math.inf)


def test_one_user_alone_has_no_standard_error() -> None:
    assert math.isnan(clustered_error(np.array([1.0, -1.0]), np.array([5, 5])))


def test_the_median_stays_within_its_bounds_at_every_look() -> None:
    rng = np.random.default_rng(2)
    misses = 0
    for _ in range(150):
        values = rng.lognormal(0.0, 1.0, 1200)  # its median is 1
        looks = [median_bounds(np.sort(values[:count]), 0.05, 400) for count in range(50, 1201, 50)]
        misses += any(not low <= 1.0 <= high for low, high in looks)
    assert misses / 150 <= at_most(0.1, 150)


def test_the_median_of_nothing_or_of_few_is_unbounded() -> None:
    assert median_bounds(np.array([]), 0.05, 400) == (-math.inf, math.inf)
    assert median_bounds(np.array([1.0, 2.0]), 0.05, 400) == (-math.inf, math.inf)


@pytest.mark.parametrize(("evidence", "rate"), [(log_evidence_below, 0.01), (log_evidence_above, 0.01)])
def test_the_evidence_about_a_rate_at_its_limit_rarely_convinces_however_often_one_looks(evidence, rate: float) -> None:
    failures = np.random.default_rng(3).random((SEEDS, 1500)) < rate
    counts = failures.cumsum(axis=1)
    looks = range(50, 1501, 50)
    convinced = [any(evidence(int(row[n - 1]), n, rate) >= math.log(20) for n in looks) for row in counts]
    assert np.mean(convinced) <= at_most(0.05)


def test_four_hundred_requests_without_an_error_prove_a_rate_below_one_percent() -> None:
    assert log_evidence_below(0, 400, 0.01) >= math.log(20)
    assert log_evidence_below(0, 250, 0.01) < math.log(20)


@given(st.integers(0, 500), st.integers(0, 500))
def test_the_bounds_of_a_rate_hold_its_estimate(events: int, others: int) -> None:
    trials = events + others
    lower, upper = rate_bounds(events, trials, 0.05)
    assert 0.0 <= lower <= (events / trials if trials else 1.0) + 1e-9
    assert (events / trials if trials else 0.0) - 1e-9 <= upper <= 1.0


@settings(deadline=None)
@given(st.integers(0, 10**6), st.integers(0, 10**6), st.floats(1e-6, 0.4))
@example(0, 1, 0.05)
@example(1, 0, 0.05)
@example(10**6, 1, 0.05)
@example(1, 10**6, 1e-6)
def test_the_bounds_of_a_rate_lie_where_halving_finds_the_end_of_what_is_refuted(
    events: int, others: int, alpha: float
) -> None:
    def halved(inside: float, outside: float, evidence) -> float:
        while abs(outside - inside) > 1e-12:
            middle = (inside + outside) / 2
            if evidence(events, events + others, middle) >= -math.log(alpha):
                outside = middle
            else:
                inside = middle
        return outside

    rate = events / max(events + others, 1)
    lower, upper = rate_bounds(events, events + others, alpha)
    assert lower == pytest.approx(halved(rate, 0.0, log_evidence_above) if events else 0.0, abs=1e-10)
    assert upper == pytest.approx(halved(rate, 1.0, log_evidence_below) if others else 1.0, abs=1e-10)
