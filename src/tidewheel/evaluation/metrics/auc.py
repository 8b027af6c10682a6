"""Area under the ROC curve, over all rows and within requests. Legend: B rows, G requests."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tidewheel.evaluation.metrics.measured import Measured


def auc(scores: np.ndarray, labels: np.ndarray, weight: np.ndarray) -> Measured:
    """Weighted probability that a positive row scores above a negative one, ties counting one half.

    The Mann-Whitney form (Hanley & McNeil 1982) with each pair weighted by the product of its rows' weights; the influence of a
    row is its structural component (DeLong et al. 1988, eq. 4). Undefined where one class has no weight.

    Args:
        scores: (B,) finite numbers.
        labels: (B,) 0 or 1.
        weight: (B,) not negative.
    """
    pairs = _Pairs.of(np.argsort(scores, kind="stable"), scores, labels, weight, np.zeros(len(scores), dtype=np.int64))
    positive, negative = pairs.positive.sum(), pairs.negative.sum()
    if not (positive > 0 and negative > 0):
        return Measured.undefined(len(scores))
    value = float((pairs.positive * pairs.below).sum() / (positive * negative))
    of_positives = pairs.positive * (pairs.below / negative - value) / positive
    of_negatives = pairs.negative * (pairs.above / positive - value) / negative
    return Measured(value, pairs.unsorted(of_positives + of_negatives))


def request_auc(scores: np.ndarray, labels: np.ndarray, weight: np.ndarray, requests: np.ndarray) -> Measured:
    """As `auc`, of the pairs within one request alone: how well lists are ordered, whatever users and contexts differ in.

    Requests count by the weight of their pairs, so that the estimate of a sampled log is that of the whole log; the mean of the
    requests' own AUCs would not be. Undefined where no request has both classes.

    Args:
        requests: (B,) code of each row's request.
    """
    pairs = _Pairs.of(np.lexsort((scores, requests)), scores, labels, weight, requests)
    starts = pairs.starts
    won = np.add.reduceat(pairs.positive * pairs.below, starts) if len(starts) else np.empty(0)
    held = np.add.reduceat(pairs.positive, starts) * np.add.reduceat(pairs.negative, starts) if len(starts) else np.empty(0)
    total = float(held.sum())
    if not total > 0:
        return Measured.undefined(len(scores))
    value = float(won.sum()) / total
    influence = np.zeros(len(scores))
    influence[starts] = (won - value * held) / total  # all of a request's rows are one user's: any of them may carry it
    return Measured(value, pairs.unsorted(influence))


@dataclass(frozen=True)
class _Pairs:
    """Rows sorted by request and score: (B,) weight of a row as positive and as negative, the weight of the negatives `below`
    it in its request and of the positives `above` it, ties counting one half; (G,) `starts` of the requests.
    """

    order: np.ndarray
    positive: np.ndarray
    negative: np.ndarray
    below: np.ndarray
    above: np.ndarray
    starts: np.ndarray

    @classmethod
    def of(cls, order: np.ndarray, scores: np.ndarray, labels: np.ndarray, weight: np.ndarray, requests: np.ndarray) -> _Pairs:
        is_positive, sorted_weight = labels[order] == 1, weight[order].astype(np.float64)
        positive, negative = np.where(is_positive, sorted_weight, 0.0), np.where(is_positive, 0.0, sorted_weight)
        of_request, of_score = requests[order], scores[order]
        is_first = np.ones(len(order), dtype=bool)  # of its request
        is_first[1:] = of_request[1:] != of_request[:-1]
        is_higher = is_first.copy()  # than the row before it, or the first
        is_higher[1:] |= of_score[1:] != of_score[:-1]
        starts, ties = np.flatnonzero(is_first), np.flatnonzero(is_higher)
        request, tie = np.cumsum(is_first) - 1, np.cumsum(is_higher) - 1
        halfway = [_halfway(part, ties)[tie] for part in (negative, positive)]
        before = [_before(part, starts)[request] for part in (negative, positive)]
        whole = np.add.reduceat(positive, starts)[request] if len(starts) else positive
        return cls(order, positive, negative, halfway[0] - before[0], whole - (halfway[1] - before[1]), starts)

    def unsorted(self, values: np.ndarray) -> np.ndarray:
        found = np.empty(len(values))
        found[self.order] = values
        return found


def _before(weight: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """The weight of all rows before each of `starts`."""
    return np.concatenate(([0.0], np.cumsum(weight)))[starts]


def _halfway(weight: np.ndarray, ties: np.ndarray) -> np.ndarray:
    """The weight before each tie and half of its own."""
    running = np.concatenate(([0.0], np.cumsum(weight)))
    return 0.5 * (running[ties] + running[np.append(ties[1:], len(weight))])
