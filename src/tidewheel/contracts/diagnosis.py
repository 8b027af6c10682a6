"""Why a bundle behaves otherwise online than its evaluation said: what `tidewheel diagnose` finds. docs/diagnose.md."""

from __future__ import annotations

from enum import StrEnum
from typing import Literal

from pydantic import Field

from tidewheel.contracts.base import Contract
from tidewheel.contracts.comparison import Estimate
from tidewheel.contracts.window import Window


class CauseKind(StrEnum):
    """What can make a released bundle worse, or better, than it was offline."""

    COVERAGE = "coverage"  # a feature was not there when rows were scored
    VALUE_DRIFT = "value_drift"  # a feature was served with other values: another unit, shifted, another row's
    STALENESS = "staleness"  # a feature was served as it had been days before
    CALIBRATION = "calibration"  # served: another calibrator; outcomes: the same scores mean something else now
    TRAFFIC_MIX = "traffic_mix"  # other users or contexts than in the evaluation
    POSITION = "position"  # what is at a place of the list is looked at more or less than it was
    SELECTION = "selection"  # the bundle shows what it overrates: lists in random order do not have the gap
    UNKNOWN_SCORES = "unknown_scores"  # served scores are not this bundle's, and no feature explains it

    @property
    def is_of_serving(self) -> bool:
        """The served score of a row is not that of the bundle on the row's features."""
        return self in (CauseKind.COVERAGE, CauseKind.VALUE_DRIFT, CauseKind.STALENESS, CauseKind.UNKNOWN_SCORES)


class Finding(StrEnum):
    NOTHING = "nothing to explain"
    EXPLAINED = "explained"
    INCONCLUSIVE = "Inconclusive"


class Term(Contract):
    """One step of the way from the log-loss offline to that online, in nats per impression; the steps add up to it."""

    name: str
    log_loss: Estimate


class Cause(Contract):
    """What it is, and by how much it moved the log-loss of the served scores, in nats per impression.

    `features` of the model, or the column of the mix; `rows_share` is the weighted share of impressions that it touches.
    `detail` tells kinds of a kind apart: null, zero, times 100, 3 days, served, outcomes.
    """

    kind: CauseKind
    features: tuple[str, ...] = ()
    detail: str = ""
    rows_share: float = Field(ge=0, le=1)
    log_loss: Estimate
    sentence: str


class Behaviour(Contract):
    """How scores did on some rows."""

    rows: int
    base_rate: Estimate
    predicted_to_actual: Estimate
    log_loss: Estimate
    auc: Estimate


class Places(Contract):
    """Actual / predicted at one position, from 0: `offline` in the evaluation, `online` since."""

    position: int
    offline: Estimate
    online: Estimate


class Joined(Contract):
    """What became of the impressions of the window.

    Attributes:
        impressions: canonical rows of the window.
        of_bundle: those that the bundle served.
        joined: of these with a served score of the label; only they are looked at.
        randomized: of the joined ones, from lists in random order.
        served_differently: share of the joined ones whose served score is not the re-scored one.
    """

    impressions: int
    of_bundle: int
    joined: int
    randomized: int = 0
    served_differently: float = Field(default=0.0, ge=0, le=1)


class Diagnosis(Contract):
    """`causes` are ranked: the one that moved the log-loss most is first. Intervals are 95%, over users."""

    schema_: Literal["tidewheel/diagnosis/v1"] = Field(default="tidewheel/diagnosis/v1", alias="schema")
    recipe: str
    label: str
    window: Window
    bundle: str
    run_id: str  # that released the bundle; its held-out rows are the reference
    finding: Finding
    message: str
    joined: Joined
    offline: Behaviour | None = None  # the bundle on the held-out rows of its run
    rescored: Behaviour | None = None  # the bundle on the joined rows
    served: Behaviour | None = None  # what was served of them
    causes: tuple[Cause, ...] = ()
    terms: tuple[Term, ...] = ()
    places: tuple[Places, ...] = ()
