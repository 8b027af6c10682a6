"""How often the watch takes a harmless production back, and how soon a harmful one, with a look a day.

    python -m bench.delayed_harm [--seeds 500] [--harm-seeds 100]

Drawn users who differ in taste and activity (no server, no log): 4,000 of them, 4,000 requests a day, a tenth held out, 21 days
in periods of a week. A look a day is the judgement of `tidewheel.rollout.holdout.judge`. Harmless: both arms alike; beside it a
z-test of the same adjusted average at the same level and looks. Harmful: the day of the first look that proves it; beside it
the average of all days at the whole level, the same bounds without periods.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from statistics import NormalDist, median

import numpy as np

from tidewheel.contracts.experiment import HoldoutConfig
from tidewheel.contracts.verdict import Phase
from tidewheel.rollout.holdout import Effect, UserDays, effect, judge

MEAN = 0.9  # engagements a request
RULES = HoldoutConfig(share=0.1, horizon_days=21, period_days=7, max_drop=0.05, alpha=0.05)
AVERAGE = RULES.model_copy(update={"period_days": RULES.horizon_days})
NEVER = RULES.horizon_days + 1

Factor = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Harm:
    """`factor`: how many times as often users engage, by the days on which the new bundle served them before."""

    name: str
    factor: Factor


def alike(exposed: np.ndarray) -> np.ndarray:
    return np.ones(len(exposed))


def at_once(exposed: np.ndarray, left: float) -> np.ndarray:
    return np.full(len(exposed), left)


def tiring(exposed: np.ndarray) -> np.ndarray:
    """The world's fault `delayed_harm` with a lift of 0.2, a loss of 0.4 and 8 days."""
    return 1.2 - 0.6 * -np.expm1(-exposed / 8.0)


def late(exposed: np.ndarray) -> np.ndarray:
    return np.where(exposed < 6, 1.15, 0.7)


HARMS = (
    Harm("5% down from the first day", partial(at_once, left=0.95)),
    Harm("15% down from the first day", partial(at_once, left=0.85)),
    Harm("tiring: 20% up at first, 40% down in the end", tiring),
    Harm("late: 15% up for a user's first six days, 30% down after", late),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=500)
    parser.add_argument("--harm-seeds", type=int, default=100)
    options = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    with ProcessPoolExecutor() as pool:
        ends = list(pool.map(harmless, range(options.seeds), chunksize=5))
        ours, naive = (sum(found) / options.seeds for found in zip(*ends, strict=True))
        print(f"harmless, {options.seeds:,} horizons, a look a day: taken back {ours:.1%}, z-test of the average {naive:.1%}")
        for harm in HARMS:
            found = list(pool.map(partial(caught, harm), range(options.harm_seeds), chunksize=2))
            for what, days in zip(("by period", "average of all days"), zip(*found, strict=True), strict=True):
                share = sum(day < NEVER for day in days) / len(days)
                print(f"{harm.name}, {what}: caught {share:.0%}, median day {median(days):g}, latest {max(days)}")


def drawn(
    seed: int, factor: Factor, *, users: int = 4000, requests_per_day: int = 4000, days: int = 21, share: float = RULES.share
) -> UserDays:
    """What users did on each day; those of the new bundle engage `factor` times as often."""
    rng = np.random.default_rng(seed)
    activity = rng.lognormal(0.0, 0.7, users)
    activity *= requests_per_day / activity.sum()
    taste = MEAN * np.exp(rng.normal(0.0, 0.4, users) - 0.08)
    is_new = rng.random(users) >= share
    past = rng.poisson(activity * 14)
    before = np.where(past > 0, rng.poisson(taste * past) / np.maximum(past, 1), np.nan)
    exposed, rows = np.zeros(users), []
    for day in range(days):
        requests = rng.poisson(activity)
        engaged = rng.poisson(taste * requests * np.where(is_new, factor(exposed), 1.0))
        came = np.flatnonzero(requests)
        exposed[came] += 1
        rows.append((np.full(len(came), day), came, is_new[came], requests[came].astype(float), engaged[came], before[came]))
    day, user, new, requests, engaged, known = map(np.concatenate, zip(*rows, strict=True))
    return UserDays(day, user, new, requests, engaged.astype(float), known)


def first_conviction(found: UserDays, rules: HoldoutConfig) -> int:
    """The day of the first look that proves harm; the day after the horizon where none does."""
    for days in range(1, rules.horizon_days + 1):
        seen = judge(found.where(found.day < days), days, rules, is_over=days == rules.horizon_days)
        if seen.verdict.phase is Phase.FAILED:
            return days
    return NEVER


def harmless(seed: int) -> tuple[bool, bool]:
    """Whether any look at two equal arms takes back, and whether a z-test of the average would at any of them."""
    found = drawn(seed, alike)
    naive = False
    for days in range(1, RULES.horizon_days + 1):
        seen = effect(found.where(found.day < days))
        if isinstance(seen, Effect):
            estimate = seen.estimate
            naive |= estimate.value / estimate.standard_error < NormalDist().inv_cdf(RULES.alpha)
    return first_conviction(found, RULES) < NEVER, naive


def caught(harm: Harm, seed: int) -> tuple[int, int]:
    """The day on which harm is proven by period, and by the average of all days."""
    found = drawn(seed, harm.factor)
    return first_conviction(found, RULES), first_conviction(found, AVERAGE)


if __name__ == "__main__":
    main()
