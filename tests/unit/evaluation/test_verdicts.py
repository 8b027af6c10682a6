"""Verdicts on logs of a world whose truth is known: how often they are right. `python -m bench.verdicts` has more seeds."""

from __future__ import annotations

import pytest

from bench.verdicts import (
    CLAIM_ALONE,
    MARGIN,
    PRODUCTION,
    SAMPLED,
    TEMPTED_REQUESTS,
    TEMPTING,
    WITH_REPLAY,
    detectable_effects,
    promoted,
    stated_size,
    verdicts,
)
from bench.world_models import Logging, Model, Truth
from tidewheel.contracts.verdict import Phase

SEEDS = 100
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def world() -> Truth:
    return Truth(PRODUCTION)


def spread_of(share: float) -> float:
    """Three standard errors of a share that is seen in SEEDS logs."""
    return 3 * (share * (1 - share) / SEEDS) ** 0.5


def test_a_candidate_that_is_worse_by_the_margin_is_hardly_ever_promoted(world: Truth) -> None:
    candidate = world.worse_by(2, MARGIN)
    found = list(verdicts(world, candidate, CLAIM_ALONE, Logging(3000, SAMPLED), SEEDS))
    assert promoted(found) <= 0.025 + spread_of(0.025)


def test_as_many_rows_as_the_calculator_asks_for_promote_an_equal_candidate(world: Truth) -> None:
    candidate = world.worse_by(2, 0.0)
    requests, _ = stated_size(world, candidate)
    found = list(verdicts(world, candidate, CLAIM_ALONE, Logging(requests, SAMPLED), SEEDS))
    assert promoted(found) >= 0.9 - spread_of(0.9)
    predicted, measured = detectable_effects(found)
    assert abs(predicted / measured - 1) < 0.1 + 3 / (2 * SEEDS) ** 0.5  # a spread seen in so many logs is that uncertain


def test_as_many_rows_as_the_calculator_asks_for_fail_one_that_is_worse_by_twice_the_margin(world: Truth) -> None:
    candidate = world.worse_by(2, 2 * MARGIN)
    requests, _ = stated_size(world, candidate)
    found = list(verdicts(world, candidate, CLAIM_ALONE, Logging(requests, SAMPLED), SEEDS))
    assert sum(one.verdict.phase is Phase.FAILED for one in found) / SEEDS >= 0.9 - spread_of(0.9)


@pytest.mark.parametrize("is_whole", [True, False], ids=["whole requests", "sampled requests"])
def test_what_is_better_on_the_biased_log_and_worse_in_truth_is_blocked_by_replay_alone(world: Truth, is_whole: bool) -> None:
    assert world.auc(TEMPTING) > world.auc(PRODUCTION) + 0.005
    assert world.engagement(TEMPTING) < 0.85 * world.engagement(PRODUCTION)
    logging = Logging(TEMPTED_REQUESTS, SAMPLED, is_whole=is_whole)
    seeds = 20
    assert promoted(list(verdicts(world, TEMPTING, CLAIM_ALONE, logging, seeds))) >= 0.95
    assert promoted(list(verdicts(world, TEMPTING, WITH_REPLAY, logging, seeds))) <= 0.05
    better = Model(seed=3, size=0.2)
    assert promoted(list(verdicts(world, better, WITH_REPLAY, logging, seeds))) >= 0.8
