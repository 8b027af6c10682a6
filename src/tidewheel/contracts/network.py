"""The shape of a ranker or student, see docs/model.md."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Self

from pydantic import Field, model_validator

from tidewheel.contracts.base import Contract
from tidewheel.contracts.schema import Entity, FeatureSpec

# Fields that say nothing unless their choice is made: (field, choice, made by).
BELONGS_TO = (("task_experts", "mixture", "ple"), ("levels", "mixture", "ple"), ("context_width", "context", "epnet"))


class NetworkConfig(Contract):
    """The blocks of the network and their sizes, see tidewheel.ranker.model.

    `cross`: `stacked`, the experts read what the cross layers made; `parallel`, both read the input and the heads read both.
    `mixture`: `mmoe`, `experts` that all labels share; `ple`, `levels` of extraction, each with `experts` that all labels
    share and `task_experts` of each label's own. `hidden` are the layers of an expert, at every level.
    `sequence_hidden` are the hidden units with which a candidate weighs the items of each sequence; in training the items of
    the last `time_mask_hours` at most are hidden, 0: none. Without a feature of kind sequence neither says anything.
    `context`: `epnet`, a gate of `context_width` hidden units scales all columns that are not of context features, by 0 to 2.
    """

    embedding_dim: int = Field(default=8, ge=1)
    cross: Literal["stacked", "parallel"] = "stacked"
    cross_layers: int = Field(default=2, ge=0)
    cross_rank: int = Field(default=32, ge=1)
    mixture: Literal["mmoe", "ple"] = "mmoe"
    experts: int = Field(default=3, ge=1)
    task_experts: int = Field(default=1, ge=1)
    levels: int = Field(default=2, ge=1)
    hidden: tuple[int, ...] = (128, 64)
    dropout: float = Field(default=0.1, ge=0, lt=1)
    context: Literal["none", "epnet"] = "none"
    context_width: int = Field(default=32, ge=1)
    sequence_hidden: int = Field(default=32, ge=1)
    time_mask_hours: float = Field(default=0.0, ge=0)

    @model_validator(mode="after")
    def _sizes_belong_to_blocks(self) -> Self:
        for field, choice, made in BELONGS_TO:
            value, chosen = getattr(self, field), getattr(self, choice)
            if chosen != made and value != type(self).model_fields[field].default:
                raise ValueError(f"{field} is {value} and {choice} is {chosen}; expected {choice} {made}, or no {field}")
        if self.cross == "parallel" and not self.cross_layers:
            raise ValueError("cross is parallel and cross_layers is 0; expected at least 1 cross layer, or cross stacked")
        if not self.hidden and (self.mixture == "ple" or self.experts > 1):
            raise ValueError(
                f"hidden is empty with mixture {self.mixture} and experts {self.experts}; expected the widths of an expert's "
                "layers, or mixture mmoe with experts 1"
            )
        return self


def context_fault(network: NetworkConfig, features: Sequence[FeatureSpec]) -> str | None:
    """Why these features, of which some must be context for a network with a context branch, do not fit it; or None."""
    num_context = sum(feature.entity is Entity.CONTEXT for feature in features)
    if network.context == "none" or 0 < num_context < len(features):
        return None
    return (
        f"context is {network.context}; {num_context} of {len(features)} features have entity context, "
        "expected some and not all. Add one, or use none"
    )
