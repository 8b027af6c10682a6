"""How a training went, for people and for `run.json`."""

from __future__ import annotations

from pydantic import Field

from tidewheel.contracts.base import Contract


class Stall(Contract):
    """A step of training that took long: where each thread was at that moment, outermost call first."""

    step: int
    seconds: float
    stacks: dict[str, str]


class TrainingReport(Contract):
    """How the training of the ranker went. Rates are of this machine and this try; `resumed_at` is the step it went on from.

    `data_wait_share` is the part of the time in which the loop waited for its next batch.
    """

    rows: int = Field(ge=0)
    steps: int = Field(ge=0)
    resumed_at: int = Field(default=0, ge=0)
    loss: float
    seconds: float = Field(ge=0)
    rows_per_second: float = Field(ge=0)
    data_wait_share: float = Field(ge=0, le=1)
    median_step_seconds: float = Field(ge=0)
    stalls: tuple[Stall, ...] = ()
    notes: tuple[str, ...] = ()
