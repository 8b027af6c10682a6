"""Selection by hash: the NumPy twin of the engines' `xxhash64`."""

from __future__ import annotations

import numpy as np

_BLOCK = 1 << 14  # rows hashed at once, so that all intermediate words stay in the processor's cache
_SEED = 42  # Spark's xxhash64 starts every row with it
_P1, _P2, _P3, _P4, _P5 = (
    np.uint64(prime)
    for prime in (11400714785074694791, 14029467366897019727, 1609587929392839161, 9650029242287828579, 2870177450012600261)
)


def xxhash64(values: np.ndarray, seed: np.ndarray | int = _SEED) -> np.ndarray:
    """XXH64 of 64-bit integers, as Spark's `xxhash64(column)` gives it.

    A second column is hashed with the first one's hash as its seed: `xxhash64(a, b) = xxhash64(b, seed=xxhash64(a))`.
    Source: the XXH64 specification for inputs of 8 bytes, and Spark's XXH64.hashLong.

    Args:
        values: (N,) int64.
        seed: one integer, or (N,) int64.

    Returns:
        (N,) int64.
    """
    words = np.asarray(values, dtype=np.int64).view(np.uint64)
    start = np.asarray(seed, dtype=np.int64).reshape(-1).view(np.uint64)
    mixed = start + _P5 + np.uint64(8)  # unsigned arrays wrap, which is what the hash wants
    mixed = mixed ^ (_rotate_left(words * _P2, 31) * _P1)
    mixed = _rotate_left(mixed, 27) * _P1 + _P4
    mixed = (mixed ^ (mixed >> np.uint64(33))) * _P2
    mixed = (mixed ^ (mixed >> np.uint64(29))) * _P3
    return (mixed ^ (mixed >> np.uint64(32))).view(np.int64)


def uniform(row_keys: np.ndarray, salt: int) -> np.ndarray:
    """A number in [0, 1) for each row key, fixed by key and salt: its hash's upper 53 bits over 2^53.

    Args:
        row_keys: (N,) int64.
        salt: another salt gives independent numbers.

    Returns:
        (N,) float64, equal bit by bit to `tidewheel.sampling.dataframe.uniform_column`.
    """
    drawn = np.empty(len(row_keys), dtype=np.float64)
    salts = np.array([salt], dtype=np.int64)
    for start in range(0, len(row_keys), _BLOCK):
        block = slice(start, start + _BLOCK)
        hashed = xxhash64(salts, seed=xxhash64(row_keys[block]))
        drawn[block] = (hashed.view(np.uint64) >> np.uint64(11)).astype(np.float64) / 2.0**53
    return drawn


def _rotate_left(words: np.ndarray, bits: int) -> np.ndarray:
    return (words << np.uint64(bits)) | (words >> np.uint64(64 - bits))
