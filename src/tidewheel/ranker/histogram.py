"""Histogram binning by slice: what scores were worth on held-out rows, bin by bin, joined to lines that rise.

Zadrozny & Elkan 2001 (sec. 3.2) give every score of a bin the bin's rate, which ties all rows of a bin. Here the rates are
joined in log odds and go on beyond the outer bins, so a map is strictly rising: it keeps every ranking within its slice. Maps
of different slices differ, so rankings across slices may change.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from pydantic import Field, model_validator

from tidewheel.contracts.base import Contract
from tidewheel.ranker.scorer import sigmoid

MAX_BINS = 5
BIN_ROWS = 100  # a bin for so many effective rows of the rarer class: its rate is known to within a tenth
PRIOR_ROWS = 500.0  # a map is shrunk toward the one before it as by so many rows, an equal part in each bin
MAX_LOG_ODDS = 30.0


class Line(Contract):
    """Log odds to log odds: straight between the points, slope 1 beyond them. Without points the identity."""

    inputs: tuple[float, ...] = ()
    outputs: tuple[float, ...] = ()

    @model_validator(mode="after")
    def _rises(self) -> Line:
        if len(self.inputs) != len(self.outputs):
            raise ValueError(f"{len(self.inputs)} inputs and {len(self.outputs)} outputs; expected as many")
        if np.any(np.diff(self.inputs) <= 0) or np.any(np.diff(self.outputs) <= 0):
            raise ValueError("points do not rise")
        return self

    def apply(self, values: np.ndarray) -> np.ndarray:
        """(B,) float64."""
        if not self.inputs:
            return values
        below, above = np.minimum(values - self.inputs[0], 0.0), np.maximum(values - self.inputs[-1], 0.0)
        return np.interp(values, self.inputs, self.outputs) + below + above

    def bends(self) -> tuple[float, np.ndarray]:
        """`offset` and `bends` (K,) with which it is x + offset + sum_k bends_k * max(x - inputs_k, 0)."""
        if not self.inputs:
            return 0.0, np.empty(0)
        slopes = np.concatenate([[1.0], np.diff(self.outputs) / np.diff(self.inputs), [1.0]])
        return self.outputs[0] - self.inputs[0], np.diff(slopes)


class Histogram(Contract):
    """probability = sigmoid(slice(overall(scale * logit + shift))), `slice` the line of the row's slice.

    `column` is the place of feature `slice` among the ids that a graph takes. An id without a line of its own (unseen, or
    with too few rows) stays with the overall map.
    """

    kind: Literal["histogram"] = "histogram"
    scale: float = Field(gt=0)
    shift: float
    overall: Line
    slice: str = ""
    column: int = Field(default=0, ge=0)
    by_id: dict[int, Line] = {}

    def apply(self, logits: np.ndarray, slice_ids: np.ndarray) -> np.ndarray:
        """(B,) float32 probabilities of logits (B,) in slices (B,)."""
        found = self.overall.apply(self.scale * np.asarray(logits, dtype=np.float64) + self.shift)
        for value, line in self.by_id.items():
            rows = slice_ids == value
            found[rows] = line.apply(found[rows])
        return sigmoid(found.astype(np.float32))


@dataclass(frozen=True)
class Slices:
    """Which slice each row (B,) is in: the id of `feature`, column `column` of the ids; 0 is null or unseen."""

    feature: str
    column: int
    ids: np.ndarray
    min_rows: int


def fit_histogram(
    logits: np.ndarray, labels: np.ndarray, weights: np.ndarray, scale: float, shift: float, slices: Slices | None = None
) -> Histogram:
    """Fit the overall map on the log odds scale * logit + shift, then a map a slice on what it gives.

    A slice of one class needs no case of its own: its rates are shrunk toward the overall map and never 0 or 1.

    Args:
        logits, labels, weights: (B,) each; labels are 0 or 1, weights above 0.
        scale, shift: Platt's map of the same rows, toward which the overall map is shrunk.
    """
    log_odds = scale * logits + shift
    overall = fit_line(log_odds, labels, weights)
    if slices is None:
        return Histogram(scale=scale, shift=shift, overall=overall)
    log_odds = overall.apply(log_odds)
    lines = {}
    for value in np.unique(slices.ids[slices.ids > 0]).tolist():
        rows = slices.ids == value
        if effective_rows(weights[rows]) >= slices.min_rows:
            lines[value] = fit_line(log_odds[rows], labels[rows], weights[rows])
    return Histogram(scale=scale, shift=shift, overall=overall, slice=slices.feature, column=slices.column, by_id=lines)


def fit_line(log_odds: np.ndarray, labels: np.ndarray, weights: np.ndarray) -> Line:
    """The rates of bins of equal weight against what was predicted in them, as one rising line.

    A bin's rate is (rows * rate + prior * predicted) / (rows + prior), rows are Kish's effective ones and prior is PRIOR_ROWS
    / bins; neighbours that do not rise are pooled (Barlow et al. 1972).
    """
    rows = effective_rows(weights)
    rarer = min(effective_rows(weights[labels == value]) for value in (0, 1))
    bins = int(np.clip(rarer // BIN_ROWS, 1, MAX_BINS))
    prior = PRIOR_ROWS / bins
    order = np.argsort(log_odds, kind="stable")
    predicted = 1.0 / (1.0 + np.exp(-np.clip(log_odds[order], -MAX_LOG_ODDS, MAX_LOG_ODDS)))
    mass = weights[order] * (rows / weights.sum())
    bin_of = np.minimum(((np.cumsum(mass) - 0.5 * mass) / rows * bins).astype(np.int64), bins - 1)
    pools: list[np.ndarray] = []  # mass, mass * label, mass * predicted
    for at in np.unique(bin_of):
        inside = bin_of == at
        total, hits, expected = mass[inside].sum(), mass[inside] @ labels[order][inside], mass[inside] @ predicted[inside]
        pools.append(np.array([total + prior, hits + prior * expected / total, expected + prior * expected / total]))
        while len(pools) > 1 and not _rises(pools[-2], pools[-1]):
            last = pools.pop()
            pools[-1] = pools[-1] + last
    masses, hits, expectations = np.array(pools).T
    return Line(inputs=tuple(_logit(expectations / masses)), outputs=tuple(_logit(hits / masses)))


def effective_rows(weights: np.ndarray) -> float:
    """(sum w)^2 / sum w^2 (Kish 1965, sec. 11.7); 0 of no rows."""
    return float(weights.sum() ** 2 / (weights @ weights)) if len(weights) else 0.0


def _rises(one: np.ndarray, other: np.ndarray) -> bool:
    """Whether rate and prediction of the next pool are surely above: nearer than this a slope would be noise of rounding."""
    return bool(np.all(other[1:] / other[0] - one[1:] / one[0] > 1e-6))


def _logit(rates: np.ndarray) -> list[float]:
    found: list[float] = np.log(rates / (1.0 - rates)).tolist()
    return found
