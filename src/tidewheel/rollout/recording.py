"""Turns the answered requests of one batch into what `canary` folds."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from tidewheel.contracts.rollout import ArmBatch
from tidewheel.rollout.evidence import SERIES
from tidewheel.rollout.traffic import Outcome

SMALLEST = 1e-7  # probabilities are kept this far from 0 and 1, else one sure mistake would cost infinitely much


class ArmRecorder:
    """Collects one arm of one batch."""

    def __init__(self, goal_label: str, loss_labels: Sequence[str]) -> None:
        self._goal = goal_label
        self.requests = self.errors = 0
        self._latencies: list[float] = []
        self._users: list[int] = []
        self._series: dict[str, list[float]] = {name: [] for name in SERIES}
        self._losses: dict[str, list[float]] = {label: [] for label in loss_labels}
        self._missing: dict[str, dict[int, float]] = {}

    def add_error(self) -> None:
        """A request that got no usable answer."""
        self.requests += 1
        self.errors += 1

    def add_latency(self, seconds: float) -> None:
        """A request that was answered."""
        self.requests += 1
        self._latencies.append(seconds)

    def add_outcome(
        self,
        user_id: int,
        scores: Mapping[str, np.ndarray],
        outcome: Outcome,
        baseline: Mapping[str, np.ndarray],
        missing: Mapping[str, float],
    ) -> None:
        """What became of an answered request.

        Args:
            scores: this arm's of all candidates; the outcome is of what was shown.
            baseline: production's of all candidates.
            missing: see `lost_shares`.
        """
        shown = outcome.shown
        weights = np.ones(len(shown)) if outcome.weights is None else outcome.weights
        goal = scores[self._goal].astype(np.float64)
        actual = float(weights @ outcome.labels[self._goal])
        for feature, share in missing.items():
            self._missing.setdefault(feature, {})[len(self._users)] = share
        self._users.append(user_id)
        found = {
            "engagement": actual,
            "actual": actual,
            "predicted": float(weights @ goal[shown]),
            "impressions": float(weights.sum()),
            "scored": float(goal.mean()),
            "expected": float(np.sort(baseline[self._goal])[-len(shown) :].sum(dtype=np.float64)),
        }
        for name, value in found.items():
            self._series[name].append(value)
        for label, losses in self._losses.items():
            losses.append(logloss_sum(scores[label][shown], outcome.labels[label], weights))

    def fault(self) -> str:
        """Which series holds a number that is none, or an empty text."""
        series = self._series | {"latency": self._latencies} | {f"logloss {x}": y for x, y in self._losses.items()}
        for name, values in series.items():
            if num := sum(not math.isfinite(value) for value in values):
                return f"{name} is not finite in {num} of {len(values)} requests"
        return ""

    def batch(self) -> ArmBatch:
        return ArmBatch(
            requests=self.requests,
            errors=self.errors,
            latencies=tuple(self._latencies),
            users=tuple(self._users),
            losses={label: tuple(losses) for label, losses in self._losses.items()},
            missing={
                feature: tuple(shares.get(at, 0.0) for at in range(len(self._users)))
                for feature, shares in self._missing.items()
            },
            **{name: tuple(values) for name, values in self._series.items()},
        )


def lost_shares(columns: Mapping[str, np.ndarray], production: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Feature -> how much more of its values is null than of what production gets for the same request, where they differ."""
    if columns is production:
        return {}
    lost = {
        name: (_missing_share(columns[name]) if name in columns else 1.0) - _missing_share(production[name])
        for name in production
    }
    return {name: share for name, share in lost.items() if share}


def _missing_share(values: np.ndarray) -> float:
    """Share of NaN, None, or of the histories that are empty."""
    if values.ndim > 1:
        return float(values.shape[1] == 0)
    if not len(values):
        return 1.0
    if values.dtype.kind == "f":
        return float(np.isnan(values).mean())
    return float(np.mean([value is None for value in values])) if values.dtype.kind == "O" else 0.0


def logloss_sum(probabilities: np.ndarray, labels: np.ndarray, weights: np.ndarray) -> float:
    """Weighted sum of -log of the probability given to what happened, over (S,) impressions; nats."""
    clipped = np.clip(np.asarray(probabilities, dtype=np.float64), SMALLEST, 1.0 - SMALLEST)
    return float(-(weights @ np.where(labels > 0, np.log(clipped), np.log1p(-clipped))))
