"""What a canary has seen and decided, folded from its batches: the same batches give the same end, anywhere. Pure."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tidewheel.contracts.recipe import CanaryStep, DeployConfig
from tidewheel.contracts.rollout import ArmSummary, CanaryBatch, CanaryResult, Signal, StepResult
from tidewheel.contracts.verdict import Phase, Reason, combine
from tidewheel.rollout.analysis import assess
from tidewheel.rollout.evidence import ArmEvidence, Evidence
from tidewheel.rollout.moments import ONE
from tidewheel.rollout.plan import Seen, decide

MOST_TAKEN = 5  # times `max_requests`: traffic that hardly ever brings the candidate a request is no evidence either


class Canary:
    """The steps of a canary, one batch after another, until one is not `Successful` or the last one is."""

    def __init__(self, config: DeployConfig, has_control: bool, is_closed_loop: bool) -> None:
        """
        Args:
            has_control: false in the first release, whose one step goes to everybody.
        """
        self.config = config
        self.steps = config.steps if has_control else (config.steps[0].model_copy(update={"share": 1.0}),)
        self._evidence = Evidence(has_control, is_closed_loop)
        self._results: list[StepResult] = []
        self._reasons: list[Reason] = []
        self._fault = ""
        self._broken = self._requests = 0
        self._seconds = 0.0
        self._phase = Phase.RUNNING
        self._start_step()

    @property
    def step(self) -> CanaryStep | None:
        """What is to be looked at next; None when the canary has ended."""
        return None if self._phase is not Phase.RUNNING else self.steps[len(self._results)]

    @property
    def number(self) -> int:
        """Of the step that was looked at last, from 1; at the beginning, of the first."""
        return self._number

    def add(self, batch: CanaryBatch) -> Phase:
        """Look at one batch more; returns the phase of its step."""
        step = self.step
        assert step is not None, "the canary has ended"
        if len(self._results) == self._number:
            self._start_step()
        self._looks += 1
        self._taken += batch.taken
        self._requests += batch.taken
        self._traffic_seconds += batch.seconds
        self._step_seconds += batch.took_seconds
        self._broken += bool(batch.fault)
        self._fault = batch.fault or self._fault
        self._evidence.add(batch.candidate, batch.control)
        self.signals = assess(self._evidence, self.config)
        is_broken = batch.is_fatal or self._broken > self.config.max_broken_batches
        is_exhausted = batch.is_last or self._taken > MOST_TAKEN * step.max_requests
        phase = Phase.ERROR if is_broken else decide(step, self.progress(), self.signals, is_exhausted)
        if phase is not Phase.RUNNING:
            self._conclude(step, phase, is_exhausted, is_broken)
        return phase

    def progress(self) -> Seen:
        """How far the step is that was looked at last."""
        mine = self._evidence.candidate
        return Seen(mine.requests, round(mine.step_total("engagement")), self._traffic_seconds)

    def words(self) -> str:
        """That step in a line: where it stands, and the signal that a reader waits for."""
        step = self.steps[self._number - 1]
        seen = self.progress()
        silent = "" if seen.requests else f", silent for {seen.seconds:,.0f} s, held until {step.max_seconds:,.0f} s"
        broken = f", {self._broken} batches broken" if self._broken else ""
        return f"{step.share:.0%} of users, {seen.requests} requests{silent}{broken}, {_awaited(self.signals)}"

    def result(self) -> CanaryResult:
        """How it ended; a canary that has not is `Inconclusive`."""
        mine = sum(step.candidate.requests for step in self._results)
        everyone = sum(step.candidate.requests / step.share for step in self._results)  # users are assigned by hash
        return CanaryResult(
            verdict=combine(self._reasons),
            steps=tuple(self._results),
            requests=self._requests,
            exposure=mine / everyone if everyone else 0.0,
            seconds=self._seconds,
        )

    def _start_step(self) -> None:
        self._number = len(self._results) + 1
        self._looks = self._taken = 0
        self._traffic_seconds = self._step_seconds = 0.0
        self._evidence.start_step()
        self.signals = assess(self._evidence, self.config)

    def _conclude(self, step: CanaryStep, phase: Phase, is_exhausted: bool, is_broken: bool) -> None:
        """Write down the step as it ended; what is still undecided then is `Inconclusive`."""
        number, evidence = self._number, self._evidence
        ended = [
            signal.model_copy(update={"phase": Phase.INCONCLUSIVE}) if signal.phase is Phase.RUNNING else signal
            for signal in self.signals
        ]
        self._reasons += [signal.reason(number) for signal in ended]
        if is_broken:
            times = f" ({self._broken} batches, limit {self.config.max_broken_batches})" if self._broken > 1 else ""
            self._reasons.append(Reason(check="canary", phase=Phase.ERROR, message=f"step {number}: {self._fault}{times}"))
        if phase is Phase.INCONCLUSIVE:
            text = f"step {number}: undecided after {self.progress().requests} requests of the candidate, "
            text += "the traffic ended" if is_exhausted else _limit_reached(step, self.progress())
            self._reasons.append(Reason(check=f"step {number}", phase=phase, message=text))
        self._results.append(
            StepResult(
                number=number,
                share=step.share,
                phase=phase,
                looks=self._looks,
                seconds=self._step_seconds,
                candidate=summary_of(evidence.candidate),
                control=None if evidence.control is None else summary_of(evidence.control),
                signals=tuple(ended),
            )
        )
        self._seconds += self._step_seconds
        if phase is not Phase.SUCCESSFUL or number == len(self.steps):
            self._phase = phase


def summary_of(arm: ArmEvidence) -> ArmSummary:
    """One arm in this step, for people."""
    answered, latencies = arm.step_total(ONE), np.array(list(arm.latencies))
    shown = ["engagement", "predicted", "actual", "scored", *(f"logloss {label}" for label in sorted(arm.labels))]
    return ArmSummary(
        requests=arm.requests,
        errors=arm.errors,
        users=len(arm.users),
        latency_p50_seconds=float(np.quantile(latencies, 0.5)) if len(latencies) else None,
        latency_p95_seconds=float(np.quantile(latencies, 0.95)) if len(latencies) else None,
        means={name: arm.step_total(name) / answered for name in shown} if answered else {},
    )


def _limit_reached(step: CanaryStep, seen: Seen) -> str:
    if seen.requests >= step.max_requests:
        return f"max_requests is {step.max_requests}"
    return f"max_seconds is {step.max_seconds:g}"


def _awaited(signals: Sequence[Signal]) -> str:
    """The worst decided signal, else the first undecided one, else the last."""
    for phase in (Phase.FAILED, Phase.ERROR, Phase.RUNNING):
        for signal in reversed(signals):
            if signal.phase is phase:
                return signal.message
    return signals[-1].message
