"""`run.json`: what one turn of the wheel did, for people and scripts. Its schema is a public surface."""

from __future__ import annotations

from enum import StrEnum
from typing import Literal

from pydantic import AwareDatetime, Field

from tidewheel.contracts.base import Contract
from tidewheel.contracts.comparison import Metrics, ModelComparison
from tidewheel.contracts.teacher import TeacherChoice
from tidewheel.contracts.training import TrainingReport
from tidewheel.contracts.verdict import Verdict
from tidewheel.contracts.window import Window


class Outcome(StrEnum):
    BOOTSTRAP = "bootstrap"
    PROMOTED = "promoted"
    REJECTED = "rejected"
    ROLLED_BACK = "rolled_back"
    DATA_REJECTED = "data_rejected"
    FAILED = "failed"


class StepFailure(Contract):
    """Why a step did not finish. `kind` is a class of tidewheel.errors, or `Bug`."""

    kind: str
    message: str


class StepRecord(Contract):
    """One step of one run.

    overhead_seconds: the part spent before and after the work: start, imports, manifests. memory_bytes: what its pod had;
    null where it had no limit, as on a laptop. peak_memory_bytes: the most that was in use; null before it ended.
    """

    name: str
    status: Literal["running", "succeeded", "failed", "interrupted"]
    started: AwareDatetime
    seconds: float = 0.0
    overhead_seconds: float = 0.0
    reused: bool = False
    summary: str = ""
    failure: StepFailure | None = None
    memory_bytes: int | None = Field(default=None, gt=0)
    peak_memory_bytes: int | None = Field(default=None, ge=0)

    @property
    def memory(self) -> str:
        """Used of requested, `412 of 2,048 MiB`; `412 MiB` where nothing limited it, `of 2,048 MiB` before it ended."""
        used = "" if self.peak_memory_bytes is None else f"{self.peak_memory_bytes / 2**20:,.0f}"
        asked = "" if self.memory_bytes is None else f"of {self.memory_bytes / 2**20:,.0f}"
        words = " ".join(part for part in (used, asked) if part)
        return f"{words} MiB" if words else ""


class DatasetSummary(Contract):
    digest: str
    rows: int
    weight_sum: float


class Latency(Contract):
    """What a candidate cost in the student's served graph, in requests of `candidates` on one thread.

    `microseconds_per_candidate` is the lower decile of `runs` requests, which a busy machine disturbs least.
    """

    candidates: int = Field(ge=1)
    runs: int = Field(ge=1)
    microseconds_per_candidate: float = Field(gt=0)
    median_microseconds_per_candidate: float = Field(gt=0)


class RunReport(Contract):
    schema_: Literal["tidewheel/run/v1"] = Field(default="tidewheel/run/v1", alias="schema")
    run_id: str
    recipe: str
    recipe_digest: str
    window: Window
    outcome: Outcome
    reason: str
    dry_run: bool = False  # `outcome` is what would have followed: nothing was decided
    steps: tuple[StepRecord, ...]
    datasets: dict[str, DatasetSummary] = {}
    feature_digest: str | None = None  # of the allowlist that the datasets carry; null before they were made
    teacher: str | None = None
    teaching: TeacherChoice | None = None  # why that teacher, and why not the newer ones; null before it was chosen
    training: TrainingReport | None = None  # of the ranker, in the run that trained it; null before that
    bundle: str | None = None
    latency: Latency | None = None  # of the student; null before it was made
    production: str | None = None
    metrics: Metrics = {}
    comparison: ModelComparison | None = None  # null before `evaluate` ended
    verdicts: dict[str, Verdict] = {}
