"""ROC curves and confusion matrices for pipeline UIs and the report. Legend: B rows, G groups of rows with equal scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from tidewheel.contracts.comparison import CANDIDATE, PRODUCTION, Confusion, Curves, RocPoint
from tidewheel.contracts.schema import WEIGHT, label_column
from tidewheel.evaluation.sample import fault_of

if TYPE_CHECKING:
    import pyarrow as pa

MAX_POINTS = 100
TOLERANCE = 1e-4  # a chord this near to the curve is the curve


def curves(table: pa.Table, scores: Mapping[str, Mapping[str, np.ndarray]], labels: Sequence[str]) -> Curves:
    """The ROC of student and production, and the student's confusion matrix, of every label that has both classes.

    Rows count by their column `weight`, so the figures are those of the whole log. Scores with a fault have no curve, and
    nothing has one where a weight is not finite and above 0.

    Args:
        scores: model -> label -> probabilities (B,).
    """
    weight = table[WEIGHT].to_numpy().astype(np.float64)
    if not (np.isfinite(weight) & (weight > 0)).all():
        return Curves()
    drawn: dict[str, dict[str, tuple[RocPoint, ...]]] = {}
    confusion: dict[str, Confusion] = {}
    for label in labels:
        is_positive = table[label_column(label)].to_numpy() == 1
        if is_positive.all() or not is_positive.any():
            continue
        for model in (CANDIDATE, PRODUCTION):
            found = scores.get(model, {}).get(label)
            if found is None or fault_of(found):
                continue
            groups = _Groups(found.astype(np.float64), is_positive, weight)
            drawn.setdefault(model, {})[label] = groups.roc()
            if model == CANDIDATE:
                confusion[label] = groups.confusion()
    return Curves(roc=drawn, confusion=confusion)


class _Groups:
    """Weight of the positive and of the negative rows at or above each distinct score (G,), highest score first."""

    def __init__(self, scores: np.ndarray, is_positive: np.ndarray, weight: np.ndarray) -> None:
        order = np.argsort(-scores, kind="stable")
        ranked = scores[order]
        last = np.append(np.flatnonzero(np.diff(ranked)), len(ranked) - 1)  # of its group
        self.thresholds = ranked[last]
        self.positives = np.cumsum(np.where(is_positive, weight, 0.0)[order])[last]
        self.negatives = np.cumsum(np.where(is_positive, 0.0, weight)[order])[last]

    def roc(self) -> tuple[RocPoint, ...]:
        """At most MAX_POINTS of the curve's corners, chosen so that chords between them stay near to it."""
        false = np.concatenate([[0.0], self.negatives / self.negatives[-1]])
        true = np.concatenate([[0.0], self.positives / self.positives[-1]])
        # Above every score nothing is predicted: scikit-learn says infinity there, which JSON cannot.
        thresholds = np.concatenate([[np.nextafter(self.thresholds[0], np.inf)], self.thresholds])
        return tuple(
            RocPoint(threshold=float(thresholds[i]), false_positive_rate=float(false[i]), true_positive_rate=float(true[i]))
            for i in corners(false, true)
        )

    def confusion(self) -> Confusion:
        actual, rows = self.positives[-1], self.positives[-1] + self.negatives[-1]
        at = int(np.argmin(np.abs(self.positives + self.negatives - actual)))
        hits, alarms = self.positives[at], self.negatives[at]
        return Confusion(
            threshold=float(self.thresholds[at]),
            true_positive=float(hits),
            false_positive=float(alarms),
            false_negative=float(actual - hits),
            true_negative=float(rows - actual - alarms),
        )


def corners(x: np.ndarray, y: np.ndarray, most: int = MAX_POINTS, tolerance: float = TOLERANCE) -> list[int]:
    """Indexes of the points that keep the shape of a line through all (x, y): both ends, then whichever lies furthest from
    its chord, until none is further than `tolerance` or there are `most` (Ramer 1972, with a budget).
    """
    kept = [0, len(x) - 1]
    open_chords = [_furthest(x, y, 0, len(x) - 1)]
    while len(kept) < most:
        distance, at, start, end = max(open_chords)
        if distance <= tolerance:
            break
        open_chords.remove((distance, at, start, end))
        open_chords += [_furthest(x, y, start, at), _furthest(x, y, at, end)]
        kept.append(at)
    return sorted(kept)


def _furthest(x: np.ndarray, y: np.ndarray, start: int, end: int) -> tuple[float, int, int, int]:
    """How far the furthest point strictly between two lies from their chord, and where; 0 where there is none."""
    if end - start < 2:
        return 0.0, start, start, end
    run, rise = x[end] - x[start], y[end] - y[start]
    between = slice(start + 1, end)
    off = np.abs(run * (y[between] - y[start]) - rise * (x[between] - x[start])) / max(float(np.hypot(run, rise)), 1e-300)
    at = int(np.argmax(off))
    return float(off[at]), start + 1 + at, start, end
