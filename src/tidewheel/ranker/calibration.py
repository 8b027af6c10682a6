"""Calibrators: monotone maps from a head's logit to a probability, fitted with row weights, one a label."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Literal

import numpy as np
from pydantic import Field, model_validator

from tidewheel.contracts.base import Contract
from tidewheel.ranker.histogram import Histogram, Slices, fit_histogram
from tidewheel.ranker.scorer import sigmoid

# Platt's map is pulled toward the identity, since the network was fitted to far more rows than the calibrator sees: 500 is
# the precision of a shift known to within 0.045, about what the odds of one day differ from another's.
PRIOR_PRECISION = 500.0
MAX_KNOTS = 64


class Platt(Contract):
    """probability = sigmoid(scale * logit + shift), scale > 0 (Platt 1999, eq. 2, on logits)."""

    kind: Literal["platt"] = "platt"
    scale: float = Field(default=1.0, gt=0)
    shift: float = 0.0

    def apply(self, logits: np.ndarray) -> np.ndarray:
        """(B,) float32 probabilities."""
        return sigmoid(np.float32(self.scale) * np.asarray(logits, dtype=np.float32) + np.float32(self.shift))


class Isotonic(Contract):
    """Piecewise linear between the knots (logit, probability), constant outside of them."""

    kind: Literal["isotonic"] = "isotonic"
    logits: tuple[float, ...] = Field(min_length=1)
    probabilities: tuple[float, ...]

    @model_validator(mode="after")
    def _rises(self) -> Isotonic:
        if len(self.logits) != len(self.probabilities):
            raise ValueError(f"{len(self.logits)} logits and {len(self.probabilities)} probabilities; expected as many")
        if np.any(np.diff(self.logits) <= 0) or np.any(np.diff(self.probabilities) < 0):
            raise ValueError("knots do not rise")
        return self

    def apply(self, logits: np.ndarray) -> np.ndarray:
        """(B,) float32 probabilities."""
        return np.interp(np.asarray(logits, dtype=np.float64), self.logits, self.probabilities).astype(np.float32)


Calibrator = Annotated[Platt | Isotonic | Histogram, Field(discriminator="kind")]


class Calibrators(Contract):
    """One calibrator a label."""

    schema_: Literal["tidewheel/calibrators/v1"] = Field(default="tidewheel/calibrators/v1", alias="schema")
    by_label: dict[str, Calibrator]


def fit_calibrator(
    kind: str, logits: np.ndarray, labels: np.ndarray, weights: np.ndarray, slices: Slices | None = None
) -> Calibrator:
    """Fit one label's calibrator on rows that the model was not trained on.

    Args:
        kind: `platt`, `isotonic` or `histogram`.
        logits, labels, weights: (B,) each; labels are 0 or 1.
        slices: of the same rows, for `histogram`.

    Without a row of each class there is nothing to fit and the result is the identity (Platt with scale 1, shift 0).
    """
    used = weights > 0
    logits, labels, weights = (np.asarray(x, dtype=np.float64)[used] for x in (logits, labels, weights))
    if not 0 < labels.sum() < len(labels):
        return Platt()
    if kind == "isotonic":
        return fit_isotonic(logits, labels, weights)
    platt = fit_platt(logits, labels, weights)
    if kind == "platt":
        return platt
    here = None if slices is None else replace(slices, ids=slices.ids[used])
    return fit_histogram(logits, labels, weights, platt.scale, platt.shift, here)


def fit_platt(logits: np.ndarray, labels: np.ndarray, weights: np.ndarray, precision: float = PRIOR_PRECISION) -> Platt:
    """Weighted logistic regression of the label on the logit by Newton's method, with a normal prior around the identity.

    Weights are scaled to mean 1; `precision` is that of the prior of scale and shift, around 1 and 0.
    A scale that is not positive would turn the ranking around; then only the shift is fitted.
    """
    scale, shift = _newton(logits, labels, weights / weights.mean(), precision, with_scale=True)
    if scale <= 0:
        scale, shift = _newton(logits, labels, weights / weights.mean(), precision, with_scale=False)
    return Platt(scale=scale, shift=shift)


def _newton(
    logits: np.ndarray, labels: np.ndarray, weights: np.ndarray, precision: float, *, with_scale: bool
) -> tuple[float, float]:
    """Minimize weighted log loss + precision / 2 * |(scale, shift) - (1, 0)|^2, halving steps that would raise it."""
    design = np.stack([logits, np.ones_like(logits)], axis=1)
    free = np.array([with_scale, True])
    start = np.array([1.0, 0.0])

    def objective(theta: np.ndarray) -> float:
        margin = design @ theta
        return float(weights @ (np.logaddexp(0.0, margin) - labels * margin)) + 0.5 * precision * float(
            (theta - start) @ (theta - start)
        )

    theta, value = start, objective(start)
    for _ in range(50):
        predicted = 1.0 / (1.0 + np.exp(-np.clip(design @ theta, -60, 60)))
        gradient = design.T @ (weights * (predicted - labels)) + precision * (theta - start)
        hessian = (design * (weights * predicted * (1 - predicted))[:, None]).T @ design + precision * np.eye(2)
        step = np.zeros(2)
        step[free] = np.linalg.solve(hessian[np.ix_(free, free)], gradient[free])
        while (after := objective(theta - step)) > value and np.abs(step).max() > 1e-12:
            step = step / 2
        theta, gain, value = theta - step, value - after, after
        if gain <= 1e-12 * abs(value):
            break
    return float(theta[0]), float(theta[1])


def fit_isotonic(logits: np.ndarray, labels: np.ndarray, weights: np.ndarray) -> Isotonic:
    """Weighted isotonic regression by pooling adjacent violators (Barlow et al. 1972), joined by lines.

    Each pool becomes a knot at its mean logit; its probability is shrunk by one mean-weight row at the overall rate, so
    that none is 0 or 1. At most MAX_KNOTS knots: with more, neighbours of equal weight are pooled first.
    """
    order = np.argsort(logits, kind="stable")
    x, y, w = logits[order], labels[order], weights[order]
    position = np.cumsum(w) - 0.5 * w
    group = np.minimum((position / w.sum() * 4 * MAX_KNOTS).astype(np.int64), 4 * MAX_KNOTS - 1)
    pools: list[list[float]] = []  # weight, weight * logit, weight * label
    for rows in np.split(np.arange(len(x)), np.flatnonzero(np.diff(group)) + 1):
        pools.append([float(w[rows].sum()), float(w[rows] @ x[rows]), float(w[rows] @ y[rows])])
        while len(pools) > 1 and pools[-2][2] * pools[-1][0] >= pools[-1][2] * pools[-2][0]:
            last = pools.pop()
            pools[-1] = [a + b for a, b in zip(pools[-1], last, strict=True)]
    mass, at, hits = np.array(_thinned(pools)).T
    overall, one_row = float(np.average(labels, weights=weights)), float(weights.mean())
    probabilities = np.maximum.accumulate((hits + one_row * overall) / (mass + one_row))
    knots = at / mass
    rising = np.concatenate([[True], np.diff(knots) > 1e-9])
    return Isotonic(logits=tuple(knots[rising].tolist()), probabilities=tuple(probabilities[rising].tolist()))


def _thinned(pools: list[list[float]]) -> list[list[float]]:
    """Pool the lightest neighbours until MAX_KNOTS remain."""
    while len(pools) > MAX_KNOTS:
        at = min(range(len(pools) - 1), key=lambda i: pools[i][0] + pools[i + 1][0])
        pools[at : at + 2] = [[a + b for a, b in zip(pools[at], pools[at + 1], strict=True)]]
    return pools
