"""Replay on randomized requests: values that are known, and how often intervals hold them."""

from __future__ import annotations

import numpy as np
import pytest

from bench.verdicts import CLAIM_ALONE, PRODUCTION
from bench.world_models import Judge, Logging, Model, Truth
from tidewheel.contracts.comparison import ENGAGED_ABOVE, SNIPS
from tidewheel.evaluation.intervals import Users
from tidewheel.evaluation.randomized import estimators, logged, replay
from tidewheel.evaluation.sample import Sample

LISTS, SHOWN, TOP = 2000, 6, 2


class Lists:
    """Requests of six items in random places with a known chance of a click each, and a score that knows a part of it."""

    def __init__(self, seed: int, lists: int = LISTS) -> None:
        self.random = np.random.default_rng(seed)
        worth = self.random.normal(-2, 1, (lists, SHOWN)) + self.random.normal(0, 0.5, (lists, 1))
        self.chance = 1 / (1 + np.exp(-worth))
        self.scores = {
            "student": self._seen(worth, 0.5),
            "production": self._seen(worth, 1.0),
        }
        self.click = self.random.random((lists, SHOWN)) < self.chance
        self.users = np.repeat(self.random.integers(0, lists // 4, lists), SHOWN)

    def _seen(self, worth: np.ndarray, error: float) -> np.ndarray:
        return 1 / (1 + np.exp(-(worth + self.random.normal(0, error, worth.shape))))

    def of_picks(self, model: str) -> float:
        picks = np.argsort(-self.scores[model], axis=1)[:, :TOP]
        return float(np.take_along_axis(self.chance, picks, 1).mean())

    def engaged_above(self, model: str) -> float:
        """Share of the not engaged items of a request that score below an engaged one, in expectation."""
        won = held = 0.0
        for one in range(SHOWN):
            for other in range(SHOWN):
                pairs = self.chance[:, one] * (1 - self.chance[:, other]) * (one != other)
                won += float((pairs * (self.scores[model][:, one] > self.scores[model][:, other])).sum())
                held += float(pairs.sum())
        return won / held

    def replay(self, rate: float):
        is_kept = self.click | (self.random.random(self.click.shape) < rate)
        rows = np.flatnonzero(is_kept.ravel())
        weight = np.where(self.click, 1.0, 1 / rate).ravel()[rows]
        sample = Sample(
            users=Users.of(self.users[rows]),
            requests=np.repeat(np.arange(len(self.click)), SHOWN)[rows],
            weight=weight,
            labels={"click": self.click.ravel()[rows].astype(np.int8)},
            has_lists=rate == 1.0,
        )
        scores = {model: found.ravel()[rows] for model, found in self.scores.items()}
        return replay(scores, sample, "click", np.full(len(rows), 1 / 24), TOP, "production")


def test_of_whole_requests_it_is_the_mean_of_what_the_picks_earned():
    lists = Lists(0, 50)
    found = lists.replay(rate=1.0)
    picks = np.argsort(-lists.scores["student"], axis=1)[:, :TOP]
    earned = np.take_along_axis(lists.click, picks, 1).mean()
    assert found.judged_by == SNIPS
    for name in ("snips", "ips", "doubly_robust"):
        assert found.values["student"][name].value == pytest.approx(earned)
    assert found.support["student"].mean_weight == pytest.approx(1.0)
    assert found.support["student"].reached == pytest.approx(TOP / SHOWN)
    assert found.support["student"].effective_rows == pytest.approx(50 * TOP)
    assert (found.requests, found.rows) == (50, 300)


def test_unequal_propensities_make_up_for_what_was_shown_more_often():
    """Half of the items were shown three times as often in that place: a pick of them counts a third."""
    requests, labels = np.array([0, 0]), {"click": np.array([1, 0], dtype=np.int8)}
    sample = Sample(Users.of(np.zeros(2)), requests, np.ones(2), labels, has_lists=True)
    log = logged(np.array([0.9, 0.1]), sample, "click", np.array([0.3, 0.1]), 2)
    assert log.propensity == pytest.approx([0.75, 0.25])
    assert estimators(log, np.full(2, 0.5))["snips"].value == pytest.approx((1 / 0.75) / (1 / 0.75 + 1 / 0.25))


@pytest.mark.slow
@pytest.mark.parametrize("rate", [1.0, 0.1, 0.03], ids=["whole", "a tenth", "three percent"])
def test_intervals_of_both_models_and_of_their_difference_hold_the_truth_in_95_percent_of_logs(rate):
    """Where whole requests were logged: every estimator, all of the same value. Else the one that a sample allows."""
    seeds, held = 500, {}
    truths = [Lists(10_000 + seed, 4000) for seed in range(10)]
    of = Lists.of_picks if rate == 1.0 else Lists.engaged_above
    want = {model: float(np.mean([of(lists, model) for lists in truths])) for model in ("student", "production")}
    for seed in range(seeds):
        found = Lists(seed).replay(rate)
        shown = {f"student {name}": (each, want["student"]) for name, each in found.values["student"].items()}
        gap = want["student"] - want["production"]
        shown |= {f"difference {name}": (each, gap) for name, each in found.differences.items()}
        for name, (each, value) in shown.items():
            held[name] = held.get(name, 0) + (each.lower <= value <= each.upper)
    print(rate, {name: f"{count / seeds:.1%}" for name, count in held.items()})
    assert f"difference {SNIPS if rate == 1.0 else ENGAGED_ABOVE}" in held
    assert all(abs(count / seeds - 0.95) < 4 * (0.95 * 0.05 / seeds) ** 0.5 for count in held.values()), held


def test_on_the_world_the_picks_earn_what_its_truth_says():
    world = Truth(PRODUCTION)
    candidate = Model(seed=3, size=0.2)
    found = Judge(world, candidate, CLAIM_ALONE).judge(0, Logging(6000, 0.25, randomized_share=0.5))
    estimate = found.comparison.replay["click"].values["student"][SNIPS]
    assert estimate.lower < world.of_picks(candidate, CLAIM_ALONE.top) < estimate.upper
    assert (estimate.upper - estimate.lower) / estimate.value < 0.15


def test_without_production_there_is_no_difference_and_short_requests_are_picked_as_a_whole():
    sample = Sample(Users.of(np.arange(4)), np.arange(4), np.ones(4), {"click": np.array([1, 0, 1, 0])}, has_lists=True)
    found = replay({"student": np.full(4, 0.5)}, sample, "click", np.full(4, 0.1), TOP, None)
    assert found.differences == {}
    assert found.support["student"].reached == 1.0
