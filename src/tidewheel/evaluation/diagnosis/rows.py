"""Rows that a diagnosis compares: those of the days online and those held out offline, each ranked or in random order.

Legend: B rows of a group, N rows of all groups.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from tidewheel.contracts.comparison import Estimate
from tidewheel.contracts.diagnosis import Behaviour
from tidewheel.evaluation.intervals import PLAIN, POSITIVE, SHARE, Scale, Users, as_estimate, interval
from tidewheel.evaluation.metrics import Measured, auc, base_rate, calibration_ratio, effective_rows, logloss

EPSILON = 1e-7  # a probability beyond it is a rounding error of float32, and its logit a number of no meaning


@dataclass(frozen=True)
class Rows:
    """Impressions (B,): id of the user, weight, label 0/1, the bundle's re-scored probability, position (NaN: not known).

    `mix`: column -> (B,) its value as text, null as an empty one. `missing`: feature -> (B,) whether the row lacks it.
    """

    users: np.ndarray
    weight: np.ndarray
    labels: np.ndarray
    scores: np.ndarray
    position: np.ndarray
    is_randomized: np.ndarray
    mix: Mapping[str, np.ndarray]
    missing: Mapping[str, np.ndarray] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.weight)

    def take(self, rows: np.ndarray) -> Rows:
        """The rows at these indexes, or where this mask is true."""
        mix = {name: values[rows] for name, values in self.mix.items()}
        return Rows(
            self.users[rows],
            self.weight[rows],
            self.labels[rows],
            self.scores[rows],
            self.position[rows],
            self.is_randomized[rows],
            mix,
            {name: values[rows] for name, values in self.missing.items()},
        )

    @property
    def logits(self) -> np.ndarray:
        return logits_of(self.scores)

    @property
    def rarest(self) -> int:
        """Rows of the rarer class."""
        positives = int((self.labels == 1).sum())
        return min(positives, len(self) - positives)


@dataclass(frozen=True)
class Groups:
    """Groups of rows whose users may be the same people: influence functions of all of them are (N,) arrays."""

    parts: Mapping[str, Rows]
    users: Users

    @classmethod
    def of(cls, parts: Mapping[str, Rows]) -> Groups:
        return cls(parts, Users.of(np.concatenate([rows.users for rows in parts.values()])))

    def __getitem__(self, name: str) -> Rows:
        return self.parts[name]

    def __contains__(self, name: str) -> bool:
        return name in self.parts

    def placed(self, name: str, influence: np.ndarray) -> np.ndarray:
        """(N,) the influence (B,) of one group's rows, nothing of the others'."""
        return np.concatenate([influence if part == name else np.zeros(len(rows)) for part, rows in self.parts.items()])

    def estimate(self, found: Measured, effective: float) -> Estimate:
        return estimate(found, self.users, effective)


def logits_of(probabilities: np.ndarray) -> np.ndarray:
    """(B,) log odds, float64."""
    p = np.clip(np.asarray(probabilities, dtype=np.float64), EPSILON, 1.0 - EPSILON)
    return np.log(p) - np.log1p(-p)


def sigmoid(logits: np.ndarray) -> np.ndarray:
    return 0.5 + 0.5 * np.tanh(0.5 * np.asarray(logits, dtype=np.float64))


def estimate(found: Measured, users: Users, effective: float, scale: Scale = PLAIN) -> Estimate:
    """The value with its 95% interval; null where it is not defined."""
    return as_estimate(found.value, interval(found, users, scale), effective)


def behaviour(rows: Rows, scores: np.ndarray) -> Behaviour:
    """How these probabilities (B,) did on the rows."""
    users, effective = Users.of(rows.users), effective_rows(rows.weight)
    found = {
        "base_rate": (base_rate(rows.labels, rows.weight), SHARE),
        "predicted_to_actual": (calibration_ratio(scores, rows.labels, rows.weight), POSITIVE),
        "log_loss": (logloss(scores, rows.labels, rows.weight), PLAIN),
        "auc": (auc(scores, rows.labels, rows.weight), SHARE),
    }
    shown = {name: estimate(measured, users, effective, scale) for name, (measured, scale) in found.items()}
    return Behaviour(rows=len(rows), **shown)
