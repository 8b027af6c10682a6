"""How exact weighted shares are when whole users come and go by chance: what separates drift from noise."""

from __future__ import annotations

import math

import numpy as np
import pyarrow as pa

from tidewheel.contracts.evidence import Precision
from tidewheel.quality.rows import Rows

NUM_GROUPS = 1024
_GROUP_SHIFT = np.uint64(64 - 10)
_ODD = np.uint64(0x9E3779B97F4A7C15)  # 2^64 / golden ratio: multiplicative hashing (Knuth 1998, section 6.4)


def user_groups(rows: Rows) -> np.ndarray:
    """A group (B,), 0 to `NUM_GROUPS` - 1, for each row; all rows of one user are in the same.

    Totals of random groups of users vary as the users do (random groups: Wolter 2007, chapter 2), and there are never
    more of them, so that what is kept a feature does not grow with the log. Without users every row is on its own.
    """
    if "user_id" in rows.column_names:
        column = rows["user_id"]
        if pa.types.is_integer(column.type):
            users = column.fill_null(0).cast(pa.int64(), safe=False).to_numpy().view(np.uint64)
            return ((users * _ODD) >> _GROUP_SHIFT).astype(np.int64)
    return np.arange(rows.num_rows) % NUM_GROUPS


def group_totals(groups: np.ndarray, bins: np.ndarray, values: np.ndarray, num_bins: int) -> np.ndarray:
    """Sums of `values` (B,) by group and bin, (`NUM_GROUPS`, N). They add up over parts of a table."""
    totals = np.bincount(groups * num_bins + bins, weights=values, minlength=NUM_GROUPS * num_bins)
    return totals.reshape(NUM_GROUPS, num_bins)


def residuals(totals: np.ndarray) -> np.ndarray:
    """What each group adds to the error of each share (G', N), from weights by group and bin (G, N).

    Shares are ratios of totals; a group's residual is (t_gb - p_b t_g) / t (linearization: Wolter 2007, section 6.3), scaled
    so that sums of products over groups are covariances. NaN with fewer than two groups that hold weight.
    """
    used = totals[totals.sum(axis=1) > 0]
    if len(used) < 2:
        return np.full((1, totals.shape[1]), np.nan)
    weight = used.sum()
    found = (used - used.sum(axis=1, keepdims=True) * (used.sum(axis=0) / weight)) / weight
    return found * math.sqrt(len(used) / (len(used) - 1))


def product(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Matrix product (I, J) of (I, K) and (K, J) on one thread.

    Not `@`: BLAS splits matrices of this size over threads that wait for each other, which on busy cores takes six times
    as long (measured on two cores).
    """
    return np.einsum("ik,kj->ij", first, second)


def shares_precision(totals: np.ndarray) -> Precision:
    """Precision of the shares of bins, from weights by group and bin (G, N).

    With A = D^-1/2 V D^-1/2, V the covariance and D the shares on the diagonal: effective rows (N - 1) / tr A, the first-order
    correction of a chi-squared statistic for clustered samples, and degrees (tr A)^2 / tr A^2, its second-order one (Rao &
    Scott 1981, J. American Statistical Association 76, section 4). Independent rows of weight 1 give n and N - 1.
    """
    shares = totals.sum(axis=0) / totals.sum()
    used = shares > 0
    if used.sum() < 2:
        return Precision(effective_rows=float(np.count_nonzero(totals.sum(axis=1))), degrees=1.0)
    scaled = residuals(totals[:, used]) / np.sqrt(shares[used])
    scaled = product(scaled.T, scaled)
    trace, square = float(np.trace(scaled)), float(np.square(scaled).sum())
    if not trace > 0 or not np.isfinite(trace):
        return Precision(effective_rows=0.0, degrees=1.0)
    return Precision(effective_rows=float(used.sum() - 1) / trace, degrees=trace**2 / square)


def worst_point_rows(totals: np.ndarray) -> float:
    """Effective rows of a distribution function over ordered bins (G, N): 1 / (4 v), v its largest variance at any point.

    n independent rows of weight 1 have variance F (1 - F) / n <= 1 / (4 n). 0 where that is not known.
    """
    below = np.cumsum(residuals(totals), axis=1)
    worst = float(np.square(below).sum(axis=0).max())
    if not np.isfinite(worst):
        return 0.0
    return 0.25 / worst if worst > 0 else float(np.count_nonzero(totals.sum(axis=1)))
