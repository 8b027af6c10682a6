"""The holdout experiment: after a release some users keep the bundle before it, so that harm that comes late is seen."""

from __future__ import annotations

from datetime import date
from typing import Literal, Self

from pydantic import AwareDatetime, Field, model_validator

from tidewheel.contracts.assignment import Assignment, Share
from tidewheel.contracts.base import Contract
from tidewheel.contracts.rollout import Signal
from tidewheel.contracts.verdict import Verdict


class HoldoutConfig(Contract):
    """A `share` of users keeps the previous production while the new one is watched for `horizon_days`.

    Each period of `period_days` opens a question of its own: what of `goal_label` the new production earns a request since
    then, against the held-out users. `alpha` is for all questions and all looks of one experiment together: the chance that a
    harmless production is taken back. A drop proven smaller than `max_drop` (relative) is harmless.
    """

    share: float = Field(default=0.1, gt=0, le=0.5)
    horizon_days: int = Field(default=21, ge=1)
    period_days: int = Field(default=7, ge=1)
    goal_label: str = "click"
    max_drop: float = Field(default=0.05, gt=0, lt=1)
    alpha: float = Field(default=0.05, gt=0, lt=0.5)

    @model_validator(mode="after")
    def _a_period_fits_the_horizon(self) -> Self:
        if self.period_days > self.horizon_days:
            raise ValueError(f"period_days is {self.period_days} of {self.horizon_days} days; expected at most the horizon")
        return self

    @property
    def num_periods(self) -> int:
        return -(-self.horizon_days // self.period_days)


class Experiment(Contract):
    """One version of the holdout, made by the ledger entry `number` that published `new`; its rules never change.

    `begins` is in the log's time. Another `salt` holds out other users each time.
    """

    number: int = Field(ge=1)
    new: str
    previous: str
    salt: int = Field(ge=0, lt=2**64)
    begins: AwareDatetime
    rules: HoldoutConfig

    def assignment(self, recipe: str, number: int) -> Assignment:
        """Who is served by which arm; `number` is that of the ledger entry that the record follows from."""
        held_out = self.rules.share
        shares = (Share(bundle=self.previous, share=held_out), Share(bundle=self.new, share=1.0 - held_out))
        return Assignment(recipe=recipe, number=number, salt=self.salt, shares=shares)


class ExperimentReport(Contract):
    """What an experiment shows at one look.

    `first_day` is the first on which both arms served their users, null before; `days` of `rules.horizon_days` have been seen
    with all their labels, `skipped_days` of them did not count. `periods` are the periods by themselves; `signals` decide, each
    from the beginning of a period on; `trend` is by how much the effect changes from one period to the next.
    """

    schema_: Literal["tidewheel/experiment/v1"] = Field(default="tidewheel/experiment/v1", alias="schema")
    recipe: str
    experiment: Experiment
    first_day: date | None = None
    days: int = Field(default=0, ge=0)
    skipped_days: int = Field(default=0, ge=0)
    periods: tuple[Signal, ...] = ()
    signals: tuple[Signal, ...] = ()
    trend: Signal | None = None
    verdict: Verdict
    ledger_number: int | None = None  # of the entry that took the new production back, or concluded the experiment
