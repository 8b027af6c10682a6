"""What another policy would have earned, from a log of random choices: off-policy estimates with intervals. Pure.

Legend: B logged choices; r reward, p the probability with which the log chose what it did, q that of the new policy for the
same choice, rho = q / p, w the weight of the row (1 / inclusion probability). Every estimate is a `Measured`, so that intervals
are over users and differences of two policies are paired.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tidewheel.evaluation.metrics import Measured, effective_rows, ratio


@dataclass(frozen=True)
class Logged:
    """Rewards, propensities p in (0, 1], the new policy's probabilities q in [0, 1] and weights, all (B,)."""

    reward: np.ndarray
    propensity: np.ndarray
    target: np.ndarray
    weight: np.ndarray

    def __post_init__(self) -> None:
        shapes = {name: getattr(self, name).shape for name in ("reward", "propensity", "target", "weight")}
        if len(set(shapes.values())) != 1:
            raise ValueError(f"shapes differ: {shapes}; expected one number a row in each")
        for name, is_fine, expected in (
            ("propensity", (self.propensity > 0) & (self.propensity <= 1), "in (0, 1]"),
            ("target", (self.target >= 0) & (self.target <= 1), "in [0, 1]"),
            ("weight", (self.weight > 0) & np.isfinite(self.weight), "finite and above 0"),
            ("reward", np.isfinite(self.reward), "finite"),
        ):
            if not is_fine.all():
                raise ValueError(f"{name}: {int((~is_fine).sum())} of {len(is_fine)} are not {expected}")

    @property
    def rho(self) -> np.ndarray:
        """(B,) importance weights."""
        return self.target / self.propensity


@dataclass(frozen=True)
class Support:
    """How much of the log speaks about the new policy.

    `effective_rows`: Kish's, of w rho. `reached`: weighted share of rows that the new policy could have chosen. `mean_rho`: 1
    up to noise where the log could have chosen all that the new policy may; less means that it lacks some. `largest_share`:
    what a single row has of the sum of w rho.
    """

    effective_rows: float
    reached: float
    mean_rho: float
    largest_share: float


def support(log: Logged) -> Support:
    weights = log.weight * log.rho
    total, rows = float(weights.sum()), float(log.weight.sum())
    return Support(
        effective_rows=effective_rows(weights),
        reached=float(log.weight[log.target > 0].sum()) / rows if rows else 0.0,
        mean_rho=total / rows if rows else 0.0,
        largest_share=float(weights.max()) / total if total > 0 else 1.0,
    )


def ips(log: Logged) -> Measured:
    """Inverse propensity score: weighted mean of rho r (Horvitz & Thompson 1952). Unbiased; explodes with rho."""
    return ratio(log.weight, log.rho * log.reward, 1.0)


def snips(log: Logged) -> Measured:
    """Self-normalized: sum w rho r / sum w rho (Swaminathan & Joachims 2015, eq. 9). Within the range of rewards."""
    return ratio(log.weight, log.rho * log.reward, log.rho)


def clipped_ips(log: Logged, limit: float) -> Measured:
    """IPS with rho cut at `limit` (Ionides 2008, eq. 2): less variance, and too low for rewards above 0 by what was cut."""
    return ratio(log.weight, np.minimum(log.rho, limit) * log.reward, 1.0)


def doubly_robust(log: Logged, expected: np.ndarray, expected_of_target: np.ndarray) -> Measured:
    """A model of the reward, corrected where the log says otherwise (Dudík et al. 2014, eq. 8): right if either is.

    Args:
        expected: (B,) the model's reward of the logged choice; the model must not have seen these rows.
        expected_of_target: (B,) its mean over what the new policy would choose instead.
    """
    return ratio(log.weight, expected_of_target + log.rho * (log.reward - expected), 1.0)


def switch_doubly_robust(log: Logged, expected: np.ndarray, expected_of_target: np.ndarray, limit: float) -> Measured:
    """As `doubly_robust`, with the correction only where rho is at most `limit` (Wang et al. 2017, eq. 10)."""
    correction = np.where(log.rho <= limit, log.rho * (log.reward - expected), 0.0)
    return ratio(log.weight, expected_of_target + correction, 1.0)
