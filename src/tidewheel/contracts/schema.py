"""The canonical impression table and the features that a model may use.

Every adapter delivers this table and nothing downstream knows which log it came from. One row is one impression:

| column | type | meaning |
| --- | --- | --- |
| row_key | int64 | xxhash64 of (request_id, item_id, event_time): the key of every selection by hash |
| request_id | string | the request that showed the item |
| user_id, item_id, author_id | int64 | ids; author_id is the owner of the item |
| event_time | timestamp[us, UTC] | time of the impression |
| position | int32, null | rank in the request, from 0, where the log has it |
| is_randomized | bool | the order of this request was random |
| propensity | float64, null | probability of what was shown, on randomized rows |
| inclusion_probability | float64 | probability in (0, 1] that the log kept this row |
| label_<name> | int8 | 0 or 1 |
| <feature> | int64, string or float64 | as known before the impression |
| weight | float64 | from `sample` on: 1 / (inclusion_probability x probability kept by the sampler) |
"""

from __future__ import annotations

from enum import StrEnum
from typing import Self

from pydantic import Field, model_validator

from tidewheel.contracts.base import Contract, digest_of

KEY_COLUMNS = (
    "row_key",
    "request_id",
    "user_id",
    "item_id",
    "author_id",
    "event_time",
    "position",
    "is_randomized",
    "propensity",
    "inclusion_probability",
)
WEIGHT = "weight"
LABEL_PREFIX = "label_"


def label_column(label: str) -> str:
    return LABEL_PREFIX + label


class FeatureKind(StrEnum):
    HASHED = "hashed"  # int64 id -> xxhash64 modulo num_buckets
    VOCABULARY = "vocabulary"  # int64 or string -> position in the vocabulary of the training rows; 0 = unseen or null
    NUMERIC = "numeric"  # float64 -> transformed, then standardized with the mean and deviation of the training rows


class Entity(StrEnum):
    """Whose property a feature is. User and context features are sent once a request when serving."""

    USER = "user"
    ITEM = "item"
    CONTEXT = "context"


class FeatureSpec(Contract):
    """One feature. Its numeric id is never given to another feature."""

    id: int = Field(ge=1)
    name: str = Field(pattern=r"^[a-z][a-z0-9_]*$")
    kind: FeatureKind
    entity: Entity
    num_buckets: int = Field(default=0, ge=0)
    transform: str = Field(default="identity", pattern="^(identity|log1p)$")

    @model_validator(mode="after")
    def _has_what_its_kind_needs(self) -> Self:
        if (self.kind is FeatureKind.HASHED) != (self.num_buckets > 0):
            raise ValueError(
                f"feature {self.name} is {self.kind.value}; num_buckets belongs to hashed features, and to all of them"
            )
        if self.kind is not FeatureKind.NUMERIC and self.transform != "identity":
            raise ValueError(f"feature {self.name} is {self.kind.value}; transform belongs to numeric features")
        return self


def feature_digest(features: tuple[FeatureSpec, ...]) -> str:
    """Digest of the allowlist, independent of its order: what data, bundle and server must agree on."""
    return digest_of([f.model_dump(mode="json") for f in sorted(features, key=lambda f: f.id)])
