"""The one sum that every metric is made of."""

from __future__ import annotations

import numpy as np


def weighted_sum(weight: np.ndarray, values: np.ndarray) -> float:
    """sum w x of two arrays (B,).

    Not `weight @ values`: BLAS splits a vector of this length over threads that wait for each other, and tens of
    thousands of replicates on busy cores then take minutes (measured: 49 s where this takes 1.1 s).
    """
    return float(np.einsum("i,i->", weight, values))
