"""The router over real server processes, and over servers in memory where a process would show nothing more."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from tidewheel.contracts.recipe import CanaryStep, DeployConfig, LabelConfig, Recipe
from tidewheel.contracts.rollout import CanaryResult
from tidewheel.contracts.schema import FeatureKind
from tidewheel.contracts.verdict import Phase
from tidewheel.errors import RetryableError
from tidewheel.ranker import OpenBundle
from tidewheel.rollout import Outcome, Request, run_canary
from tidewheel.serving import ServerProcess, start_server

LABELS = (LabelConfig(name="click"),)
STEPS = (
    CanaryStep(share=0.25, min_requests=400, max_requests=2000),
    CanaryStep(share=0.5, min_requests=400, max_requests=2000),
)
CONFIG = DeployConfig(steps=STEPS, max_engagement_drop=0.2)
OLD, NEW = "a" * 64, "b" * 64


@dataclass(frozen=True)
class Spoken:
    scores: Mapping[str, np.ndarray]
    latency_seconds: float
    bundle: str


class MemoryServer:
    """A server without a process: `quality` in [0, 1] is how well it knows which items are good."""

    def __init__(self, folder: Path, quality: float) -> None:
        self.bundle = folder.name
        self.quality = quality
        self.is_up = True
        self.is_stopped = False
        self.asked = 0
        self._lock = threading.Lock()

    def infer(self, features: Mapping[str, np.ndarray]) -> Spoken:
        with self._lock:
            self.asked += 1
        truth, noise = features["truth"], features["noise"]
        click = truth if self.quality == 1.0 else np.clip(noise, 0.0, 1.0)
        return Spoken({"click": click}, 0.001 + 0.0001 * float(noise[0]), self.bundle)

    def is_alive(self) -> bool:
        return self.is_up

    def stop(self) -> None:
        self.is_stopped = True


class ClickTraffic:
    """Endless closed loop: 1,000 users, 6 candidates, the best 3 are shown and clicked with their true probability."""

    is_closed_loop = True

    def __init__(self, end: int = 10**9) -> None:
        self.rng = np.random.default_rng(1)
        self.left = end
        self.number = 0

    @property
    def seconds(self) -> float:
        return float(self.number)

    def take(self, count: int) -> Sequence[Request]:
        count = min(count, self.left)
        self.left -= count
        truth, noise = self.rng.beta(1.0, 3.0, (count, 6)), self.rng.beta(1.0, 3.0, (count, 6))
        users = self.rng.integers(0, 1000, count)
        requests = []
        for row in range(count):
            features = {"truth": truth[row], "noise": noise[row]}
            requests.append(Request(str(self.number), int(users[row]), np.arange(6), features))
            self.number += 1
        return requests

    def served_features(self, request: Request, is_candidate: bool) -> Mapping[str, np.ndarray]:
        return request.features

    def react(self, request: Request, scores: Mapping[str, np.ndarray]) -> Outcome:
        shown = np.argsort(-scores["click"])[:3]
        luck = np.random.default_rng(int(request.request_id)).random(6)
        return Outcome(shown, {"click": (luck < request.features["truth"])[shown].astype(np.int8)})


def in_memory(candidate: type[MemoryServer] = MemoryServer, quality: float = 1.0):
    """A `StartServer` and the servers it started."""
    started: list[MemoryServer] = []

    def start(folder: Path) -> MemoryServer:
        server = candidate(folder, quality) if folder.name == NEW else MemoryServer(folder, 1.0)
        started.append(server)
        return server

    return start, started


def canary(start, traffic=None, production: str | None = OLD, config: DeployConfig = CONFIG) -> CanaryResult:
    old = None if production is None else Path(production)
    return run_canary(config, LABELS, old, Path(NEW), traffic or ClickTraffic(), start)


def test_an_equal_candidate_passes_every_step_and_the_servers_are_stopped() -> None:
    start, started = in_memory()
    result = canary(start)
    assert result.verdict.phase is Phase.SUCCESSFUL
    assert [step.phase for step in result.steps] == [Phase.SUCCESSFUL, Phase.SUCCESSFUL]
    assert all(step.candidate.requests >= 400 for step in result.steps)
    assert all(server.is_stopped for server in started)


def test_a_candidate_that_ranks_by_noise_fails_in_the_first_step_with_the_numbers() -> None:
    start, _ = in_memory(quality=0.0)
    result = canary(start)
    assert result.verdict.phase is Phase.FAILED
    assert len(result.steps) == 1
    assert "step 1" in result.verdict.explain()
    assert result.exposure == pytest.approx(0.25)  # the share of the only step


def test_the_same_traffic_gives_the_same_evidence() -> None:
    a, b = (canary(in_memory()[0]) for _ in range(2))
    assert [step.candidate.means for step in a.steps] == [step.candidate.means for step in b.steps]
    assert [step.signals[-1] for step in a.steps] == [step.signals[-1] for step in b.steps]


def test_traffic_that_ends_too_early_is_inconclusive() -> None:
    result = canary(in_memory()[0], ClickTraffic(end=500))
    assert result.verdict.phase is Phase.INCONCLUSIVE
    assert "traffic ended" in result.verdict.explain()


def test_no_traffic_at_all_is_inconclusive_for_any_candidate() -> None:
    for production in (OLD, None):
        assert canary(in_memory()[0], ClickTraffic(end=0), production).verdict.phase is Phase.INCONCLUSIVE


def test_users_who_never_come_do_not_hold_the_canary_for_ever() -> None:
    class OneUser(ClickTraffic):
        def take(self, count: int) -> Sequence[Request]:
            return [Request(r.request_id, 5, r.item_ids, r.features) for r in super().take(count)]

    assert canary(in_memory()[0], OneUser()).verdict.phase is Phase.INCONCLUSIVE


def test_a_first_release_is_judged_alone() -> None:
    start, started = in_memory()
    result = canary(start, production=None)
    assert result.verdict.phase is Phase.SUCCESSFUL
    assert [server.bundle for server in started] == [NEW]
    assert [signal.name for signal in result.steps[0].signals] == ["errors", "calibration"]


def test_a_candidate_that_fails_requests_fails() -> None:
    class Flaky(MemoryServer):
        def infer(self, features: Mapping[str, np.ndarray]) -> Spoken:
            if features["noise"][0] > 0.6:
                raise RetryableError("no answer")
            return super().infer(features)

    result = canary(in_memory(Flaky)[0])
    assert result.verdict.phase is Phase.FAILED
    assert "errors" in result.verdict.explain()


@pytest.mark.parametrize("what", ["nan", "label", "length", "bundle"])
def test_an_answer_that_cannot_be_meant_is_an_error_and_never_a_pass(what: str) -> None:
    class Odd(MemoryServer):
        def infer(self, features: Mapping[str, np.ndarray]) -> Spoken:
            said = super().infer(features)
            if self.asked < 50:
                return said
            if what == "bundle":
                return Spoken(said.scores, said.latency_seconds, OLD)
            click = said.scores["click"]
            odd = {"nan": {"click": click * np.nan}, "label": {"like": click}, "length": {"click": click[:2]}}
            return Spoken(odd[what], said.latency_seconds, self.bundle)

    start, started = in_memory(Odd)
    result = canary(start)
    assert result.verdict.phase is Phase.ERROR
    assert all(server.is_stopped for server in started)


def test_a_server_that_ends_is_an_error() -> None:
    class Mortal(MemoryServer):
        def is_alive(self) -> bool:
            return self.asked < 50

    result = canary(in_memory(Mortal)[0])
    assert result.verdict.phase is Phase.ERROR
    assert "candidate server ended" in result.verdict.explain()


def test_an_interrupt_stops_the_servers() -> None:
    class Interrupted(ClickTraffic):
        def react(self, request: Request, scores: Mapping[str, np.ndarray]) -> Outcome:
            raise KeyboardInterrupt

    start, started = in_memory()
    with pytest.raises(KeyboardInterrupt):
        canary(start, Interrupted())
    assert len(started) == 2
    assert all(server.is_stopped for server in started)


def test_where_one_server_does_not_start_the_other_is_stopped() -> None:
    started: list[MemoryServer] = []

    def start(folder: Path) -> MemoryServer:
        if folder.name == NEW:
            raise RetryableError("not ready")
        started.append(MemoryServer(folder, 1.0))
        return started[0]

    with pytest.raises(RetryableError, match="not ready"):
        canary(start)
    assert started[0].is_stopped


# --- real processes ---------------------------------------------------------------------------------------------------


class TinyTraffic(ClickTraffic):
    """The quickstart's features; a click has the probability 0.3 whatever is shown."""

    def __init__(self, recipe: Recipe) -> None:
        super().__init__()
        self.features = recipe.features

    def take(self, count: int) -> Sequence[Request]:
        requests = []
        for request in super().take(count):
            columns: dict[str, np.ndarray] = {}
            for feature in self.features:
                size = 6 if feature.entity == "item" else 1
                if feature.kind is FeatureKind.HASHED:
                    columns[feature.name] = self.rng.integers(1, 60, size)
                elif feature.kind is FeatureKind.VOCABULARY:
                    columns[feature.name] = self.rng.choice(np.array(["a", "b"], dtype=object), size)
                else:
                    columns[feature.name] = self.rng.gamma(2.0, 1.0, size)
            requests.append(Request(request.request_id, request.user_id, request.item_ids, columns))
        return requests

    def react(self, request: Request, scores: Mapping[str, np.ndarray]) -> Outcome:
        luck = np.random.default_rng(int(request.request_id)).random(3)
        return Outcome(np.argsort(-scores["click"])[:3], {"click": (luck < 0.3).astype(np.int8)})


def test_killing_the_candidates_process_midway_is_an_error_and_leaves_no_process(
    tiny_bundle: OpenBundle, quickstart: Recipe
) -> None:
    servers: list[ServerProcess] = []

    def start(folder: Path) -> ServerProcess:
        servers.append(start_server(folder))
        return servers[-1]

    class Killing(TinyTraffic):
        def react(self, request: Request, scores: Mapping[str, np.ndarray]) -> Outcome:
            if self.number >= 300:
                servers[0].process.kill()
                servers[0].process.wait()
            return super().react(request, scores)

    config = CONFIG.model_copy(update={"batch_requests": 100})
    folder = tiny_bundle.folder
    result = run_canary(config, LABELS, folder, folder, Killing(quickstart), start)
    assert result.verdict.phase is Phase.ERROR
    assert "server ended" in result.verdict.explain()
    assert not any(server.is_alive() for server in servers)


def test_a_canary_over_two_real_servers_compares_a_bundle_with_itself(tiny_bundle: OpenBundle, quickstart: Recipe) -> None:
    lines: list[str] = []
    step = CanaryStep(share=0.5, min_requests=400, max_requests=600)
    config = DeployConfig(steps=(step,), max_engagement_drop=0.4, batch_requests=400)
    folder = tiny_bundle.folder
    traffic = TinyTraffic(quickstart)
    result = run_canary(config, LABELS, folder, folder, traffic, start_server, lambda share, words: lines.append(words))
    found = {signal.name: signal for signal in result.steps[0].signals}
    assert found["errors"].phase is found["engagement"].phase is Phase.SUCCESSFUL
    assert result.steps[0].candidate.errors == result.steps[0].control.errors == 0
    assert result.steps[0].candidate.latency_p50_seconds > 0
    assert lines[0].startswith("step 1/1: 50% of users")


def test_a_source_that_is_silent_for_the_candidate_alone_is_seen_in_its_coverage() -> None:
    class Blind(ClickTraffic):
        def served_features(self, request: Request, is_candidate: bool) -> Mapping[str, np.ndarray]:
            extra = np.full(6, np.nan) if is_candidate else np.ones(6)
            return {**request.features, "age": extra, "rare": np.full(6, np.nan)}

    result = canary(in_memory()[0], Blind())
    assert result.verdict.phase is Phase.FAILED
    assert "coverage of age -100.0%" in result.verdict.explain()
    assert result.steps[0].candidate.requests < 400
