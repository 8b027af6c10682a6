"""The worst case of a canary's plan, by hand."""

from __future__ import annotations

import pytest

from tests.e2e.command import QUICKSTART, settings, tidewheel
from tidewheel.contracts.recipe import CanaryStep, DeployConfig
from tidewheel.rollout.exposure import worst_case

CONFIG = DeployConfig(
    steps=(
        CanaryStep(share=0.1, min_requests=400, max_requests=900),
        CanaryStep(share=0.5, min_requests=400, max_requests=1900),
    ),
    batch_requests=100,
)


def test_every_step_ends_with_the_batch_in_which_its_requests_are_reached() -> None:
    found = worst_case("shop", CONFIG, [], True)
    assert [step.candidate_requests for step in found.steps] == [1000, 2000]
    assert [step.requests for step in found.steps] == [10_000, 4_000]
    assert [step.exposure for step in found.steps] == [pytest.approx(0.1), pytest.approx(3000 / 14_000)]
    assert (found.candidate_requests, found.requests, found.first_look) == (3000, 14_000, 100)
    assert found.exposure == pytest.approx(3 / 14)


def test_the_traffic_says_by_when_each_step_has_ended() -> None:
    assert [step.seconds for step in worst_case("shop", CONFIG, [], True, 100.0).steps] == [
        pytest.approx(100.0),
        pytest.approx(140.0),
    ]
    assert [step.seconds for step in worst_case("shop", CONFIG, [], True).steps] == [None, None]


def test_half_a_request_is_a_whole_one() -> None:
    steps = (CanaryStep(share=0.3, min_requests=1, max_requests=1),)
    assert worst_case("shop", CONFIG.model_copy(update={"steps": steps, "batch_requests": 1}), [], True).requests == 7


def test_the_verb_shows_the_plan_of_a_recipe() -> None:
    ended = tidewheel("rollout", "plan", "--recipe", QUICKSTART, "--requests-per-second", "50", "--json")
    assert ended.code == 0, ended.err
    assert [step["share"] for step in ended.document["steps"]] == [0.1, 0.25, 0.5]
    assert ended.document["candidate_requests"] == 3100 + 3100 + 4100
    shown = tidewheel("rollout", "plan", "--recipe", QUICKSTART)
    assert "answers 10,300 of 51,600 requests, 20.0%" in shown.out


@pytest.mark.parametrize("rate", ["0", "-1", "inf", "nan"])
def test_a_traffic_that_is_none_is_refused(rate: str) -> None:
    ended = tidewheel("rollout", "plan", "--recipe", QUICKSTART, "--requests-per-second", rate)
    assert ended.code == 2
    assert "--requests-per-second" in ended.last_line


def test_another_plan_may_be_tried_out() -> None:
    ended = tidewheel(
        "rollout", "plan", "--recipe", QUICKSTART, "--json",
        *settings("deploy.steps=[{share: 0.5, min_requests: 100, max_requests: 800}]"),
    )  # fmt: skip
    assert ended.document["exposure"] == pytest.approx(0.5)
