"""Splits the requests of a canary by user between servers, asks them, and records what came of it: the `Source` of evidence."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Protocol

import numpy as np

from tidewheel.contracts.recipe import CanaryStep, DeployConfig, LabelConfig
from tidewheel.contracts.rollout import CanaryBatch
from tidewheel.errors import ContractError, RetryableError, TidewheelError
from tidewheel.rollout.plan import Arm, arms
from tidewheel.rollout.recording import ArmRecorder, lost_shares
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


class BrokenBatch(TidewheelError):
    """The measurement broke: a server says what it cannot mean."""


class ServerGone(BrokenBatch):
    """A server ended, and will not come back."""


Answers = Mapping[Arm, Answer | None]  # None: no usable answer
Columns = Mapping[Arm, Mapping[str, np.ndarray]]


@contextmanager
def routing(
    config: DeployConfig,
    labels: Sequence[LabelConfig],
    servers: Mapping[Arm, Server],
    traffic: Traffic,
    senders: int = SENDERS,
) -> Iterator[Router]:
    """A router over servers that run, with threads that ask them; they end with the block, also in the middle of a batch."""
    pool = ThreadPoolExecutor(senders, thread_name_prefix="router")
    try:
        yield Router(config, [label.name for label in labels if label.gated], servers, pool, traffic)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


class Router:
    """Splits requests by user, asks, and records: a `controller.Source`."""

    def __init__(
        self,
        config: DeployConfig,
        gated: Sequence[str],
        servers: Mapping[Arm, Server],
        pool: ThreadPoolExecutor,
        traffic: Traffic,
    ) -> None:
        self.config = config
        self.servers = servers
        self.pool = pool
        self.traffic = traffic
        self.is_paired = not traffic.is_closed_loop and Arm.CONTROL in servers
        self.baseline_arm = Arm.CONTROL if Arm.CONTROL in servers else Arm.CANDIDATE
        self.labels = {config.goal_label, *gated}
        self.loss_labels = [] if traffic.is_closed_loop else sorted(gated)
        self.salt = int(servers[Arm.CANDIDATE].bundle[:16], 16)

    def skip(self, step: CanaryStep) -> None:
        self._take(step.share)

    def observe(self, step: CanaryStep) -> CanaryBatch:
        began, seconds = time.monotonic(), self.traffic.seconds
        requests = self._take(step.share)
        recorders = {arm: ArmRecorder(self.config.goal_label, self.loss_labels) for arm in self.servers}
        fault, is_fatal = "", False
        try:
            self._serve(requests, step.share, recorders)
        except BrokenBatch as error:
            fault, is_fatal = str(error), isinstance(error, ServerGone)
        batches = {} if fault else {arm: recorder.batch() for arm, recorder in recorders.items()}
        return CanaryBatch(
            taken=len(requests),
            seconds=self.traffic.seconds - seconds,
            took_seconds=time.monotonic() - began,
            candidate=batches.get(Arm.CANDIDATE),
            control=batches.get(Arm.CONTROL),
            is_last=len(requests) < self.config.batch_requests,
            fault=fault,
            is_fatal=is_fatal,
        )

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

    def _serve(self, requests: Sequence[Request], share: float, recorders: Mapping[Arm, ArmRecorder]) -> None:
        """Ask with several threads, record in the order of the requests: the same traffic gives the same evidence."""
        chosen = arms(np.array([request.user_id for request in requests], dtype=np.int64), share, self.salt)
        asked = [tuple(self.servers) if self.is_paired else (Arm(int(arm)),) for arm in chosen]
        columns: list[Columns] = [  # made here and not in the threads, for which traffic is not
            {arm: self.traffic.served_features(request, arm is Arm.CANDIDATE) for arm in to}
            for request, to in zip(requests, asked, strict=True)
        ]
        answers = list(self.pool.map(self._answers, columns))
        baselines = self._baselines(requests, columns, answers)
        for request, sent, answered, baseline in zip(requests, columns, answers, baselines, strict=True):
            self._record(request, sent, answered, baseline, recorders)
        for arm, server in self.servers.items():
            if not server.is_alive():
                raise ServerGone(f"the {arm.name.lower()} server ended during the canary")
        for arm, recorder in recorders.items():
            if fault := recorder.fault():
                raise BrokenBatch(f"{arm.name.lower()} arm: {fault}")

    def _answers(self, features: Mapping[Arm, Mapping[str, np.ndarray]]) -> Answers:
        answers: dict[Arm, Answer | None] = {}
        for arm, columns in features.items():
            try:
                answers[arm] = self.servers[arm].infer(columns)
            except (ContractError, RetryableError):
                answers[arm] = None
        return answers

    def _baselines(
        self, requests: Sequence[Request], columns: Sequence[Columns], answers: Sequence[Answers]
    ) -> list[tuple[Mapping[str, np.ndarray], Answer | None]]:
        """What production gets and says to every request, whichever arm it went to; without production, the candidate.

        Nobody sees production's answers to the candidate's requests: they say what a request was worth before any
        treatment. They are asked for after the others, so that they slow down no answer whose latency is judged.
        """
        arm = self.baseline_arm
        unasked = [at for at, answered in enumerate(answers) if arm not in answered]
        later: list[Columns] = [{arm: self.traffic.served_features(requests[at], False)} for at in unasked]
        answered_later = self.pool.map(self._answers, later)
        found = [(sent.get(arm, {}), answered.get(arm)) for sent, answered in zip(columns, answers, strict=True)]
        for at, sent, answered in zip(unasked, later, answered_later, strict=True):
            found[at] = (sent[arm], answered[arm])
        return found

    def _record(
        self,
        request: Request,
        sent: Columns,
        answered: Answers,
        production: tuple[Mapping[str, np.ndarray], Answer | None],
        recorders: Mapping[Arm, ArmRecorder],
    ) -> None:
        columns, baseline = production
        for arm, answer in (*answered.items(), (self.baseline_arm, baseline)):
            if answer is not None and (fault := self._fault(arm, answer, len(request.item_ids))):
                raise BrokenBatch(f"the {arm.name.lower()} server's answer to request {request.request_id}: {fault}")
        for arm, answer in answered.items():
            if answer is None:
                recorders[arm].add_error()
            else:
                recorders[arm].add_latency(answer.latency_seconds)
        answers = {arm: answer for arm, answer in answered.items() if answer is not None}
        if baseline is None or len(answers) < len(answered):
            return  # the user got production's ranking then, or there is nothing to compare with
        for arm, answer in answers.items():
            outcome = self.traffic.react(request, answer.scores)
            missing = lost_shares(sent[arm], columns)
            recorders[arm].add_outcome(request.user_id, answer.scores, outcome, baseline.scores, missing)

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
