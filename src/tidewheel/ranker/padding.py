"""Lists of different lengths as arrays of one width: a user's sequence as raw columns.

A sequence has two columns (B, L): its items, int64, and their ages, where an age of `NO_ITEM` says that there is no item.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from tidewheel.contracts.schema import FeatureSpec
from tidewheel.errors import ContractError

if TYPE_CHECKING:
    import pyarrow as pa

NO_ITEM = -1


def padded(table: pa.Table, feature: FeatureSpec) -> dict[str, np.ndarray]:
    """The columns of a sequence, (B, length) int64, from the lists of an Arrow table; a null list is an empty one.

    Raises:
        ContractError: they are no lists of integers, one is too long, or items and ages are not one each.
    """
    import pyarrow.types as types

    found, lengths = [], []
    for name, fill in zip(feature.columns, (0, NO_ITEM), strict=True):
        column = table.column(name)
        if not (types.is_list(column.type) and types.is_integer(column.type.value_type)):
            raise ContractError(f"column {name}: found {column.type}, expected a list of integers; run ingest again")
        lists = column.combine_chunks()
        counts = lists.value_lengths().fill_null(0).to_numpy(zero_copy_only=False)
        if len(counts) and counts.max() > feature.length:
            raise ContractError(f"column {name}: a list of {counts.max()} items, expected at most {feature.length}")
        values = lists.flatten().fill_null(fill).to_numpy(zero_copy_only=False)
        width = np.full((len(counts), feature.length), fill, dtype=np.int64)
        width[np.arange(feature.length) < counts[:, None]] = values
        found.append(width)
        lengths.append(counts)
    if (lengths[0] != lengths[1]).any():
        raise ContractError(f"column {feature.name}: some lists have not as many items as ages; run ingest again")
    return dict(zip(feature.columns, found, strict=True))


def items_and_ages(columns: Mapping[str, np.ndarray], feature: FeatureSpec) -> tuple[np.ndarray, np.ndarray]:
    """Both columns of a sequence, (B, L) with L at most its length.

    Raises:
        ContractError: they are not two arrays of whole numbers of one such shape.
    """
    items, ages = (np.asarray(columns[name]) for name in feature.columns)
    if items.ndim != 2 or items.shape != ages.shape or items.shape[1] > feature.length:
        raise ContractError(
            f"feature {feature.name}: found items {items.shape} and ages {ages.shape}; expected one shape, rows x at most "
            f"{feature.length}"
        )
    if items.dtype.kind not in "iu" or ages.dtype.kind not in "iu":
        raise ContractError(
            f"feature {feature.name}: found {items.dtype} items and {ages.dtype} ages; expected whole numbers, "
            f"and the age {NO_ITEM} where there is no item"
        )
    return items, ages
