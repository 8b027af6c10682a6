"""How much a new model reorders requests. Legend: B rows."""

from __future__ import annotations

import numpy as np

from tidewheel.evaluation.lists import ranks
from tidewheel.evaluation.metrics import Measured, ratio

MIN_PAIRS = 30.0  # an interval over fewer claims more than it knows
MAX_PAIRS = 64  # a row is compared with so many others of its request at most; rows lie in the order of a hash: a sample


def kendall_tau(
    one: np.ndarray, other: np.ndarray, weight: np.ndarray, requests: np.ndarray, min_pairs: float = MIN_PAIRS
) -> Measured:
    """Kendall's tau-b (1945) of two models' scores over the pairs of rows within requests: 1 the same order, -1 the reverse.

    A pair counts with the product of its rows' weights, so that a sampled log estimates the whole one. Undefined where a model
    tells no pair apart, and where fewer than `min_pairs` pairs (Kish's effective number) carry the weight: rows that stand for
    thirty others make pairs that stand for nine hundred.

    Args:
        one, other: (B,) finite scores.
        weight: (B,) above 0.
        requests: (B,) code of each row's request.
    """
    order = np.argsort(requests, kind="stable")
    a, b, w, request = one[order], other[order], weight[order], requests[order]
    agree, told_by_one, told_by_other = np.zeros(len(a)), np.zeros(len(a)), np.zeros(len(a))
    total = squares = 0.0
    for lag in range(1, min(MAX_PAIRS, len(a) - 1) + 1):
        first = np.flatnonzero(request[:-lag] == request[lag:])
        if not len(first):
            break
        second = first + lag
        pair = w[first] * w[second]
        total, squares = total + float(pair.sum()), squares + float((pair * pair).sum())
        signs = np.sign(a[second] - a[first]), np.sign(b[second] - b[first])
        agree[first] += pair * signs[0] * signs[1]
        told_by_one[first] += pair * np.abs(signs[0])
        told_by_other[first] += pair * np.abs(signs[1])
    scale = float(told_by_one.sum()) * float(told_by_other.sum())
    if not scale > 0 or total * total < min_pairs * squares:
        return Measured.undefined(len(a))
    value = float(agree.sum()) / scale**0.5
    influence = np.zeros(len(a))
    influence[order] = agree / scale**0.5 - value / 2 * (told_by_one / told_by_one.sum() + told_by_other / told_by_other.sum())
    return Measured(value, influence)


def top_churn(one: np.ndarray, other: np.ndarray, requests: np.ndarray, k: int) -> Measured:
    """Share of the items that `other` puts among the first k of their request and `one` does not, of whole requests."""
    was_first, is_first = (ranks(scores, requests) < k for scores in (other, one))
    return ratio(np.ones(len(requests)), (was_first & ~is_first).astype(np.float64), was_first.astype(np.float64))
