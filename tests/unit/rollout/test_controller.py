"""A controller that dies anywhere and starts again, and two controllers at once: the canary ends as if nothing had happened."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tidewheel.contracts.recipe import CanaryStep, DeployConfig
from tidewheel.contracts.rollout import ArmBatch, CanaryBatch, CanaryResult
from tidewheel.contracts.verdict import Phase
from tidewheel.errors import ContractError, RetryableError
from tidewheel.rollout.canary import Canary
from tidewheel.rollout.controller import Controller, MemoryJournal, StoredJournal
from tidewheel.store import Store

STEPS = tuple(CanaryStep(share=share, min_requests=200, max_requests=1000) for share in (0.1, 0.5))
CONFIG = DeployConfig(steps=STEPS, max_engagement_drop=0.3, max_calibration_error=0.3)
SILENCE = ArmBatch(
    requests=0, errors=0, latencies=(), users=(), engagement=(), predicted=(), actual=(), impressions=(), scored=(), expected=()
)


class Killed(BaseException):
    """No `except Exception` catches a SIGKILL."""


@dataclass
class Drawn:
    """A source whose n-th batch depends on n alone, as the world's traffic does; `effect` is the candidate's."""

    seed: int
    effect: float = 1.0
    at: int = 0
    silent: frozenset[int] = frozenset()
    broken: frozenset[int] = frozenset()
    asked: list[int] = field(default_factory=list)

    def skip(self, step: CanaryStep) -> None:
        self.at += 1

    def observe(self, step: CanaryStep) -> CanaryBatch:
        self.asked.append(self.at)
        rng = np.random.default_rng([self.seed, self.at, round(step.share * 100)])
        arms = [SILENCE] * 2 if self.at in self.silent else [an_arm(rng, self.effect), an_arm(rng, 1.0)]
        is_broken = self.at in self.broken
        self.at += 1
        return CanaryBatch(
            taken=sum(arm.requests for arm in arms),
            seconds=100.0,
            took_seconds=1.0,
            candidate=None if is_broken else arms[0],
            control=None if is_broken else arms[1],
            fault="candidate arm: predicted is not finite in 1 of 100 requests" if is_broken else "",
        )


def an_arm(rng: np.random.Generator, effect: float, count: int = 100) -> ArmBatch:
    worth = rng.uniform(0.5, 1.5, count)
    clicks = rng.binomial(8, np.clip(0.2 * worth * effect, 0, 1)).astype(float)
    series = {"engagement": clicks, "actual": clicks, "predicted": 1.6 * worth * effect, "expected": 1.6 * worth}
    series |= {"impressions": np.full(count, 8.0), "scored": 0.2 * worth * effect}
    return ArmBatch(
        requests=count,
        errors=0,
        latencies=tuple(rng.lognormal(-6.0, 0.2, count)),
        users=tuple(rng.integers(0, 400, count).tolist()),
        **{name: tuple(values.tolist()) for name, values in series.items()},
    )


def lead(store: Store, source: Drawn, controller: str = "a") -> CanaryResult:
    canary = Canary(CONFIG, has_control=True, is_closed_loop=True)
    leader = Controller(canary, StoredJournal(store, "r/x", controller))
    leader.resume(source)
    while not leader.has_ended:
        leader.advance(source)
    return canary.result()


class Mortal:
    """The store of a process that is killed before or after its n-th write."""

    def __init__(self, store: Store, writes: int, is_after: bool) -> None:
        self._store, self._left, self._is_after = store, writes, is_after

    def __getattr__(self, name: str):
        return getattr(self._store, name)

    def create(self, name: str, text: str) -> bool:
        self._left -= 1
        if self._left < 0 and not self._is_after:
            raise Killed
        created = self._store.create(name, text)
        if self._left < 0:
            raise Killed
        return created


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 50), st.sampled_from([1.0, 0.5]), st.lists(st.tuples(st.integers(0, 6), st.booleans()), max_size=6))
def test_a_canary_that_is_killed_anywhere_and_started_again_ends_as_if_nothing_had_happened(
    tmp_path_factory: pytest.TempPathFactory, seed: int, effect: float, kills: list[tuple[int, bool]]
) -> None:
    want = lead(Store.open(str(tmp_path_factory.mktemp("whole"))), Drawn(seed, effect))
    store = Store.open(str(tmp_path_factory.mktemp("killed")))
    for writes, is_after in kills:
        try:
            lead(Mortal(store, writes, is_after), Drawn(seed, effect))
        except Killed:
            continue
    assert lead(store, Drawn(seed, effect)) == want


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 50), st.lists(st.booleans(), max_size=40))
def test_of_two_controllers_at_once_one_acts_and_every_batch_counts_once(
    tmp_path_factory: pytest.TempPathFactory, seed: int, turns: list[bool]
) -> None:
    want = lead(Store.open(str(tmp_path_factory.mktemp("alone"))), Drawn(seed))
    store = Store.open(str(tmp_path_factory.mktemp("both")))
    leaders: dict[bool, tuple[Canary, Controller, Drawn]] = {}
    stopped: set[bool] = set()
    for turn in turns:
        if turn in stopped:
            continue
        if turn not in leaders:
            canary = Canary(CONFIG, has_control=True, is_closed_loop=True)
            leaders[turn] = (canary, Controller(canary, StoredJournal(store, "r/x", str(turn))), Drawn(seed))
            leaders[turn][1].resume(leaders[turn][2])
        _, controller, source = leaders[turn]
        if controller.has_ended:
            continue
        if list(leaders)[-1] is turn:
            controller.advance(source)  # the newest leads
        else:
            with pytest.raises(RetryableError, match=f"{not turn} took the lead"):
                controller.advance(source)
            stopped.add(turn)
    assert lead(store, Drawn(seed)) == want


def test_a_controller_that_starts_again_asks_for_nothing_twice(tmp_path: Path) -> None:
    store = Store.open(str(tmp_path))
    first = Drawn(1)
    with pytest.raises(Killed):
        lead(Mortal(store, 3, False), first)  # its lead and two batches are written, the third is lost
    second = Drawn(1)
    lead(store, second)
    assert first.asked == [0, 1, 2]
    assert second.asked[0] == 2


def test_a_canary_that_has_ended_is_not_led_again(tmp_path: Path) -> None:
    store, again = Store.open(str(tmp_path)), Drawn(1)
    want = lead(store, Drawn(1))
    assert lead(store, again) == want
    assert again.asked == []


def test_a_journal_that_lost_a_record_is_refused(tmp_path: Path) -> None:
    lead(Store.open(str(tmp_path)), Drawn(1))
    (tmp_path / "canaries/r/x/000002.json").unlink()
    with pytest.raises(ContractError, match=r"canaries/r/x/000002\.json is missing"):
        lead(Store.open(str(tmp_path)), Drawn(1))


def test_silence_is_waited_for_until_its_deadline_and_then_undecided(tmp_path: Path) -> None:
    step = STEPS[0].model_copy(update={"max_seconds": 500.0})
    canary = Canary(CONFIG.model_copy(update={"steps": (step,)}), has_control=True, is_closed_loop=True)
    source = Drawn(0, silent=frozenset(range(100)))
    phases = []
    while canary.step is not None:
        phases.append(canary.add(source.observe(canary.step)))
        if len(phases) == 1:
            assert "silent for 100 s, held until 500 s" in canary.words()
    assert phases == [Phase.RUNNING] * 4 + [Phase.INCONCLUSIVE]
    assert "max_seconds is 500" in canary.result().verdict.explain()


def test_traffic_that_pauses_and_comes_back_is_judged(tmp_path: Path) -> None:
    assert lead(Store.open(str(tmp_path)), Drawn(0, silent=frozenset({1, 2, 3}))).verdict.phase is Phase.SUCCESSFUL


@pytest.mark.parametrize(("broken", "want"), [({0, 3}, Phase.SUCCESSFUL), ({0, 1, 2}, Phase.ERROR)])
def test_batches_whose_measurement_broke_have_a_limit_of_their_own(tmp_path: Path, broken: set[int], want: Phase) -> None:
    verdict = lead(Store.open(str(tmp_path)), Drawn(0, broken=frozenset(broken))).verdict
    assert verdict.phase is want
    if want is Phase.ERROR:
        assert "predicted is not finite in 1 of 100 requests (3 batches, limit 2)" in verdict.explain()


@pytest.mark.parametrize(
    ("minimum", "batches"), [({"min_seconds": 900.0}, 9), ({"min_events": 1100}, 7), ({"min_requests": 800}, 8)]
)
def test_a_step_does_not_pass_before_each_of_its_minima(minimum: dict[str, float], batches: int) -> None:
    step = STEPS[0].model_copy(update=minimum)
    canary = Canary(CONFIG.model_copy(update={"steps": (step,)}), has_control=True, is_closed_loop=True)
    source = Drawn(3)
    while canary.step is not None:
        canary.add(source.observe(canary.step))
    (result,) = canary.result().steps
    assert result.phase is Phase.SUCCESSFUL
    assert result.looks == batches


def progress_of(config: DeployConfig, source: Drawn) -> list[tuple[float, str]]:
    said: list[tuple[float, str]] = []
    canary = Canary(config, has_control=True, is_closed_loop=True)
    controller = Controller(canary, MemoryJournal(), lambda share, words: said.append((share, words)))
    while not controller.has_ended:
        controller.advance(source)
    return said


def test_a_step_that_has_passed_is_spoken_of_and_not_the_next_one() -> None:
    said = [words for _, words in progress_of(CONFIG, Drawn(1))]
    last_of_first = [words for words in said if words.startswith("step 1/2: 10% of users, ")][-1]
    assert said[said.index(last_of_first) + 1].startswith("step 2/2: 50% of users, 100 requests, ")
    assert "silent" not in last_of_first


def test_a_step_that_has_failed_is_spoken_of_and_not_the_next_one() -> None:
    assert progress_of(CONFIG, Drawn(1, effect=0.3))[-1][1].startswith("step 1/2: 10% of users, ")


def test_two_equal_steps_are_told_apart() -> None:
    said = progress_of(CONFIG.model_copy(update={"steps": (STEPS[0], STEPS[0])}), Drawn(1))
    assert [share for share, _ in said] == sorted(share for share, _ in said)
    assert said[-1][0] == 1.0
    assert said[-1][1].startswith("step 2/2: ")
