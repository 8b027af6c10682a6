"""What the student has to show before it may be tried: the section `evaluate` of a recipe."""

from __future__ import annotations

from enum import StrEnum
from typing import Literal, Self

from pydantic import Field, PositiveFloat, model_validator

from tidewheel.contracts.base import Contract


class Compared(StrEnum):
    """Metrics of two models on the same rows."""

    AUC = "auc"
    REQUEST_AUC = "request_auc"
    LOGLOSS = "logloss"
    NORMALIZED_ENTROPY = "normalized_entropy"
    NDCG = "ndcg"

    @property
    def is_better_when_higher(self) -> bool:
        return self not in (Compared.LOGLOSS, Compared.NORMALIZED_ENTROPY)


class ClaimKind(StrEnum):
    """What has to be proven of the student against production, in the better direction of the metric."""

    NON_INFERIOR = "non_inferior"  # not worse by the margin
    SUPERIOR = "superior"  # better by more than the margin
    EQUIVALENT = "equivalent"  # neither worse nor better by the margin


class Claim(Contract):
    """One comparison with production that has to be proven, of `labels`, or of every gated label where none is named."""

    metric: Compared
    kind: ClaimKind = ClaimKind.NON_INFERIOR
    margin: float = Field(ge=0)
    labels: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _can_be_proven(self) -> Self:
        if self.margin == 0 and self.kind is not ClaimKind.SUPERIOR:
            raise ValueError(f"margin of {self.kind.value} is 0: no number of rows could prove it; expected one above 0")
        return self


class EvaluateConfig(Contract):
    """Gates of the candidate on the gated labels.

    Against production every claim has to be proven. In slices nothing has to be proven, but no slice may be proven worse by
    `max_slice_drop` of a metric. `slice_control`: among all slices and labels of a metric any is accused falsely in at most
    2.5% of runs (`holm`), or at most 2.5% of those accused are so falsely (`bh`).

    A label with fewer than `min_positives` rows on either side is too rare to judge: Inconclusive, unless not gated.

    `top` is how many places of a request count, for NDCG, churn and replay. `replay: required`: on requests whose order was
    random, what the student puts there must be shown to earn at most `max_replay_drop` (relative) less than what production
    does, and no row may have been shown with less than `min_propensity`; `reported` lets students pass without.
    `min_rank_agreement`: Kendall's tau with production within requests, which may only be proven lower where the student is
    proven better. `releases`: as many productions before the present one are compared with, too, so that many small losses do
    not add up.
    """

    min_positives: int = Field(default=50, ge=1)
    min_auc: dict[str, float] = {}
    max_calibration_error: float = Field(default=0.1, gt=0)  # |predicted / actual - 1|, its nearest bound
    max_ece: float = Field(default=0.05, gt=0)
    claims: tuple[Claim, ...] = (
        Claim(metric=Compared.AUC, margin=0.01),
        Claim(metric=Compared.LOGLOSS, margin=0.01),
    )
    slices: tuple[str, ...] = ()
    max_slice_drop: dict[Compared, PositiveFloat] = {Compared.AUC: 0.03}
    slice_control: str = Field(default="holm", pattern="^(holm|bh)$")
    top: int = Field(default=3, ge=1)
    replay: Literal["required", "reported"] = "required"
    max_replay_drop: float = Field(default=0.05, gt=0, lt=1)
    min_propensity: float = Field(default=1e-6, gt=0, le=1)
    min_rank_agreement: float = Field(default=0.3, gt=-1, lt=1)
    releases: int = Field(default=3, ge=0, le=20)

    @model_validator(mode="after")
    def _claims_differ(self) -> Self:
        keys = [(claim.metric, claim.kind, claim.labels) for claim in self.claims]
        if repeated := sorted({f"{metric} {kind}" for metric, kind, labels in keys if keys.count((metric, kind, labels)) > 1}):
            raise ValueError(f"claims has {repeated[0]} twice for the same labels")
        return self
