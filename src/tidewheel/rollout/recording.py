"""Turns answered requests into the evidence that `analysis` judges."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from tidewheel.contracts.rollout import ArmSummary
from tidewheel.rollout.analysis import ArmEvidence
from tidewheel.rollout.traffic import Outcome

SMALLEST = 1e-7  # probabilities are kept this far from 0 and 1, else one sure mistake would cost infinitely much


class ArmRecorder:
    """Collects one arm. Latencies, requests and errors start anew with every step, outcomes accumulate."""

    def __init__(self, goal_label: str, loss_labels: Sequence[str]) -> None:
        self._goal = goal_label
        self._losses: dict[str, list[float]] = {label: [] for label in loss_labels}
        self._users: list[int] = []
        self._engagement: list[float] = []
        self._predicted: list[float] = []
        self._actual: list[float] = []
        self._impressions: list[float] = []
        self._expected: list[float] = []
        self.start_step()

    def start_step(self) -> None:
        self.requests = 0
        self.errors = 0
        self._latencies: list[float] = []
        self._first = len(self._users)

    def add_error(self) -> None:
        """A request that got no usable answer."""
        self.requests += 1
        self.errors += 1

    def add_latency(self, seconds: float) -> None:
        """A request that was answered."""
        self.requests += 1
        self._latencies.append(seconds)

    def add_outcome(
        self, user_id: int, scores: Mapping[str, np.ndarray], outcome: Outcome, baseline: Mapping[str, np.ndarray]
    ) -> None:
        """What became of an answered request.

        `scores` are this arm's of all candidates, `baseline` production's of the same; the outcome is of what was shown.
        """
        shown = outcome.shown
        weights = np.ones(len(shown)) if outcome.weights is None else outcome.weights
        actual = float(weights @ outcome.labels[self._goal])
        self._users.append(user_id)
        self._engagement.append(actual)
        self._actual.append(actual)
        self._predicted.append(float(weights @ scores[self._goal][shown].astype(np.float64)))
        self._impressions.append(float(weights.sum()))
        self._expected.append(float(np.sort(baseline[self._goal])[-len(shown) :].sum(dtype=np.float64)))
        for label, losses in self._losses.items():
            losses.append(logloss_sum(scores[label][shown], outcome.labels[label], weights))

    def evidence(self) -> ArmEvidence:
        return ArmEvidence(
            requests=self.requests,
            errors=self.errors,
            latencies=np.array(self._latencies),
            users=np.array(self._users, dtype=np.int64),
            engagement=np.array(self._engagement),
            predicted=np.array(self._predicted),
            actual=np.array(self._actual),
            impressions=np.array(self._impressions, dtype=np.float64),
            expected=np.array(self._expected),
            losses={label: np.array(losses) for label, losses in self._losses.items()},
        )

    def summary(self) -> ArmSummary:
        """This step alone, for people."""
        latencies = np.array(self._latencies)
        series = {"engagement": self._engagement, "predicted": self._predicted, "actual": self._actual}
        series |= {f"logloss {label}": losses for label, losses in self._losses.items()}
        means = {name: float(np.mean(values[self._first :])) for name, values in series.items() if values[self._first :]}
        return ArmSummary(
            requests=self.requests,
            errors=self.errors,
            users=len(set(self._users[self._first :])),
            latency_p50_seconds=float(np.quantile(latencies, 0.5)) if len(latencies) else None,
            latency_p95_seconds=float(np.quantile(latencies, 0.95)) if len(latencies) else None,
            means={name: mean for name, mean in means.items() if np.isfinite(mean)},
        )


def logloss_sum(probabilities: np.ndarray, labels: np.ndarray, weights: np.ndarray) -> float:
    """Weighted sum of -log of the probability given to what happened, over (S,) impressions; nats."""
    clipped = np.clip(np.asarray(probabilities, dtype=np.float64), SMALLEST, 1.0 - SMALLEST)
    return float(-(weights @ np.where(labels > 0, np.log(clipped), np.log1p(-clipped))))
