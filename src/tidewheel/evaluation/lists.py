"""What a model puts first in each request. Legend: B rows."""

from __future__ import annotations

import numpy as np


def ranks(scores: np.ndarray, requests: np.ndarray) -> np.ndarray:
    """(B,) place of a row in its request, from 0, best first. Equal scores rank in the order of the table: that of a hash.

    Every row of a request has to be there: of a sampled one nobody knows the places. Estimating them from weights would not do
    where the log keeps engaged rows more often than others: how far down a model's first k reach would depend on what came of
    the rows above.

    Args:
        scores: (B,) finite numbers.
        requests: (B,) code of each row's request.
    """
    order = np.lexsort((-scores, requests))
    is_first = np.ones(len(order), dtype=bool)
    is_first[1:] = requests[order][1:] != requests[order][:-1]
    found = np.empty(len(order), dtype=np.int64)
    found[order] = np.arange(len(order)) - np.flatnonzero(is_first)[np.cumsum(is_first) - 1]
    return found


def totals(values: np.ndarray, requests: np.ndarray) -> np.ndarray:
    """(B,) the sum of a value over each row's request."""
    known, codes = np.unique(requests, return_inverse=True)
    sums: np.ndarray = np.bincount(codes, weights=values, minlength=len(known))
    return sums[codes]
