"""How many requests a candidate can reach before its canary must have ended. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence

from tidewheel.contracts.recipe import DeployConfig
from tidewheel.contracts.rollout import PlannedStep, RolloutPlan
from tidewheel.rollout.analysis import planned


def worst_case(
    recipe: str,
    config: DeployConfig,
    labels: Sequence[str],
    is_closed_loop: bool,
    requests_per_second: float | None = None,
) -> RolloutPlan:
    """The plan of a canary against production, step by step, if no signal decides before `max_requests`.

    Users are assigned by hash, so a step of share s brings the candidate s of all requests. It is looked at after every batch:
    the one in which `max_requests` is reached comes on top.

    Args:
        labels: gated ones, whose log-loss is judged where the loop is not closed.
        requests_per_second: of the whole traffic; None where it is not known.
    """
    steps: list[PlannedStep] = []
    reached = passed = 0
    for number, step in enumerate(config.steps, start=1):
        mine = step.max_requests + config.batch_requests
        everyone = math.ceil(mine / step.share)
        reached, passed = reached + mine, passed + everyone
        steps.append(
            PlannedStep(
                number=number,
                share=step.share,
                min_requests=step.min_requests,
                min_events=step.min_events,
                min_seconds=step.min_seconds,
                max_seconds=step.max_seconds,
                candidate_requests=mine,
                requests=everyone,
                exposure=reached / passed,
                seconds=None if requests_per_second is None else passed / requests_per_second,
            )
        )
    return RolloutPlan(
        recipe=recipe,
        alpha=config.alpha,
        signals=planned(config, sorted(labels), is_closed_loop, has_control=True),
        steps=tuple(steps),
        first_look=config.batch_requests,
        candidate_requests=reached,
        requests=passed,
        exposure=reached / passed,
    )
