"""What a sampler did: rows and weights of each split, and of each rule on the training rows."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from tidewheel.contracts.recipe import WindowConfig
from tidewheel.contracts.sampling import SamplePlan
from tidewheel.contracts.window import Window, iso
from tidewheel.errors import RejectedError
from tidewheel.sampling.estimate import Total, effective_rows

WEIGHT_UNITS = 2**20  # weights are summed as integers of this part, so no order of rows changes a sum


@dataclass(frozen=True)
class RuleTally:
    """The training rows of one rule: how many there were, how many were kept, and the weights of those."""

    rows_in: int = 0
    rows_out: int = 0
    weight_sum: float = 0.0
    squares_sum: float = 0.0
    weight_min: float = math.inf
    weight_max: float = 0.0

    def __add__(self, other: RuleTally) -> RuleTally:
        return RuleTally(
            self.rows_in + other.rows_in,
            self.rows_out + other.rows_out,
            self.weight_sum + other.weight_sum,
            self.squares_sum + other.squares_sum,
            min(self.weight_min, other.weight_min),
            max(self.weight_max, other.weight_max),
        )

    @property
    def effective_rows(self) -> float:
        return effective_rows(self.weight_sum, self.squares_sum)

    @property
    def total(self) -> Total:
        """How many impressions these rows stand for; the variance is `horvitz_thompson`'s, sum w^2 - w."""
        return Total(self.weight_sum, self.squares_sum - self.weight_sum)


@dataclass(frozen=True)
class SplitResult:
    """One split.

    `statistics`: `rows_seen` before selection, `excluded` of them outside the population, `positives.<label>` in the rows
    that were kept; on `train` also `rule.<name>.rows` and `rule.<name>.kept`.
    """

    rows: int
    weight_sum: float
    statistics: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Sampled:
    """All splits, the plan that made them, and what each of its rules did, in its order."""

    splits: dict[str, SplitResult]
    plan: SamplePlan
    rules: dict[str, RuleTally]


def tally_rules(plan: SamplePlan, rules: np.ndarray, is_kept: np.ndarray, weights: np.ndarray) -> list[RuleTally]:
    """One tally a rule of the plan. `rules` and `is_kept` are (N,), `weights` has one number for each kept row."""
    rows_in = np.bincount(rules, minlength=len(plan.rules))
    kept = rules[is_kept]
    found = []
    for number in range(len(plan.rules)):
        own = weights[kept == number]
        if not len(own):
            found.append(RuleTally(rows_in=int(rows_in[number])))
            continue
        sums = float(own.sum()), float(np.square(own).sum())
        found.append(RuleTally(int(rows_in[number]), len(own), *sums, float(own.min()), float(own.max())))
    return found


def weight_units(weights: np.ndarray) -> int:
    """The sum of the weights in units of 1 / WEIGHT_UNITS, each rounded to it: exact, whatever the order."""
    units = np.rint(weights * WEIGHT_UNITS).astype(np.int64)
    return (int((units >> 32).sum()) << 32) + int((units & 0xFFFFFFFF).sum())


def rule_statistics(tallies: Mapping[str, RuleTally]) -> dict[str, float]:
    """What the manifest of the training rows says of each rule."""
    rows = {f"rule.{name}.rows": float(tally.rows_in) for name, tally in tallies.items()}
    return rows | {f"rule.{name}.kept": float(tally.rows_out) for name, tally in tallies.items()}


def check_splits(splits: Mapping[str, SplitResult], window: Window, window_config: WindowConfig, plan: SamplePlan) -> None:
    """There is something to train on, and something to evaluate on.

    Raises:
        RejectedError: there is not.
    """
    places: Sequence[tuple[str, str]] = (("train", "before"), ("eval", "in"))
    for name, place in places:
        if not splits[name].rows:
            excluded = splits[name].statistics.get("excluded", 0.0)
            also = f" ({excluded:.0f} are excluded by the recipe)" if excluded else ""
            raise RejectedError(
                f"window {window}: no {name} rows {place} its last {window_config.eval_days} day(s), from "
                f"{iso(plan.eval_start)}{also}; expected at least one: move --window-end, or check that the log is complete"
            )
