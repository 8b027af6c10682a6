"""Raw feature columns, as a request or an Arrow table has them: what encoders read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from tidewheel.contracts.schema import FeatureKind, FeatureSpec
from tidewheel.errors import ContractError
from tidewheel.ranker.padding import padded

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True)
class Coded:
    """A dictionary-encoded column: row b has the value `values[codes[b]]`. What is said of a value is said once."""

    codes: np.ndarray  # (B,) integers
    values: list[Any]

    def __len__(self) -> int:
        return len(self.codes)

    def __getitem__(self, rows: slice) -> Coded:
        return Coded(self.codes[rows], self.values)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.array(self.values, dtype=object)[self.codes].astype(dtype or object)


Columns = Mapping[str, np.ndarray | Coded]


def columns_of(table: pa.Table, features: Sequence[FeatureSpec]) -> dict[str, np.ndarray | Coded]:
    """Raw columns of an Arrow table: vocabulary features coded, hashed ones int64 or object (None for null), numeric ones
    numbers (NaN for null), sequences (B, length).

    Raises:
        ContractError: a feature has no column in the table.
    """
    import pyarrow as pa
    import pyarrow.types as types

    columns: dict[str, np.ndarray | Coded] = {}
    for feature in features:
        if missing := [name for name in feature.columns if name not in table.column_names]:
            raise ContractError(f"features: column {missing[0]} is missing; the table has {', '.join(table.column_names)}")
        if feature.is_sequence:
            columns |= padded(table, feature)
            continue
        column = table.column(feature.name)
        if feature.kind is FeatureKind.VOCABULARY:
            columns[feature.name] = _coded(column)
            continue
        if feature.kind is FeatureKind.NUMERIC and not types.is_floating(column.type):
            column = column.cast(pa.float64(), safe=False)  # beyond 2^53 the last digits do not matter
        if types.is_integer(column.type) and column.null_count:
            columns[feature.name] = np.array(column.to_pylist(), dtype=object)
        else:
            columns[feature.name] = column.to_numpy()
    return columns


def _coded(column: pa.ChunkedArray) -> Coded:
    import pyarrow.compute as pc
    import pyarrow.types as types

    column = (column if types.is_dictionary(column.type) else column.dictionary_encode()).unify_dictionaries()
    if not column.num_chunks:
        return Coded(np.zeros(0, dtype=np.int64), [None])
    values = column.chunk(0).dictionary.to_pylist()  # the same in every chunk
    codes = [pc.fill_null(chunk.indices, len(values)).to_numpy(zero_copy_only=False) for chunk in column.chunks]
    return Coded(np.concatenate(codes), [*values, None])
