"""What is folded batch by batch against a plain reference, which keeps every number and computes all anew at each look."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from types import SimpleNamespace
from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tidewheel.contracts.recipe import CanaryStep, DeployConfig
from tidewheel.contracts.rollout import ArmBatch, Signal
from tidewheel.contracts.verdict import Phase
from tidewheel.rollout import signals
from tidewheel.rollout.analysis import assess
from tidewheel.rollout.evidence import Evidence
from tidewheel.rollout.sequence import Estimate, clustered_error, log_evidence_above, log_evidence_below

CONFIG = DeployConfig(steps=(CanaryStep(share=0.25, min_requests=100, max_requests=4000),), max_score_shift=0.1)


class PlainArm:
    """Every batch of an arm, as arrays."""

    def __init__(self, before: Sequence[ArmBatch], step: Sequence[ArmBatch]) -> None:
        self.batches = [*before, *step]
        self.requests, self.errors = sum(batch.requests for batch in step), sum(batch.errors for batch in step)
        self.latencies = np.sort([seconds for batch in step for seconds in batch.latencies])
        self.users = np.array([user for batch in self.batches for user in batch.users], dtype=np.int64)
        self.labels = {label for batch in self.batches for label in batch.losses}
        self.features = {feature for batch in self.batches for feature in batch.missing}
        self.outcomes = SimpleNamespace(
            num_users=len(set(self.users)), mean=lambda name: self.of(name).mean(), total=lambda name: self.of(name).sum()
        )

    def of(self, name: str) -> np.ndarray:
        kind, _, key = name.partition(" ")
        if kind in ("logloss", "coverage"):
            named = [batch.losses if kind == "logloss" else batch.missing for batch in self.batches]
            values = [
                each.get(key.removeprefix("of "), [0.0] * len(batch.users))
                for each, batch in zip(named, self.batches, strict=True)
            ]
        else:
            values = [getattr(batch, name) for batch in self.batches]
        return np.concatenate([np.empty(0), *values])

    @property
    def calibration_influence(self) -> np.ndarray:
        return self.of("predicted") / self.of("predicted").sum() - self.of("actual") / self.of("actual").sum()


def plain_ratio(numerator: np.ndarray, denominator: np.ndarray, users: np.ndarray) -> Estimate:
    ratio = numerator.sum() / denominator.sum()
    return Estimate(ratio, clustered_error((numerator - ratio * denominator) / denominator.sum(), users))


def plain_difference(evidence: SimpleNamespace, series: str) -> Estimate | None:
    arms = (evidence.candidate, evidence.control)
    (mine, other), expected = [arm.of(series) for arm in arms], [arm.of("expected") for arm in arms]
    if not (len(mine) and len(other)) or other.sum() <= 0.0:
        return None
    if not evidence.is_closed_loop:
        ratio = plain_ratio(mine, other, arms[0].users)
        return Estimate(ratio.value - 1.0, ratio.standard_error)
    centred = [(y - y.mean(), x - x.mean()) for y, x in zip((mine, other), expected, strict=True)]
    spread = sum((x * x).sum() for _, x in centred)
    slope = sum((y * x).sum() for y, x in centred) / spread if spread > 0 else 0.0
    overall = np.concatenate(expected).mean()
    a, b = (
        Estimate(raw.mean() - slope * (x.mean() - overall), clustered_error((y - slope * z) / len(y), arm.users))
        for raw, x, (y, z), arm in zip((mine, other), expected, centred, arms, strict=True)
    )
    if b.value <= 0.0:
        return None
    ratio = a.value / b.value
    return Estimate(ratio - 1.0, math.hypot(a.standard_error, ratio * b.standard_error) / b.value)


def plain_calibration(arm: PlainArm) -> Estimate:
    value = math.log(arm.of("predicted").sum() / arm.of("actual").sum())
    return Estimate(value, clustered_error(arm.calibration_influence, arm.users))


def plain_calibration_against_control(evidence: SimpleNamespace) -> Estimate:
    mine, other = plain_calibration(evidence.candidate), plain_calibration(evidence.control)
    if evidence.is_closed_loop:
        return Estimate(mine.value - other.value, math.hypot(mine.standard_error, other.standard_error))
    influence = evidence.candidate.calibration_influence - evidence.control.calibration_influence
    return Estimate(mine.value - other.value, max(clustered_error(influence, evidence.candidate.users), 1e-12))


def plain_rise_of_missing(candidate: PlainArm, control: PlainArm, feature: str) -> Estimate:
    shares, errors = [], []
    for arm in (candidate, control):
        values, count = arm.of(f"coverage of {feature}"), len(arm.users)
        shares.append(values.mean())
        succession = math.sqrt(1 / (count + 2) * (1 - 1 / (count + 2)) / count)
        errors.append(max(clustered_error((values - values.mean()) / count, arm.users), succession))
    return Estimate(shares[0] - shares[1], math.hypot(*errors))


def plain_rate_bounds(events: int, trials: int, alpha: float) -> tuple[float, float]:
    def halved(outside: float, evidence) -> float:
        inside = events / trials
        while abs(outside - inside) > 1e-13:
            middle = (inside + outside) / 2
            inside, outside = (inside, middle) if evidence(events, trials, middle) >= -math.log(alpha) else (middle, outside)
        return outside

    lower = halved(0.0, log_evidence_above) if events else 0.0
    return lower, halved(1.0, log_evidence_below) if events < trials else 1.0


def plainly(evidence: SimpleNamespace) -> tuple[Signal, ...]:
    """`assess` with all estimates made by the reference."""
    pairs = zip(evidence.control.users, evidence.candidate.users, strict=True) if not evidence.is_closed_loop else ()
    assert all(mine == other for mine, other in pairs)
    with mock.patch.multiple(
        signals,
        relative_difference=plain_difference,
        log_calibration=plain_calibration,
        calibration_against_control=plain_calibration_against_control,
        rise_of_missing=plain_rise_of_missing,
        rate_bounds=plain_rate_bounds,
    ):
        return assess(evidence, CONFIG)


def plain_evidence(steps: list[list[tuple[ArmBatch, ArmBatch]]], has_control: bool, is_closed_loop: bool) -> SimpleNamespace:
    """The last of `steps` is the one that is looked at."""

    def arm(at: int) -> PlainArm:
        return PlainArm([both[at] for step in steps[:-1] for both in step], [both[at] for both in steps[-1]])

    candidate, control = arm(0), arm(1) if has_control else None

    def ratio(rise: str, denominator: str) -> Estimate:
        name = rise.removesuffix(" rise")
        return plain_ratio(candidate.of(name) - control.of(name), candidate.of(denominator), candidate.users)

    return SimpleNamespace(
        candidate=candidate, control=control, is_closed_loop=is_closed_loop, pairs=SimpleNamespace(ratio=ratio), fault=""
    )


def a_batch(rng: np.random.Generator, count: int, first_user: int, effect: float, labels: Sequence[str]) -> ArmBatch:
    users, worth = rng.integers(first_user, first_user + 90, count), rng.uniform(0.5, 1.5, count)
    clicks, errors = rng.binomial(8, 0.2 * worth * effect).astype(float), int(rng.random() < 0.1)
    missing = {name: rng.binomial(1, 0.2, count) * 0.5 for name in ("age", "city", "plan") if rng.random() < 0.4}
    return ArmBatch(
        requests=count + errors,
        errors=errors,
        latencies=tuple(rng.lognormal(-6.0, 0.3, count)),
        users=tuple(users.tolist()),
        engagement=tuple(clicks),
        actual=tuple(clicks),
        predicted=tuple(1.6 * worth * rng.uniform(0.9, 1.1, count)),
        impressions=tuple(rng.uniform(1.0, 8.0, count)),
        scored=tuple(0.2 * worth * effect * rng.uniform(0.9, 1.1, count)),
        expected=tuple(1.6 * worth * rng.uniform(0.9, 1.1, count)),
        losses={label: tuple(rng.gamma(2.0, 1.0, count)) for label in labels},
        missing={name: tuple(values) for name, values in missing.items()},
    )


def rescored(rng: np.random.Generator, batch: ArmBatch) -> ArmBatch:
    """The same requests by another bundle."""
    scores = {
        name: tuple(np.array(getattr(batch, name)) * rng.uniform(0.9, 1.1, len(batch.users)))
        for name in ("predicted", "scored")
    }
    losses = {label: tuple(np.array(values) + rng.normal(0.02, 0.1, len(values))) for label, values in batch.losses.items()}
    return batch.model_copy(update={**scores, "losses": losses, "missing": {}})


def assert_alike(found: Sequence[Signal], want: Sequence[Signal]) -> None:
    for mine, other in zip(found, want, strict=True):
        assert (mine.name, mine.phase, mine.limit, mine.role) == (other.name, other.phase, other.limit, other.role)
        assert re.sub(r"[\d.]+", "#", mine.message) == re.sub(r"[\d.]+", "#", other.message)
        for number, want_number in ((getattr(mine, of), getattr(other, of)) for of in ("estimate", "lower", "upper")):
            assert number == (None if want_number is None else pytest.approx(want_number, rel=1e-9, abs=1e-9))


@settings(max_examples=30, deadline=None)
@given(
    st.integers(0, 10**6),
    st.sampled_from(["closed loop", "replay", "first release"]),
    st.lists(st.lists(st.integers(0, 150), min_size=1, max_size=4), min_size=1, max_size=3),
    st.sampled_from([1.0, 0.7]),
)
def test_every_look_judges_as_if_everything_had_been_computed_anew(
    seed: int, kind: str, sizes: list[list[int]], effect: float
) -> None:
    rng, is_closed_loop, has_control = np.random.default_rng(seed), kind != "replay", kind != "first release"
    labels = () if is_closed_loop else ("like", "click")
    evidence, steps = Evidence(has_control, is_closed_loop), []
    for counts in sizes:
        evidence.start_step()
        steps.append([])
        for count in counts:
            mine = a_batch(rng, count, 0, effect, labels)
            other = a_batch(rng, int(rng.integers(0, 150)), 1000, 1.0, ()) if is_closed_loop else rescored(rng, mine)
            steps[-1].append((mine, other))
            evidence.add(mine, other if has_control else None)
            assert_alike(assess(evidence, CONFIG), plainly(plain_evidence(steps, has_control, is_closed_loop)))


def test_scores_that_follow_what_was_expected_to_the_last_digit_are_no_lack_of_evidence() -> None:
    rng, evidence, steps = np.random.default_rng(1), Evidence(True, True), [[]]
    for _ in range(30):
        both = [a_batch(rng, 40, first_user, 1.0, ()) for first_user in (0, 1000)]
        both = [arm.model_copy(update={"scored": tuple(np.array(arm.expected) / 8)}) for arm in both]
        steps[0].append(tuple(both))
        evidence.add(*both)
    for found in (assess(evidence, CONFIG), plainly(plain_evidence(steps, True, True))):
        (scores,) = (signal for signal in found if signal.name == "scores")
        assert scores.phase is Phase.SUCCESSFUL
        assert scores.upper == pytest.approx(0.0, abs=1e-6)


def test_a_step_counts_its_own_requests_and_outcomes() -> None:
    rng, evidence = np.random.default_rng(2), Evidence(False, True)
    first, second = a_batch(rng, 30, 0, 1.0, ()), a_batch(rng, 20, 0, 1.0, ())
    evidence.add(first, None)
    evidence.start_step()
    evidence.add(second, None)
    arm = evidence.candidate
    assert (arm.requests, arm.errors, arm.users) == (second.requests, second.errors, set(second.users))
    assert list(arm.latencies) == sorted(second.latencies)
    assert arm.step_total("engagement") == pytest.approx(sum(second.engagement))
    assert arm.outcomes.total("engagement") == pytest.approx(sum(first.engagement) + sum(second.engagement))


def test_evidence_that_cannot_be_judged_stays_so() -> None:
    rng, evidence = np.random.default_rng(3), Evidence(True, True)
    good = a_batch(rng, 100, 0, 1.0, ())
    evidence.add(good, a_batch(rng, 100, 1000, 1.0, ()))
    evidence.add(good.model_copy(update={"predicted": (math.nan, *good.predicted[1:])}), good)
    for _ in range(2):
        (signal,) = assess(evidence, CONFIG)
        assert (signal.phase, signal.message) == (Phase.ERROR, "candidate arm: predicted is not finite in 1 of 200 requests")
        evidence.add(good, good)


def test_a_replay_that_has_seen_nothing_yet_is_undecided_and_not_broken() -> None:
    evidence = Evidence(True, False)
    evidence.add(None, None)
    assert {signal.phase for signal in assess(evidence, CONFIG)} == {Phase.RUNNING}
    evidence.add(a_batch(np.random.default_rng(4), 10, 0, 1.0, ("click",)), None)
    (signal,) = assess(evidence, CONFIG)
    assert (signal.phase, signal.message) == (Phase.ERROR, "replay: the arms do not hold the same requests")
