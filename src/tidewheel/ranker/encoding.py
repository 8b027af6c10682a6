"""Raw feature columns to the two tensors that every graph takes: `ids` (B, F_c + S) int64 and `numbers` (B, F_n + S) float32.

One implementation for training, evaluation and serving: what a feature means may not depend on who asks.
B rows, F_c categorical features (hashed and vocabulary), F_n numeric columns (features, then null indicators), S the lengths of
all sequences together: their items and ages are the last columns.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import repeat
from typing import Any, Literal, NamedTuple, Self

import numpy as np
from pydantic import Field, PrivateAttr

from tidewheel.contracts.base import Contract
from tidewheel.contracts.schema import DType, FeatureKind, FeatureSpec, feature_columns
from tidewheel.contracts.student import student_features
from tidewheel.errors import ContractError
from tidewheel.ranker.columns import Coded, Columns
from tidewheel.ranker.padding import items_and_ages

BLOCK_ROWS = 1024  # encoded at once: what is computed in between stays in a core's cache
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

    @cached_property
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
        rows = self._rows(columns)
        num_ids, num_numbers = self.widths
        ids = np.empty((rows, num_ids), dtype=np.int64)
        numbers = np.zeros((rows, num_numbers), dtype=np.float32)
        for at, feature in enumerate(self.categorical):
            if feature.kind is FeatureKind.VOCABULARY:
                ids[:, at] = _looked_up(columns[feature.name], self._lookup(feature.name))
        hashed = [np.asarray(columns[feature.name]) for feature in self._hashed.features]
        numeric = [np.asarray(columns[feature.name]) for feature in self.numeric]
        for start in range(0, rows, BLOCK_ROWS):
            part = slice(start, min(start + BLOCK_ROWS, rows))
            self._put_hashed(hashed, part, ids[part])
            self._put_numeric(numeric, part, numbers[part])
        for place in self.sequences:
            self._put_sequence(place, columns, ids, numbers)
        return Encoded(ids=ids, numbers=numbers)

    def _rows(self, columns: Columns) -> int:
        """B, the length of all columns that have not 1."""
        names = self._names
        if missing := [name for name in names if name not in columns]:
            raise ContractError(f"features: column {', '.join(sorted(missing))} is missing; expected {', '.join(names)}")
        found = {len(columns[name]) for name in names} - {1}
        if len(found) > 1:
            lengths = {name: len(columns[name]) for name in names}
            rows = next(n for n in lengths.values() if n != 1)
            wrong = [f"{name} has {n}" for name, n in lengths.items() if n not in (1, rows)]
            raise ContractError(f"features: {', '.join(wrong)} values; expected {rows} like the other columns, or 1")
        return found.pop() if found else 1

    def _put_hashed(self, columns: Sequence[np.ndarray], part: slice, ids: np.ndarray) -> None:
        """Write the rows `part` of the hashed features' columns into theirs of `ids` (b, F_c + S)."""
        features, buckets, at = self._hashed
        if features:
            ids[:, at] = _buckets(features, buckets, [_part(column, part) for column in columns], len(ids)).T

    def _put_numeric(self, columns: Sequence[np.ndarray], part: slice, numbers: np.ndarray) -> None:
        """Write the rows `part` of the numeric features' columns, and what is null, into `numbers` (b, F_n + S)."""
        values = np.empty((len(self.numeric), len(numbers)))
        for row, feature, column in zip(values, self.numeric, columns, strict=True):
            _put_numbers(feature, _part(column, part), row)
        is_null = _transform(self._numeric_rows, values)
        means, deviations, flagged = self._standard
        values -= means
        values /= deviations
        np.maximum(values, -CLIP, out=values)
        np.minimum(values, CLIP, out=values)
        np.copyto(values, 0.0, where=is_null)
        numbers[:, : len(values)] = values.T
        numbers[:, len(values) : self.num_numbers] = is_null[flagged].T

    def _put_sequence(self, place: SequenceColumns, columns: Columns, ids: np.ndarray, numbers: np.ndarray) -> None:
        """Write one sequence into its columns of `ids` (B, F_c + S) and `numbers` (B, F_n + S)."""
        feature = next(feature for feature in self.features if feature.name == place.name)
        items, ages = items_and_ages({name: np.asarray(columns[name]) for name in feature.columns}, feature)
        source = self.categorical[place.of]
        buckets = np.array([[source.num_buckets]], dtype=np.uint64)
        found = _buckets([source], buckets, [items.ravel()], items.size).reshape(items.shape) * (ages >= 0)
        logs = np.where(found > 0, np.log1p(np.maximum(ages, 0)), 0.0)
        behind = ((0, 0), (0, place.length - items.shape[1]))
        ids[:, place.first_id : place.first_id + place.length] = np.pad(found, behind)
        numbers[:, place.first_number : place.first_number + place.length] = np.pad(logs, behind)

    def _lookup(self, name: str) -> dict[Any, int]:
        lookup = self._lookups.get(name)
        if lookup is None:
            lookup = {text: at for at, text in enumerate(self.vocabularies[name], start=1)}
            self._lookups[name] = lookup
        return lookup

    @cached_property
    def _names(self) -> tuple[str, ...]:
        return feature_columns(self.features)

    @cached_property
    def _hashed(self) -> _Hashed:
        found = [(f, at) for at, f in enumerate(self.categorical) if f.kind is FeatureKind.HASHED]
        buckets = np.array([[f.num_buckets] for f, _ in found], dtype=np.uint64)
        return _Hashed(tuple(f for f, _ in found), buckets, [at for _, at in found])

    @cached_property
    def _numeric_rows(self) -> _NumericRows:
        return _NumericRows.of(self.numeric)

    @cached_property
    def _standard(self) -> tuple[np.ndarray, np.ndarray, list[int]]:
        """Mean and deviation (F, 1) of each numeric feature, and the rows of those with indicators."""
        moments = [self.moments[feature.name] for feature in self.numeric]
        flagged = [row for row, found in enumerate(moments) if found.has_nulls]
        means, deviations = np.array([m.mean for m in moments]), np.array([m.deviation for m in moments])
        return means[:, None], deviations[:, None], flagged


class _Hashed(NamedTuple):
    """Hashed features, their numbers of buckets (F, 1), and their columns of `ids`."""

    features: tuple[FeatureSpec, ...]
    buckets: np.ndarray
    at: list[int]


class _NumericRows(NamedTuple):
    """Which rows of a matrix (F, B) hold numbers of a type, and which of them get their logarithms."""

    of_dtype: tuple[tuple[DType, list[int] | slice], ...]
    logs: list[int]

    @classmethod
    def of(cls, features: Sequence[FeatureSpec]) -> Self:
        found: dict[DType, list[int]] = {}
        for row, feature in enumerate(features):
            found.setdefault(feature.dtype, []).append(row)
        of_dtype = tuple((dtype, rows if len(found) > 1 else slice(None)) for dtype, rows in found.items())
        return cls(of_dtype, [row for row, feature in enumerate(features) if feature.transform == "log1p"])


def _part(column: np.ndarray, rows: slice) -> np.ndarray:
    """These rows of a column; one of length 1 holds for all rows."""
    return column if len(column) == 1 else column[rows]


def _buckets(features: Sequence[FeatureSpec], buckets: np.ndarray, columns: Sequence[np.ndarray], rows: int) -> np.ndarray:
    """(F, rows) ids of hashed features."""
    keys = np.empty((len(features), rows), dtype=np.int64)
    is_null = np.zeros(keys.shape, dtype=bool)
    for at, (feature, column) in enumerate(zip(features, columns, strict=True)):
        keys[at], is_null[at] = _integers(feature, column)
        if feature.dtype is DType.INT32:
            is_null[at] |= ~_fits(DType.INT32, keys[at])
    found = (splitmix64(keys) % buckets).view(np.int64)
    found += 1
    np.copyto(found, 0, where=is_null)
    return found


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
    numbers = np.empty((1, len(values)))
    _put_numbers(feature, values, numbers[0])
    _transform(_NumericRows.of((feature,)), numbers)
    return numbers[0]


def _put_numbers(feature: FeatureSpec, values: np.ndarray, numbers: np.ndarray) -> None:
    try:
        numbers[:] = values
    except (TypeError, ValueError) as error:
        raise ContractError(f"feature {feature.name} is numeric; found {np.asarray(values).dtype} values ({error})") from error


def _transform(rows: _NumericRows, numbers: np.ndarray) -> np.ndarray:
    """Transform numbers (F, B) where they are, NaN for null; (F, B) which are null."""
    is_null = np.empty(numbers.shape, dtype=bool)
    for dtype, of_dtype in rows.of_dtype:
        is_null[of_dtype] = ~_fits(dtype, numbers[of_dtype])
    np.copyto(numbers, np.nan, where=is_null)
    if rows.logs:
        numbers[rows.logs] = np.log1p(np.maximum(numbers[rows.logs], 0.0))
    return is_null


def _fits(dtype: DType, numbers: np.ndarray) -> np.ndarray:
    """(B,) whether the type holds each number; NaN and infinities are never held."""
    finite = np.isfinite(numbers)
    if dtype is DType.FLOAT32:
        return finite & (np.abs(numbers) <= np.finfo(np.float32).max)
    if not dtype.is_integer:
        return finite
    bits = 31 if dtype is DType.INT32 else 63
    return finite & (numbers >= -(2.0**bits)) & (numbers < 2.0**bits) & (numbers == np.floor(numbers))


def _integers(feature: FeatureSpec, values: np.ndarray) -> tuple[np.ndarray, np.ndarray | bool]:
    """int64 keys and where they are null."""
    if values.dtype.kind in "iu":
        return values.astype(np.int64, copy=False), False
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
    listed = values.tolist()
    if set(map(type, listed)) != {str}:
        listed = [value if type(value) is str else vocabulary_name(value) for value in listed]
    return np.fromiter(map(of, listed, repeat(0)), dtype=np.int64, count=len(listed))
