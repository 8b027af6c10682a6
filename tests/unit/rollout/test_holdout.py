"""Delayed harm, judged day after day: by hand where that is possible, over many seeds where it is about chance."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from bench.delayed_harm import Factor
from bench.delayed_harm import drawn as drawn_users
from tidewheel.contracts.experiment import HoldoutConfig
from tidewheel.contracts.verdict import Phase
from tidewheel.rollout.holdout import Effect, UserDays, effect, judge

RULES = HoldoutConfig(share=0.2, horizon_days=21, period_days=7, max_drop=0.05, alpha=0.05)


def drawn(seed: int, factor: Factor, users: int = 800, requests_per_day: int = 800, days: int = 21) -> UserDays:
    return drawn_users(seed, factor, users=users, requests_per_day=requests_per_day, days=days, share=RULES.share)


def harmless(exposed: np.ndarray) -> np.ndarray:
    return np.ones(len(exposed))


def tiring(exposed: np.ndarray) -> np.ndarray:
    """Good at first, harmful in the second week."""
    return 1.2 - 0.7 * (1.0 - np.exp(-exposed / 6.0))


def until(found: UserDays, days: int) -> UserDays:
    return found.where(found.day < days)


def convicted(found: UserDays, rules: HoldoutConfig) -> dict[str, int]:
    """Signal -> the first day at which a daily look finds it failed."""
    first: dict[str, int] = {}
    for days in range(1, rules.horizon_days + 1):
        for signal in judge(until(found, days), days, rules, days == rules.horizon_days).signals:
            if signal.phase is Phase.FAILED:
                first.setdefault(signal.name, days)
    return first


def at_most(alpha: float, seeds: int) -> float:
    return alpha + 4 * math.sqrt(alpha * (1 - alpha) / seeds)


# --- the estimate -----------------------------------------------------------------------------------------------------


def balanced(new: float, previous: float, users: int = 100) -> UserDays:
    """One day of two requests for each of `users` in either arm, all of an arm with the same count but for a bit of spread."""
    wobble = np.where(np.arange(users) % 2 == 0, 0.5, -0.5)
    return UserDays(
        day=np.zeros(2 * users, dtype=np.int64),
        user=np.arange(2 * users),
        is_new=np.repeat([True, False], users),
        requests=np.full(2 * users, 2.0),
        engaged=np.concatenate([2 * new + wobble, 2 * previous + wobble]),
        before=np.full(2 * users, np.nan),
    )


def test_the_effect_is_the_quotient_of_engagements_a_request() -> None:
    found = effect(balanced(0.9, 1.2))
    assert isinstance(found, Effect)
    assert (found.new, found.previous) == (pytest.approx(0.9), pytest.approx(1.2))
    assert found.value == pytest.approx(-0.25)


def test_its_standard_error_is_the_delta_method_by_hand() -> None:
    found = effect(balanced(0.9, 1.2))
    assert isinstance(found, Effect)
    of_a_mean = 0.25 / math.sqrt(100)  # each user is 0.25 off the arm's mean
    want = math.hypot(of_a_mean, 0.75 * of_a_mean) / 1.2
    assert found.estimate.standard_error == pytest.approx(want, rel=0.01)


def test_users_who_always_engaged_more_do_not_pass_for_an_effect() -> None:
    """The new arm happens to have the keener users, who do exactly what they did before."""
    rng = np.random.default_rng(0)
    before = np.concatenate([rng.normal(1.2, 0.2, 200), rng.normal(1.0, 0.2, 200)])
    found = effect(
        UserDays(
            day=np.zeros(400, dtype=np.int64),
            user=np.arange(400),
            is_new=np.repeat([True, False], 200),
            requests=np.full(400, 3.0),
            engaged=3.0 * before,
            before=before,
        )
    )
    assert isinstance(found, Effect)
    assert found.value == pytest.approx(0.0, abs=1e-9)


def test_what_users_did_before_makes_the_estimate_sharper() -> None:
    found = drawn(1, harmless, users=4000, requests_per_day=4000, days=7)
    sharp, blunt = effect(found), effect(replace(found, before=np.full(len(found.day), np.nan)))
    assert isinstance(sharp, Effect)
    assert isinstance(blunt, Effect)
    assert sharp.estimate.standard_error < 0.95 * blunt.estimate.standard_error


def test_days_of_one_user_are_not_independent() -> None:
    one = balanced(0.9, 1.2)
    found = effect(one)
    twice = UserDays(*(np.concatenate([column, column]) for column in vars(one).values()))
    again = effect(twice)
    assert isinstance(found, Effect)
    assert isinstance(again, Effect)
    assert again.estimate.standard_error == pytest.approx(found.estimate.standard_error)


# --- the verdict ------------------------------------------------------------------------------------------------------


def test_before_the_first_day_it_is_running_and_says_so() -> None:
    found = judge(until(drawn(0, harmless), 0), 0, RULES, is_over=False)
    assert found.verdict.phase is Phase.RUNNING
    assert "day 0 of 21" in found.verdict.explain()


def test_a_horizon_without_traffic_is_inconclusive_not_a_pass() -> None:
    found = judge(until(drawn(0, harmless), 0), 0, RULES, is_over=True)
    assert found.verdict.phase is Phase.INCONCLUSIVE
    assert "0 users < 50" in found.verdict.explain()


def test_harmlessness_that_is_not_proven_by_the_horizon_is_inconclusive() -> None:
    found = judge(drawn(2, harmless), 21, RULES, is_over=True)
    assert found.verdict.phase is Phase.INCONCLUSIVE


def test_enough_evidence_of_no_harm_passes_only_when_the_horizon_is_over() -> None:
    found, rules = drawn(3, harmless, users=6000, requests_per_day=12_000), RULES.model_copy(update={"max_drop": 0.1})
    assert judge(until(found, 20), 20, rules, is_over=False).verdict.phase is Phase.RUNNING
    assert judge(found, 21, rules, is_over=True).verdict.phase is Phase.SUCCESSFUL


def test_counts_that_are_not_finite_are_an_error() -> None:
    found = balanced(0.9, 1.2)
    broken = replace(found, engaged=np.full(200, np.nan))
    assert judge(broken, 1, RULES, is_over=False).verdict.phase is Phase.ERROR


def test_harm_names_the_days_the_means_and_the_bounds() -> None:
    found = judge(drawn(4, tiring, users=4000, requests_per_day=4000), 21, RULES, is_over=True)
    assert found.verdict.phase is Phase.FAILED
    assert "since period 3 (days 15 to 21)" in found.verdict.explain()
    last = found.signals[-1]
    assert last.upper is not None
    assert last.upper < 0.0
    assert f"{last.estimate:+.1%}" in last.message


def test_the_trend_of_growing_harm_is_down_and_of_steady_harm_is_not() -> None:
    down = judge(drawn(5, tiring, users=4000, requests_per_day=4000), 21, RULES, is_over=True).trend
    steady = judge(drawn(5, lambda e: 0.8 * harmless(e), users=4000, requests_per_day=4000), 21, RULES, is_over=True).trend
    assert down is not None
    assert steady is not None
    assert down.upper is not None
    assert down.upper < 0.0
    assert steady.lower is not None
    assert steady.upper is not None
    assert steady.lower < 0.0 < steady.upper


# --- chance -----------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_harmless_production_is_rarely_taken_back_however_often_one_looks() -> None:
    seeds, rules = 500, RULES.model_copy(update={"max_drop": 0.15})  # bounds are sharpest at the error that so few users leave
    wrong = sum(bool(convicted(drawn(seed, harmless, users=400, requests_per_day=300), rules)) for seed in range(seeds))
    assert wrong / seeds <= at_most(rules.alpha, seeds)


@pytest.mark.slow
def test_harm_that_comes_late_is_found_by_the_period_in_which_it_comes_and_not_by_the_average_of_all_days() -> None:
    """With a long good start the average of all days, at all of alpha and not a third of it, is later, or never sees it."""
    seeds = 20

    def late(exposed: np.ndarray) -> np.ndarray:
        return np.where(exposed < 6, 1.15, 0.7)

    average = RULES.model_copy(update={"period_days": RULES.horizon_days})
    by_period, by_average = [], []
    for seed in range(seeds):
        found = drawn(seed, late, users=3000, requests_per_day=4500)
        by_period.append(min(convicted(found, RULES).values(), default=99))
        by_average.append(min(convicted(found, average).values(), default=99))
    assert sum(day <= 21 for day in by_period) == seeds
    assert np.median(by_period) <= 14
    assert all(average > period for average, period in zip(by_average, by_period, strict=True))
