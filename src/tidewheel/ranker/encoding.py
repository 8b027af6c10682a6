"""Raw feature columns to the two tensors that every graph takes: `ids` (B, F_c + S) int64 and `numbers` (B, F_n + S) float32.

One implementation for training, evaluation and serving: what a feature means may not depend on who asks.
B rows, F_c categorical features (hashed and vocabulary), F_n numeric columns (features, then null indicators), S the lengths of
all sequences together: their items and ages are the last columns.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
from pydantic import Field, PrivateAttr

from tidewheel.contracts.base import Contract
from tidewheel.contracts.schema import DType, FeatureKind, FeatureSpec, feature_columns
from tidewheel.contracts.student import student_features
from tidewheel.errors import ContractError
from tidewheel.ranker.columns import Coded, Columns
from tidewheel.ranker.padding import items_and_ages

CLIP = 6.0  # standardized numbers are cut here: one broken row may not dominate a dot product


class Moments(Contract):
    """Weighted mean and deviation of a numeric feature after its transform, and whether training rows had nulls."""

    mean: float
    deviation: float = Field(gt=0)
    has_nulls: bool


class SequenceColumns(Contract):
    """Where a sequence stands: `length` columns of `ids` from `first_id` on, and as many of `numbers` from `first_number` on.

    `of` is the column of `ids` of the feature whose values these are: its size, its embeddings.
    """

    name: str
    of: int = Field(ge=0)
    length: int = Field(ge=1)
    first_id: int = Field(ge=0)
    first_number: int = Field(ge=0)


@dataclass(frozen=True)
class Encoded:
    """What a graph takes: `ids` (B, F_c + S) int64, each below its feature's size, and `numbers` (B, F_n + S) float32."""

    ids: np.ndarray
    numbers: np.ndarray

    def __len__(self) -> int:
        return len(self.ids)


class Encoders(Contract):
    """Everything that turns raw columns into tensors, learned from the training rows.

    hashed: 0 = null, else 1 + splitmix64(id) modulo num_buckets. vocabulary: 0 = null or unseen, else 1 + position.
    numeric: transformed, standardized, cut at +-6; null is 0 (the mean) and sets the feature's indicator if it has one.
    sequence: ids like those of the feature that it is of, 0 = no item; numbers log(1 + age in hours), 0 where no item is.
    """

    schema_: Literal["tidewheel/encoders/v1"] = Field(default="tidewheel/encoders/v1", alias="schema")
    features: tuple[FeatureSpec, ...]
    vocabularies: dict[str, tuple[str, ...]]
    moments: dict[str, Moments]

    _lookups: dict[str, dict[Any, int]] = PrivateAttr(default_factory=dict)

    @cached_property
    def categorical(self) -> tuple[FeatureSpec, ...]:
        """The features behind the first columns of `ids`, in order."""
        return tuple(f for f in self.features if f.kind in (FeatureKind.HASHED, FeatureKind.VOCABULARY))

    @cached_property
    def numeric(self) -> tuple[FeatureSpec, ...]:
        """The features behind the first columns of `numbers`, in order."""
        return tuple(f for f in self.features if f.kind is FeatureKind.NUMERIC)

    @cached_property
    def indicators(self) -> tuple[str, ...]:
        """Numeric features whose null indicators are the next columns of `numbers`, in order."""
        return tuple(f.name for f in self.numeric if self.moments[f.name].has_nulls)

    @cached_property
    def sequences(self) -> tuple[SequenceColumns, ...]:
        """Where the sequences stand, in order: the last columns of `ids` and of `numbers`."""
        of = {feature.name: at for at, feature in enumerate(self.categorical)}
        found: list[SequenceColumns] = []
        for feature in (f for f in self.features if f.is_sequence):
            before = sum(sequence.length for sequence in found)
            found.append(
                SequenceColumns(
                    name=feature.name,
                    of=of[feature.of],
                    length=feature.length,
                    first_id=len(self.categorical) + before,
                    first_number=self.num_numbers + before,
                )
            )
        return tuple(found)

    @cached_property
    def sizes(self) -> tuple[int, ...]:
        """(F_c) number of different ids of each categorical feature, id 0 included."""
        hashed = FeatureKind.HASHED
        return tuple(1 + (f.num_buckets if f.kind is hashed else len(self.vocabularies[f.name])) for f in self.categorical)

    @property
    def num_numbers(self) -> int:
        """F_n."""
        return len(self.numeric) + len(self.indicators)

    @property
    def widths(self) -> tuple[int, int]:
        """How many columns `ids` and `numbers` have, sequences included: F_c + S, F_n + S."""
        items = sum(sequence.length for sequence in self.sequences)
        return len(self.categorical) + items, self.num_numbers + items

    def without(self, names: Iterable[str]) -> Encoders:
        """These encoders of all features but `names`; what they learned stays."""
        kept = student_features(self.features, names)
        own = {feature.name for feature in kept}
        return Encoders(
            features=kept,
            vocabularies={name: found for name, found in self.vocabularies.items() if name in own},
            moments={name: found for name, found in self.moments.items() if name in own},
        )

    def encode(self, columns: Columns) -> Encoded:
        """Encode raw columns of length B or 1; those of length 1 hold for all B rows.

        Raises:
            ContractError: a feature's column is missing, has another length or a type that its kind cannot take.
        """
        names = feature_columns(self.features)
        if missing := sorted(set(names) - set(columns)):
            raise ContractError(f"features: column {', '.join(missing)} is missing; expected {', '.join(names)}")
        lengths = {name: len(columns[name]) for name in names}
        rows = next((n for n in lengths.values() if n != 1), 1)
        if wrong := [f"{name} has {n}" for name, n in lengths.items() if n not in (1, rows)]:
            raise ContractError(f"features: {', '.join(wrong)} values; expected {rows} like the other columns, or 1")
        num_ids, num_numbers = self.widths
        ids = np.empty((rows, num_ids), dtype=np.int64)
        for at, feature in enumerate(self.categorical):
            ids[:, at] = self._ids(feature, columns[feature.name])
        numbers = np.zeros((rows, num_numbers), dtype=np.float32)
        indicator = {name: len(self.numeric) + at for at, name in enumerate(self.indicators)}
        for at, feature in enumerate(self.numeric):
            moments = self.moments[feature.name]
            values = transformed(feature, np.asarray(columns[feature.name]))
            is_null = np.isnan(values)
            standard = np.clip((values - moments.mean) / moments.deviation, -CLIP, CLIP)
            numbers[:, at] = np.where(is_null, 0.0, standard)
            if feature.name in indicator:
                numbers[:, indicator[feature.name]] = is_null
        for place in self.sequences:
            self._put_sequence(place, columns, ids, numbers)
        return Encoded(ids=ids, numbers=numbers)

    def _put_sequence(self, place: SequenceColumns, columns: Columns, ids: np.ndarray, numbers: np.ndarray) -> None:
        """Write one sequence into its columns of `ids` (B, F_c + S) and `numbers` (B, F_n + S)."""
        feature = next(feature for feature in self.features if feature.name == place.name)
        items, ages = items_and_ages({name: np.asarray(columns[name]) for name in feature.columns}, feature)
        found = self._ids(self.categorical[place.of], items.ravel()).reshape(items.shape) * (ages >= 0)
        logs = np.where(found > 0, np.log1p(np.maximum(ages, 0)), 0.0)
        behind = ((0, 0), (0, place.length - items.shape[1]))
        ids[:, place.first_id : place.first_id + place.length] = np.pad(found, behind)
        numbers[:, place.first_number : place.first_number + place.length] = np.pad(logs, behind)

    def _ids(self, feature: FeatureSpec, values: np.ndarray | Coded) -> np.ndarray:
        if feature.kind is FeatureKind.HASHED:
            keys, is_null = _integers(feature, np.asarray(values))
            if feature.dtype is DType.INT32:
                is_null = is_null | ~_fits(feature.dtype, keys)
            bucket = splitmix64(keys) % np.uint64(feature.num_buckets)
            return np.where(is_null, 0, 1 + bucket.astype(np.int64))
        lookup = self._lookups.get(feature.name)
        if lookup is None:
            lookup = {text: at for at, text in enumerate(self.vocabularies[feature.name], start=1)}
            self._lookups[feature.name] = lookup
        return _looked_up(values, lookup)


def splitmix64(keys: np.ndarray) -> np.ndarray:
    """Mix int64 keys into uniform uint64 (Steele, Lea, Flood 2014, finalizer of SplittableRandom)."""
    with np.errstate(over="ignore"):
        mixed = keys.astype(np.int64).view(np.uint64) + np.uint64(0x9E3779B97F4A7C15)
        mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return mixed ^ (mixed >> np.uint64(31))


def transformed(feature: FeatureSpec, values: np.ndarray) -> np.ndarray:
    """Values of a numeric feature after its transform, float64 with NaN for null; log1p takes negative values as 0.

    A value that does not fit in the feature's type is null, as ingest would have made it.

    Raises:
        ContractError: the values are not numbers.
    """
    try:
        numbers = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ContractError(f"feature {feature.name} is numeric; found {np.asarray(values).dtype} values ({error})") from error
    numbers = np.where(_fits(feature.dtype, numbers), numbers, np.nan)
    return np.log1p(np.maximum(numbers, 0.0)) if feature.transform == "log1p" else numbers


def _fits(dtype: DType, numbers: np.ndarray) -> np.ndarray:
    """(B,) whether the type holds each number; NaN and infinities are never held."""
    finite = np.isfinite(numbers)
    if dtype is DType.FLOAT32:
        return finite & (np.abs(numbers) <= np.finfo(np.float32).max)
    if not dtype.is_integer:
        return finite
    bits = 31 if dtype is DType.INT32 else 63
    return finite & (numbers >= -(2.0**bits)) & (numbers < 2.0**bits) & (numbers == np.floor(numbers))


def _integers(feature: FeatureSpec, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """int64 keys and where they are null."""
    if values.dtype.kind in "iu":
        return values.astype(np.int64), np.zeros(len(values), dtype=bool)
    if values.dtype.kind == "O":
        is_null = np.fromiter((value is None for value in values), dtype=bool, count=len(values))
        try:
            return np.where(is_null, 0, values).astype(np.int64), is_null
        except (TypeError, ValueError) as error:
            raise ContractError(f"feature {feature.name} is hashed; expected int64 ids ({error})") from error
    raise ContractError(f"feature {feature.name} is hashed; found {values.dtype} values, expected int64 ids")


def vocabulary_name(value: object) -> str:
    """A vocabulary's name for a value; empty for null. 3, 3.0 and "3" have one name."""
    if value is None or value != value:
        return ""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)


def _looked_up(column: np.ndarray | Coded, lookup: Mapping[str, int]) -> np.ndarray:
    of: Callable[[str, int], int] = lookup.get
    if isinstance(column, Coded):
        return np.array([of(vocabulary_name(value), 0) for value in column.values], dtype=np.int64)[column.codes]
    values = np.asarray(column)
    if values.dtype.kind in "iuf" and len(values) > 64:  # few different numbers: name each only once
        distinct, position = np.unique(values, return_inverse=True)
        return _looked_up(Coded(position, distinct.tolist()), lookup)
    found = (of(value if type(value) is str else vocabulary_name(value), 0) for value in values.tolist())
    return np.fromiter(found, dtype=np.int64, count=len(values))
