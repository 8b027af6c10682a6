"""Normalized discounted cumulative gain of lists. Legend: B rows, G requests."""

from __future__ import annotations

import numpy as np

from tidewheel.evaluation.metrics.measured import Measured


def ndcg(scores: np.ndarray, labels: np.ndarray, requests: np.ndarray, k: int) -> Measured:
    """Mean NDCG@k over requests with a positive row, of two rows at least (Järvelin & Kekäläinen 2002, with log2 discounts).

    Rows of equal scores share the discounts of their places (McSherry & Najork 2008), as scikit-learn's `ndcg_score` has it.
    Every row of a request must be there: of a sampled list nobody knows the places. Undefined without such a request.

    Args:
        scores: (B,) finite numbers.
        labels: (B,) 0 or 1: the gain.
        requests: (B,) code of each row's request.
    """
    order = np.lexsort((-scores, requests))
    of_request, of_score, gain = requests[order], scores[order], (labels[order] == 1).astype(np.float64)
    is_first = np.ones(len(order), dtype=bool)
    is_first[1:] = of_request[1:] != of_request[:-1]
    is_lower = is_first.copy()
    is_lower[1:] |= of_score[1:] != of_score[:-1]
    starts, ties = np.flatnonzero(is_first), np.flatnonzero(is_lower)
    if not len(starts):
        return Measured.undefined(len(scores))
    request, tie = np.cumsum(is_first) - 1, np.cumsum(is_lower) - 1
    place = np.arange(len(order)) - starts[request]
    discount = np.where(place < k, 1 / np.log2(place + 2.0), 0.0)
    shared = (np.add.reduceat(discount, ties) / np.diff(np.append(ties, len(order))))[tie]
    found, positives = np.add.reduceat(gain * shared, starts), np.add.reduceat(gain, starts)
    best = np.concatenate(([0.0], np.cumsum(1 / np.log2(np.arange(k) + 2.0))))[np.minimum(positives, k).astype(np.int64)]
    is_list = (positives > 0) & (np.diff(np.append(starts, len(order))) > 1)
    if not is_list.any():
        return Measured.undefined(len(scores))
    each = found[is_list] / best[is_list]
    influence = np.zeros(len(scores))
    influence[order[starts[is_list]]] = (each - each.mean()) / len(each)  # any row of a request may carry it: one user's
    return Measured(float(each.mean()), influence)
