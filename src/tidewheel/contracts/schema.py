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
| <feature> | its `dtype` | as known before the impression; null where the log's value does not fit in its type |
| <sequence> | list of int64 | what the user engaged with before the day, newest first: docs/sequences.md |
| <sequence>_age_hours | list of int32 | how long before the start of that day |
| weight | float64 | from `sample` on: 1 / (inclusion_probability x probability kept by the sampler) |
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from typing import Any, Self

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

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
AGES_SUFFIX = "_age_hours"
MAX_SEQUENCE_LENGTH = 512


def label_column(label: str) -> str:
    return LABEL_PREFIX + label


class FeatureKind(StrEnum):
    HASHED = "hashed"  # an integer id -> hashed modulo num_buckets
    VOCABULARY = "vocabulary"  # integer or text -> position in the vocabulary of the training rows; 0 = unseen or null
    NUMERIC = "numeric"  # number -> transformed, then standardized with the mean and deviation of the training rows
    SEQUENCE = "sequence"  # what a user engaged with lately: values of a hashed feature, newest first, with their ages


class DType(StrEnum):
    """How a feature's column is stored and sent. What does not fit in it is null."""

    INT32 = "int32"
    INT64 = "int64"
    FLOAT32 = "float32"
    FLOAT64 = "float64"
    STRING = "string"

    @property
    def is_integer(self) -> bool:
        return self in (DType.INT32, DType.INT64)


# Kind -> the types that it may be stored in, the default first.
DTYPES = {
    FeatureKind.HASHED: (DType.INT64, DType.INT32),
    FeatureKind.VOCABULARY: (DType.STRING, DType.INT64, DType.INT32),
    FeatureKind.NUMERIC: (DType.FLOAT64, DType.FLOAT32, DType.INT64, DType.INT32),
    FeatureKind.SEQUENCE: (DType.INT64,),  # of its items
}
OF_SEQUENCES = ("of", "label", "length")


class Entity(StrEnum):
    """Whose property a feature is. User and context features are sent once a request when serving."""

    USER = "user"
    ITEM = "item"
    CONTEXT = "context"


def _default_dtype(given: dict[str, Any]) -> DType:
    return DTYPES[given["kind"]][0]


class FeatureSpec(Contract):
    """One feature. Its numeric id is never given to another feature, see tidewheel.contracts.schema_changes.

    `dtype` defaults to int64 (hashed, sequence), string (vocabulary) or float64 (numeric). A `deprecated` feature is listed so
    that its id stays taken; no model is trained on it.

    A sequence holds the values of the hashed item feature `of` in the user's last `length` impressions with `label` = 1, as
    known before the impression's day; an empty `label` means every impression of the log. See docs/sequences.md.
    """

    id: int = Field(ge=1)
    name: str = Field(pattern=r"^[a-z][a-z0-9_]*$")
    kind: FeatureKind
    entity: Entity
    dtype: DType = Field(default_factory=_default_dtype)
    num_buckets: int = Field(default=0, ge=0)
    transform: str = Field(default="identity", pattern="^(identity|log1p)$")
    deprecated: bool = False
    of: str = ""
    label: str = ""
    length: int = Field(default=0, ge=0, le=MAX_SEQUENCE_LENGTH)

    @property
    def is_sequence(self) -> bool:
        return self.kind is FeatureKind.SEQUENCE

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that it has in a table and in a request: its own, and of a sequence the ages in hours as well."""
        return (self.name, self.name + AGES_SUFFIX) if self.is_sequence else (self.name,)

    @model_serializer(mode="wrap")
    def _without_what_only_sequences_have(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Digests of feature sets, which bundles and datasets carry, do not change because there is one more kind."""
        found: dict[str, Any] = serialize(self)
        return found if self.is_sequence else {name: value for name, value in found.items() if name not in OF_SEQUENCES}

    @model_validator(mode="after")
    def _has_what_its_kind_needs(self) -> Self:
        if (self.kind is FeatureKind.HASHED) != (self.num_buckets > 0):
            raise ValueError(
                f"feature {self.name} is {self.kind.value}; num_buckets belongs to hashed features, and to all of them"
            )
        if self.kind is not FeatureKind.NUMERIC and self.transform != "identity":
            raise ValueError(f"feature {self.name} is {self.kind.value}; transform belongs to numeric features")
        if self.dtype not in (allowed := DTYPES[self.kind]):
            raise ValueError(
                f"feature {self.name} is {self.kind.value} and {self.dtype.value}; expected dtype {', '.join(allowed)}"
            )
        if not self.is_sequence and (given := [name for name in OF_SEQUENCES if getattr(self, name)]):
            raise ValueError(f"feature {self.name} is {self.kind.value}; {', '.join(given)} belongs to sequences")
        if self.is_sequence and (self.entity is not Entity.USER or not self.of or not self.length):
            raise ValueError(
                f"feature {self.name} is a sequence of entity {self.entity.value}, of '{self.of}', length {self.length}; "
                "expected entity user, of a hashed feature, and a length of at least 1"
            )
        return self


def active(features: Iterable[FeatureSpec]) -> tuple[FeatureSpec, ...]:
    """The features that a model may use, in their order: the allowlist."""
    return tuple(feature for feature in features if not feature.deprecated)


def feature_columns(features: Iterable[FeatureSpec]) -> tuple[str, ...]:
    """The columns of some features in a table, in their order."""
    return tuple(column for feature in features for column in feature.columns)


def feature_digest(features: Iterable[FeatureSpec]) -> str:
    """Digest of the allowlist, independent of its order: what data, bundle and server must agree on."""
    return digest_of([f.model_dump(mode="json") for f in sorted(active(features), key=lambda f: f.id)])
