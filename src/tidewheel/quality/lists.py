"""What is looked at of a column of lists, as one number a row: of ages the least, of anything else the length."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from tidewheel.contracts.schema import AGES_SUFFIX


def is_list(kind: pa.DataType) -> bool:
    return pa.types.is_list(kind) or pa.types.is_large_list(kind)


def number_of(name: str, column: pa.ChunkedArray) -> np.ndarray:
    """(B,) float64; NaN for a null list, and for the least age of no items."""
    lists = column.combine_chunks()
    lengths = lists.value_lengths()
    counts = lengths.fill_null(0).to_numpy(zero_copy_only=False)
    is_number = pa.types.is_integer(lists.type.value_type) or pa.types.is_floating(lists.type.value_type)
    if not name.endswith(AGES_SUFFIX) or not is_number:
        return np.where(lengths.is_valid().to_numpy(zero_copy_only=False), counts.astype(np.float64), np.nan)
    least = np.full(len(counts), np.nan)
    values = lists.flatten().to_numpy(zero_copy_only=False).astype(np.float64)
    np.fmin.at(least, np.repeat(np.arange(len(counts)), counts), values)
    return least
