"""What a canary measured and decided, step by step: enough numbers to redraw every judgement."""

from __future__ import annotations

from enum import StrEnum
from typing import Literal

from pydantic import Field

from tidewheel.contracts.base import Contract
from tidewheel.contracts.verdict import Phase, Reason, Verdict


class Role(StrEnum):
    GUARD = "guard"  # may not get worse by more than its margin
    GOAL = "goal"  # must get better


Better = Literal["higher", "lower", "near"]


class PlannedSignal(Contract):
    """One signal before the canary begins: which way is `better` (`near`: neither), its limit, the level of a proof of harm."""

    name: str
    better: Better
    limit: float
    role: Role
    harm_alpha: float


class Signal(Contract):
    """One judged quantity at one look. `Running` is: neither shown to be within its limit nor shown to be harmful.

    `lower` and `upper` are anytime-valid bounds of `estimate`, each at the level that lets the signal pass; null where
    there is no such bound (nothing seen, not finite).
    """

    name: str
    phase: Phase
    message: str
    estimate: float | None = None
    lower: float | None = None
    upper: float | None = None
    limit: float | None = None
    role: Role = Role.GUARD

    def reason(self, step: int) -> Reason:
        """This signal as a reason of a verdict; `step` counts from 1."""
        return Reason(
            check=f"step {step} {self.name}",
            phase=self.phase,
            message=f"step {step}: {self.message}",
            value=self.estimate,
            limit=self.limit,
        )


class ArmSummary(Contract):
    """What one arm did in one step. `means` are per request: engagement, predicted, actual, loss of a label."""

    requests: int = Field(ge=0)
    errors: int = Field(ge=0)
    users: int = Field(ge=0)
    latency_p50_seconds: float | None
    latency_p95_seconds: float | None
    means: dict[str, float]


class ArmBatch(Contract):
    """What one arm did in one batch: `latencies` of its answers in seconds, and one value for each of N answered requests whose
    outcome is known; `rollout.evidence.ArmEvidence` says what each means. Features without a missing value are left out."""

    requests: int = Field(ge=0)
    errors: int = Field(ge=0)
    latencies: tuple[float, ...]
    users: tuple[int, ...]
    engagement: tuple[float, ...]
    predicted: tuple[float, ...]
    actual: tuple[float, ...]
    impressions: tuple[float, ...]
    scored: tuple[float, ...]
    expected: tuple[float, ...]
    losses: dict[str, tuple[float, ...]] = {}
    missing: dict[str, tuple[float, ...]] = {}


class CanaryBatch(Contract):
    """What was seen between two looks: the only thing that a canary's end depends on.

    `seconds` are of the traffic's own time, `took_seconds` of the clock on the wall. `fault`: the measurement broke, and both
    arms are empty; `is_fatal`: it will not work again. `is_last`: the traffic has ended.
    """

    taken: int = Field(ge=0)  # requests of compared users
    seconds: float = Field(ge=0)
    took_seconds: float = Field(ge=0)
    candidate: ArmBatch | None
    control: ArmBatch | None
    is_last: bool = False
    fault: str = ""
    is_fatal: bool = False


class CanaryRecord(Contract):
    """One line of a canary's journal: a batch, or (null) that `controller` took the lead."""

    schema_: Literal["tidewheel/canary-record/v1"] = Field(default="tidewheel/canary-record/v1", alias="schema")
    number: int = Field(ge=1)
    controller: str
    batch: CanaryBatch | None


class StepResult(Contract):
    """One step of a canary as it ended. `looks` is how often the sequential test looked, `seconds` on the wall."""

    number: int = Field(ge=1)
    share: float
    phase: Phase
    looks: int = Field(ge=0)
    seconds: float = Field(ge=0)
    candidate: ArmSummary
    control: ArmSummary | None  # null in the first release: there is nothing to compare with
    signals: tuple[Signal, ...]


class CanaryResult(Contract):
    """The whole canary: only the `Successful` verdict of all steps lets the candidate become production.

    `requests` are those that were compared; `exposure` is the candidate's share of all that users made meanwhile.
    """

    verdict: Verdict
    steps: tuple[StepResult, ...]
    requests: int = Field(ge=0)
    exposure: float = Field(ge=0, le=1)
    seconds: float = Field(ge=0)


class PlannedStep(Contract):
    """One step of a canary before it begins. Requests are of all users until the step must have ended.

    `candidate_requests` of them reach the candidate at most: `max_requests`, and the batch in which that is noticed.
    `exposure` is the share of all requests since the canary began that reached the candidate by then.
    """

    number: int = Field(ge=1)
    share: float
    min_requests: int
    min_events: int
    min_seconds: float
    max_seconds: float
    candidate_requests: int
    requests: int
    exposure: float
    seconds: float | None = None  # by when it must have ended; null where the traffic is not known


class RolloutPlan(Contract):
    """Who sees a candidate that no signal convicts before the last step ends: the worst that the plan allows.

    `first_look` is how many requests of both arms pass before a harm can be seen at all.
    """

    recipe: str
    alpha: float
    signals: tuple[PlannedSignal, ...]
    steps: tuple[PlannedStep, ...]
    first_look: int
    candidate_requests: int
    requests: int
    exposure: float
