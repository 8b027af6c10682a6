"""Known truths in, judgements out: users with a taste of their own, bundles that are equal, worse or broken."""

from __future__ import annotations

import math

import numpy as np
import pytest

from tidewheel.contracts.recipe import CanaryStep, DeployConfig
from tidewheel.contracts.rollout import ArmBatch, Signal
from tidewheel.contracts.verdict import Phase
from tidewheel.rollout.analysis import assess
from tidewheel.rollout.evidence import Evidence

CONFIG = DeployConfig(steps=(CanaryStep(share=0.25, min_requests=400, max_requests=4000),))


def an_arm(rng: np.random.Generator, count: int, effect: float = 1.0, overconfidence: float = 1.0, seconds: float = 0.002):
    """`count` requests of 8 shown items by up to 500 users who click differently; `effect` multiplies the click rate.

    Series are arrays here, which nothing validates: a test may spoil them.
    """
    users = rng.integers(0, 500, count) + int(rng.integers(1, 10**6)) * 1000
    taste = np.exp(np.random.default_rng(int(users[0] // 1000)).normal(0.0, 0.4, 500))[users % 1000]
    rate = np.clip(0.1 * taste, 0.0, 0.6)
    clicks = rng.binomial(8, np.clip(rate * effect, 0.0, 1.0)).astype(float)
    return ArmBatch.model_construct(
        requests=count,
        errors=0,
        latencies=rng.lognormal(math.log(seconds), 0.3, count),
        users=users,
        engagement=clicks,
        predicted=8 * rate * effect * overconfidence,
        actual=clicks,
        impressions=np.full(count, 8.0),
        scored=rate * effect * overconfidence,
        expected=8 * rate,
    )


SERIES = ("latencies", "users", "engagement", "predicted", "actual", "impressions", "scored", "expected")


def replace(arm: ArmBatch, **series) -> ArmBatch:
    return arm.model_copy(update=series)


def between(arm: ArmBatch, first: int, last: int) -> ArmBatch:
    return replace(arm, requests=last - first, **{name: getattr(arm, name)[first:last] for name in SERIES})


def evidence_of(candidate: ArmBatch, control: ArmBatch | None, is_closed_loop: bool = True) -> Evidence:
    evidence = Evidence(control is not None, is_closed_loop)
    evidence.add(candidate, control)
    return evidence


def closed_loop(candidate: ArmBatch, control: ArmBatch | None) -> dict[str, Signal]:
    return {signal.name: signal for signal in assess(evidence_of(candidate, control), CONFIG)}


def end_of(name: str, effect: float, seed: int, count: int = 3000, look: int = 100) -> Phase:
    """How one signal first decides when looked at after every `look` requests."""
    rng = np.random.default_rng(seed)
    candidate, control = an_arm(rng, count, effect), an_arm(rng, count)
    evidence = Evidence(has_control=True, is_closed_loop=True)
    for seen in range(look, count + 1, look):
        evidence.add(between(candidate, seen - look, seen), between(control, seen - look, seen))
        phase = next(signal.phase for signal in assess(evidence, CONFIG) if signal.name == name)
        if phase is not Phase.RUNNING:
            return phase
    return Phase.RUNNING


def share_of(phases: list[Phase], phase: Phase) -> float:
    return sum(found is phase for found in phases) / len(phases)


def test_equal_bundles_are_hardly_ever_called_harmful_and_mostly_pass() -> None:
    ends = [end_of("engagement", 1.0, seed) for seed in range(200)]
    alpha = CONFIG.alpha / 6
    assert share_of(ends, Phase.FAILED) <= alpha + 4 * math.sqrt(alpha / 200)
    assert share_of(ends, Phase.SUCCESSFUL) > 0.7


def test_a_bundle_worse_by_just_the_margin_passes_no_oftener_than_alpha() -> None:
    ends = [end_of("engagement", 0.9, 1000 + seed) for seed in range(200)]
    assert share_of(ends, Phase.SUCCESSFUL) <= CONFIG.alpha + 4 * math.sqrt(CONFIG.alpha / 200)


def test_a_bundle_that_loses_a_quarter_of_engagement_is_caught() -> None:
    ends = [end_of("engagement", 0.75, 2000 + seed) for seed in range(60)]
    assert share_of(ends, Phase.FAILED) > 0.9
    assert Phase.SUCCESSFUL not in ends


def test_knowing_what_a_request_was_worth_narrows_the_interval() -> None:
    rng = np.random.default_rng(5)
    candidate, control = an_arm(rng, 2000), an_arm(rng, 2000)
    blind = [replace(arm, expected=np.zeros(2000)) for arm in (candidate, control)]
    with_it, without = closed_loop(candidate, control)["engagement"], closed_loop(*blind)["engagement"]
    assert with_it.upper - with_it.lower < 0.8 * (without.upper - without.lower)


def test_a_candidate_without_traffic_is_undecided_in_everything() -> None:
    rng = np.random.default_rng(0)
    nothing = between(an_arm(rng, 10), 0, 0)
    assert {signal.phase for signal in closed_loop(nothing, nothing).values()} == {Phase.RUNNING}
    assert {signal.phase for signal in closed_loop(nothing, an_arm(rng, 3000)).values()} == {Phase.RUNNING}
    assert {signal.phase for signal in closed_loop(nothing, None).values()} == {Phase.RUNNING}


def test_an_arm_of_few_users_is_not_judged() -> None:
    rng = np.random.default_rng(0)
    arm = an_arm(rng, 3000)
    lonely = replace(arm, users=arm.users % 49)
    found = closed_loop(lonely, an_arm(rng, 3000))
    assert found["engagement"].phase is found["calibration"].phase is Phase.RUNNING


def test_a_control_that_sees_no_clicks_proves_nothing() -> None:
    rng = np.random.default_rng(0)
    control = an_arm(rng, 2000)
    silent = replace(control, engagement=np.zeros(2000), actual=np.zeros(2000))
    assert closed_loop(an_arm(rng, 2000), silent)["engagement"].phase is Phase.RUNNING


@pytest.mark.parametrize("series", ["engagement", "predicted", "actual", "expected", "latencies", "impressions", "scored"])
def test_a_number_that_is_none_is_an_error_and_never_a_pass(series: str) -> None:
    rng = np.random.default_rng(0)
    arm, control = an_arm(rng, 2000), an_arm(rng, 2000)
    values = getattr(arm, series).copy()
    values[7] = math.nan
    (signal,) = assess(evidence_of(replace(arm, **{series: values}), control), CONFIG)
    assert signal.phase is Phase.ERROR
    assert "not finite in 1 of" in signal.message


def test_a_missing_series_is_an_error() -> None:
    rng = np.random.default_rng(0)
    arm, control = an_arm(rng, 2000), an_arm(rng, 2000)
    (signal,) = assess(evidence_of(replace(arm, predicted=arm.predicted[:1999]), control), CONFIG)
    assert signal.phase is Phase.ERROR


@pytest.mark.parametrize(("errors", "want"), [(0, Phase.SUCCESSFUL), (5, Phase.RUNNING), (60, Phase.FAILED)])
def test_the_error_rate_is_judged_against_its_limit(errors: int, want: Phase) -> None:
    arm = replace(an_arm(np.random.default_rng(0), 400), errors=errors)
    assert closed_loop(arm, None)["errors"].phase is want


@pytest.mark.parametrize(("seconds", "want"), [(0.002, Phase.SUCCESSFUL), (0.006, Phase.RUNNING), (0.012, Phase.FAILED)])
def test_the_latency_is_judged_against_the_control_arm(seconds: float, want: Phase) -> None:
    rng = np.random.default_rng(1)
    assert closed_loop(an_arm(rng, 600, seconds=seconds), an_arm(rng, 600))["latency"].phase is want


@pytest.mark.parametrize(
    ("candidate", "control", "want"),
    [
        (1.0, 1.0, Phase.SUCCESSFUL),
        (1.0, 1.5, Phase.SUCCESSFUL),  # right where production is wrong
        (1.5, 1.5, Phase.SUCCESSFUL),  # the world moved: neither is to blame
        (1.6, 1.0, Phase.FAILED),
        (0.6, 1.0, Phase.FAILED),
        (1.2, 1.0, Phase.RUNNING),  # just at the limit
    ],
)
def test_calibration_is_measured_against_one_or_else_against_control(candidate: float, control: float, want: Phase) -> None:
    rng = np.random.default_rng(2)
    arms = an_arm(rng, 3000, overconfidence=candidate), an_arm(rng, 3000, overconfidence=control)
    assert closed_loop(*arms)["calibration"].phase is want


def test_the_first_release_is_judged_on_errors_and_calibration_alone() -> None:
    arm = an_arm(np.random.default_rng(3), 2000)
    found = closed_loop(arm, None)
    assert set(found) == {"errors", "calibration"}
    assert {signal.phase for signal in found.values()} == {Phase.SUCCESSFUL}
    assert closed_loop(an_arm(np.random.default_rng(3), 2000, overconfidence=1.7), None)["calibration"].phase is Phase.FAILED


def replayed(rise: float) -> dict[str, Signal]:
    """Both arms scored the same 2,000 requests; the candidate loses `rise` nats an impression, give or take 0.1."""
    rng = np.random.default_rng(4)
    control = an_arm(rng, 2000)
    losses = rng.gamma(2.0, 1.0, 2000)
    candidate = replace(control, losses={"click": losses + 8 * rng.normal(rise, 0.1, 2000)})
    evidence = evidence_of(candidate, replace(control, losses={"click": losses}), is_closed_loop=False)
    return {signal.name: signal for signal in assess(evidence, CONFIG)}


@pytest.mark.parametrize(("rise", "want"), [(0.0, Phase.SUCCESSFUL), (0.05, Phase.FAILED), (0.2, Phase.FAILED)])
def test_the_log_loss_of_replayed_requests_is_compared_pair_by_pair(rise: float, want: Phase) -> None:
    found = replayed(rise)
    assert "engagement" not in found  # nobody saw the new ranking
    assert found["logloss click"].phase is want
    assert found["logloss click"].estimate == pytest.approx(rise, abs=0.01)


def test_replay_refuses_arms_that_hold_different_requests_or_no_loss() -> None:
    rng = np.random.default_rng(4)
    arm = replace(an_arm(rng, 200), losses={"click": np.ones(200)})
    other = replace(an_arm(rng, 200), losses={"click": np.ones(200)})
    for candidate, control in ((arm, other), (replace(arm, losses={}), replace(arm, losses={}))):
        (signal,) = assess(evidence_of(candidate, control, is_closed_loop=False), CONFIG)
        assert signal.phase is Phase.ERROR


def test_two_bundles_that_answer_alike_pass_a_replay() -> None:
    arm = replace(an_arm(np.random.default_rng(6), 2000), losses={"click": np.ones(2000)})
    assert {signal.phase for signal in assess(evidence_of(arm, arm, is_closed_loop=False), CONFIG)} == {Phase.SUCCESSFUL}


@pytest.mark.parametrize(
    ("shift", "want"), [(1.0, Phase.SUCCESSFUL), (1.3, Phase.RUNNING), (2.0, Phase.FAILED), (0.4, Phase.FAILED)]
)
def test_scores_far_from_controls_are_harm_before_any_user_reacts(shift: float, want: Phase) -> None:
    rng = np.random.default_rng(7)
    candidate = an_arm(rng, 600)
    assert closed_loop(replace(candidate, scored=candidate.scored * shift), an_arm(rng, 600))["scores"].phase is want


@pytest.mark.parametrize(("share", "want"), [(0.0, Phase.SUCCESSFUL), (0.05, Phase.RUNNING), (0.5, Phase.FAILED)])
def test_a_feature_that_the_candidate_does_not_get_is_named(share: float, want: Phase) -> None:
    rng = np.random.default_rng(8)
    candidate, control = an_arm(rng, 4000), an_arm(rng, 4000)
    lost = (rng.random(4000) < share).astype(float)
    both = (rng.random(4000) < 0.3).astype(float)  # as often missing in control: nobody's fault
    candidate = replace(candidate, missing={"age": lost, "city": both})
    found = closed_loop(candidate, replace(control, missing={"city": rng.permutation(both)}))["coverage"]
    assert found.phase is want
    if share:
        assert "coverage of age" in found.message


def test_nothing_missing_in_few_requests_is_no_proof_of_coverage() -> None:
    rng = np.random.default_rng(9)
    assert closed_loop(an_arm(rng, 60), an_arm(rng, 60))["coverage"].phase is Phase.RUNNING


def test_a_goal_has_to_get_better_and_a_guard_only_no_worse() -> None:
    rng = np.random.default_rng(10)
    config = CONFIG.model_copy(update={"goals": ("engagement",)})

    def phase(effect: float, config: DeployConfig) -> Phase:
        evidence = evidence_of(an_arm(rng, 4000, effect), an_arm(rng, 4000))
        return next(signal.phase for signal in assess(evidence, config) if signal.name == "engagement")

    assert phase(1.0, CONFIG) is Phase.SUCCESSFUL
    assert phase(1.0, config) is Phase.RUNNING
    assert phase(1.3, config) is Phase.SUCCESSFUL


def test_a_calibration_that_is_off_as_production_is_and_a_little_more_is_not_convicted_on_its_limit_alone() -> None:
    rng = np.random.default_rng(11)
    arms = an_arm(rng, 1500, overconfidence=1.5), an_arm(rng, 1500, overconfidence=1.47)
    assert closed_loop(*arms)["calibration"].phase is not Phase.FAILED
