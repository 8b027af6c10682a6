"""The embedded router: a canary over two real server processes, judged between batches of real requests."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Protocol

import numpy as np

from tidewheel.contracts.progress import Progress, silent
from tidewheel.contracts.recipe import CanaryStep, DeployConfig, LabelConfig
from tidewheel.contracts.rollout import CanaryResult, Signal, StepResult
from tidewheel.contracts.verdict import Phase, Reason, combine
from tidewheel.errors import ContractError, RetryableError, TidewheelError
from tidewheel.rollout.analysis import Evidence, assess
from tidewheel.rollout.plan import Arm, arms, decide
from tidewheel.rollout.recording import ArmRecorder
from tidewheel.rollout.traffic import Request, SelectiveTraffic, Traffic

SENDERS = 4  # threads that ask the servers
WIDEST_TAKE = 20_000  # requests drawn at once from traffic that cannot pass over users
MOST_TAKES = 20  # draws for one batch; users who are to be compared and never come count as the end of the traffic


class Answer(Protocol):
    """What a server says: scores label -> (C,), how long it took, and which bundle gave them."""

    @property
    def scores(self) -> Mapping[str, np.ndarray]: ...

    @property
    def latency_seconds(self) -> float: ...

    @property
    def bundle(self) -> str: ...


class Server(Protocol):
    """One bundle behind HTTP. `infer` is called by several threads and raises TidewheelError when there is no answer;
    `stop` may be called twice."""

    bundle: str

    def infer(self, features: Mapping[str, np.ndarray]) -> Answer: ...

    def is_alive(self) -> bool: ...

    def stop(self) -> None: ...


StartServer = Callable[[Path], Server]


class BrokenCanary(TidewheelError):
    """The measurement itself broke: a server is gone or says what it cannot mean. Never a pass."""


Answers = Mapping[Arm, Answer | None]  # None: no usable answer


def run_canary(
    config: DeployConfig,
    labels: Sequence[LabelConfig],
    production: Path | None,
    candidate: Path,
    traffic: Traffic,
    start: StartServer,
    progress: Progress = silent,
) -> CanaryResult:
    """Lead the candidate through the steps of `config` against production, and say what was seen.

    The verdict is `Successful` only if every step is. Without production (the first release) the candidate alone is
    asked: errors and calibration must be proven within their limits. Servers are stopped however this ends.

    Args:
        labels: of the recipe; in replay the log-loss of the gated ones is judged.
        start: starts a server of a bundle's folder, e.g. `tidewheel.serving.start_server`.

    Raises:
        ContractError: a server refused its bundle.
        RetryableError: a server did not start.
    """
    started = time.monotonic()
    gated = [label.name for label in labels if label.gated]
    with ExitStack() as stack:
        servers = _start_servers(stack, start, production, candidate)
        pool = ThreadPoolExecutor(SENDERS, thread_name_prefix="router")
        stack.callback(pool.shutdown, wait=True, cancel_futures=True)
        router = _Router(config, gated, servers, pool, traffic, progress)
        try:
            router.run()
        except BrokenCanary as error:
            router.reasons.append(Reason(check="canary", phase=Phase.ERROR, message=str(error)))
    return CanaryResult(
        verdict=combine(router.reasons),
        steps=tuple(router.results),
        requests=router.requests,
        seconds=time.monotonic() - started,
    )


def _start_servers(stack: ExitStack, start: StartServer, production: Path | None, candidate: Path) -> dict[Arm, Server]:
    """Both at once; whatever did start is stopped when the stack unwinds, also where the other did not."""
    folders = {Arm.CANDIDATE: candidate} | ({} if production is None else {Arm.CONTROL: production})

    def started(folder: Path) -> Server:
        server = start(folder)
        stack.callback(server.stop)
        return server

    with ThreadPoolExecutor(len(folders)) as starters:
        futures = {arm: starters.submit(started, folder) for arm, folder in folders.items()}
    return {arm: future.result() for arm, future in futures.items()}


class _Router:
    """Splits requests by user, asks, records, and looks after every batch."""

    def __init__(
        self,
        config: DeployConfig,
        gated: Sequence[str],
        servers: Mapping[Arm, Server],
        pool: ThreadPoolExecutor,
        traffic: Traffic,
        progress: Progress,
    ) -> None:
        self.config = config
        self.servers = servers
        self.pool = pool
        self.traffic = traffic
        self.progress = progress
        self.is_paired = not traffic.is_closed_loop and Arm.CONTROL in servers
        self.baseline_arm = Arm.CONTROL if Arm.CONTROL in servers else Arm.CANDIDATE
        self.labels = {config.goal_label, *gated}
        loss_labels = [] if traffic.is_closed_loop else sorted(gated)
        self.recorders = {arm: ArmRecorder(config.goal_label, loss_labels) for arm in servers}
        self.salt = int(servers[Arm.CANDIDATE].bundle[:16], 16)
        self.results: list[StepResult] = []
        self.reasons: list[Reason] = []
        self.requests = 0

    def run(self) -> None:
        """All steps until one is not `Successful`."""
        has_control = Arm.CONTROL in self.servers
        steps = self.config.steps if has_control else self.config.steps[:1]
        for number, step in enumerate(steps, start=1):
            share = step.share if has_control else 1.0
            if self._run_step(number, len(steps), step, share) is not Phase.SUCCESSFUL:
                return

    def _run_step(self, number: int, num_steps: int, step: CanaryStep, share: float) -> Phase:
        began, looks, sent, phase = time.monotonic(), 0, 0, Phase.RUNNING
        is_exhausted = False
        for recorder in self.recorders.values():
            recorder.start_step()
        signals = self._assess()
        mine = self.recorders[Arm.CANDIDATE]
        try:
            while phase is Phase.RUNNING:
                requests = self._take(share)
                # Endless traffic that hardly ever brings the candidate a request is no evidence either.
                sent += len(requests)
                is_exhausted = len(requests) < self.config.batch_requests or sent > 5 * step.max_requests
                self._serve(requests, share)
                signals, looks = self._assess(), looks + 1
                phase = decide(step, mine.requests, signals, is_exhausted)
                done = min(mine.requests / step.min_requests, 1.0)
                words = f"step {number}/{num_steps}: {share:.0%} of users, {mine.requests} requests, {_words(signals)}"
                self.progress((number - 1 + done) / num_steps, words)
        except BaseException:
            phase = Phase.ERROR
            raise
        finally:
            self._conclude(number, step, share, phase, looks, time.monotonic() - began, signals, is_exhausted)
        return phase

    def _take(self, share: float) -> list[Request]:
        """The next requests of the users that are compared; fewer than a batch only when the traffic has ended."""
        count = self.config.batch_requests

        def is_wanted(users: np.ndarray) -> np.ndarray:
            chosen = arms(users, share, self.salt)
            return chosen == Arm.CANDIDATE if self.is_paired else chosen != Arm.NEITHER

        if isinstance(self.traffic, SelectiveTraffic):
            return list(self.traffic.take_of(count, is_wanted))
        taken: list[Request] = []
        for _ in range(MOST_TAKES):
            compared = share if self.is_paired else min(2.0 * share, 1.0)
            wanted = min(max(int((count - len(taken)) / compared), 1), WIDEST_TAKE)
            drawn = self.traffic.take(wanted)
            users = np.array([request.user_id for request in drawn], dtype=np.int64)
            taken += [request for request, is_in in zip(drawn, is_wanted(users), strict=True) if is_in]
            if len(drawn) < wanted or len(taken) >= count:
                break
        return taken

    def _serve(self, requests: Sequence[Request], share: float) -> None:
        """Ask with several threads, record in the order of the requests: the same traffic gives the same evidence."""
        chosen = arms(np.array([request.user_id for request in requests], dtype=np.int64), share, self.salt)
        asked = [tuple(self.servers) if self.is_paired else (Arm(int(arm)),) for arm in chosen]
        answers = self._ask(requests, asked)
        baselines = self._baselines(requests, answers)
        for request, answered, baseline in zip(requests, answers, baselines, strict=True):
            self.requests += 1
            self._record(request, answered, baseline)
        for arm, server in self.servers.items():
            if not server.is_alive():
                raise BrokenCanary(f"the {arm.name.lower()} server ended during the canary")

    def _ask(self, requests: Sequence[Request], asked: Sequence[Sequence[Arm]]) -> list[Answers]:
        features = (  # made here and not in the threads, for which traffic is not
            {arm: self.traffic.served_features(request, arm is Arm.CANDIDATE) for arm in to}
            for request, to in zip(requests, asked, strict=True)
        )
        return list(self.pool.map(self._answers, features))

    def _answers(self, features: Mapping[Arm, Mapping[str, np.ndarray]]) -> Answers:
        answers: dict[Arm, Answer | None] = {}
        for arm, columns in features.items():
            try:
                answers[arm] = self.servers[arm].infer(columns)
            except (ContractError, RetryableError):
                answers[arm] = None
        return answers

    def _baselines(self, requests: Sequence[Request], answers: Sequence[Answers]) -> list[Answer | None]:
        """What production says to every request, whichever arm it went to; without production, the candidate.

        Nobody sees production's answers to the candidate's requests: they say what a request was worth before any
        treatment. They are asked for after the others, so that they slow down no answer whose latency is judged.
        """
        if Arm.CONTROL not in self.servers:
            return [answered[Arm.CANDIDATE] for answered in answers]
        unasked = [at for at, answered in enumerate(answers) if Arm.CONTROL not in answered]
        later = self._ask([requests[at] for at in unasked], [(Arm.CONTROL,)] * len(unasked))
        baselines = [answered.get(Arm.CONTROL) for answered in answers]
        for at, answered in zip(unasked, later, strict=True):
            baselines[at] = answered[Arm.CONTROL]
        return baselines

    def _record(self, request: Request, answered: Answers, baseline: Answer | None) -> None:
        for arm, answer in (*answered.items(), (self.baseline_arm, baseline)):
            if answer is not None and (fault := self._fault(arm, answer, len(request.item_ids))):
                raise BrokenCanary(f"the {arm.name.lower()} server's answer to request {request.request_id}: {fault}")
        for arm, answer in answered.items():
            if answer is None:
                self.recorders[arm].add_error()
            else:
                self.recorders[arm].add_latency(answer.latency_seconds)
        answers = {arm: answer for arm, answer in answered.items() if answer is not None}
        if baseline is None or len(answers) < len(answered):
            return  # the user got production's ranking then, or there is nothing to compare with
        for arm, answer in answers.items():
            outcome = self.traffic.react(request, answer.scores)
            self.recorders[arm].add_outcome(request.user_id, answer.scores, outcome, baseline.scores)

    def _fault(self, arm: Arm, answer: Answer, candidates: int) -> str | None:
        if answer.bundle != self.servers[arm].bundle:
            return f"from bundle {answer.bundle[:12] or 'unnamed'}, expected {self.servers[arm].bundle[:12]}"
        for label in sorted(self.labels):
            scores = answer.scores.get(label)
            if scores is None:
                return f"no scores for {label}; found {', '.join(sorted(answer.scores)) or 'none'}"
            if scores.shape != (candidates,) or not np.isfinite(scores).all():
                return f"{label}: scores {scores.shape} for {candidates} candidates, or not finite"
        return None

    def _assess(self) -> tuple[Signal, ...]:
        control = self.recorders.get(Arm.CONTROL)
        evidence = Evidence(
            candidate=self.recorders[Arm.CANDIDATE].evidence(),
            control=None if control is None else control.evidence(),
            is_closed_loop=self.traffic.is_closed_loop,
        )
        return assess(evidence, self.config)

    def _conclude(
        self,
        number: int,
        step: CanaryStep,
        share: float,
        phase: Phase,
        looks: int,
        seconds: float,
        signals: Sequence[Signal],
        is_exhausted: bool,
    ) -> None:
        """Write down the step as it ended; what is still undecided then is `Inconclusive`."""
        ended = [
            signal.model_copy(update={"phase": Phase.INCONCLUSIVE}) if signal.phase is Phase.RUNNING else signal
            for signal in signals
        ]
        self.reasons += [signal.reason(number) for signal in ended]
        control = self.recorders.get(Arm.CONTROL)
        mine = self.recorders[Arm.CANDIDATE]
        if phase is Phase.INCONCLUSIVE:
            why = "the traffic ended" if is_exhausted else f"max_requests is {step.max_requests}"
            text = f"step {number}: undecided after {mine.requests} requests of the candidate, {why}"
            self.reasons.append(Reason(check=f"step {number}", phase=phase, message=text))
        self.results.append(
            StepResult(
                number=number,
                share=share,
                phase=phase,
                looks=looks,
                seconds=seconds,
                candidate=mine.summary(),
                control=None if control is None else control.summary(),
                signals=tuple(ended),
            )
        )


def _words(signals: Sequence[Signal]) -> str:
    """The signal that a reader waits for: the worst decided one, else the first undecided one, else the last."""
    for phase in (Phase.FAILED, Phase.ERROR, Phase.RUNNING):
        for signal in reversed(signals):
            if signal.phase is phase:
                return signal.message
    return signals[-1].message
