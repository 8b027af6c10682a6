"""Presets: counts of the window in, concrete rules out. They say how rows that no rule of the recipe met are kept."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from tidewheel.contracts.sampling import (
    AGE,
    MICRO,
    NEGATIVES,
    AllPositives,
    Balanced,
    NicheBoost,
    PlanCap,
    PlanRule,
    Preset,
    Range,
    TrendAdjusted,
)


@dataclass(frozen=True)
class Facts:
    """Counts of the training rows that no rule of the recipe met.

    Attributes:
        negatives: rows without any positive label.
        positives: the others.
        group_sizes: how many negatives a value of the preset's column has -> how many values have so many.
    """

    negatives: int
    positives: int
    group_sizes: Mapping[int, int]


@dataclass(frozen=True)
class Resolved:
    """Rules and caps for one window, and the counts that they came from."""

    rules: tuple[PlanRule, ...]
    caps: tuple[PlanCap, ...] = ()
    facts: Mapping[str, int] | None = None


def resolve_preset(preset: Preset, labels: tuple[str, ...], facts: Facts, train_days: range) -> Resolved:
    """The preset's rules. `train_days`: days before the window's end that training rows can have, the newest first."""
    if isinstance(preset, AllPositives):
        return all_positives(preset, labels)
    if isinstance(preset, Balanced):
        return balanced(preset, labels, facts)
    if isinstance(preset, NicheBoost):
        return niche_boost(preset, labels, facts)
    return trend_adjusted(preset, labels, train_days)


def all_positives(preset: AllPositives, labels: tuple[str, ...]) -> Resolved:
    """Every positive, and `negative_rate` of the negatives.

    Trades precision about negatives (their weight is 1 / negative_rate) for a smaller table whose size still follows the
    traffic. The choice where nothing is known of the data.
    """
    return Resolved((_negatives(labels, preset.negative_rate),))


def balanced(preset: Balanced, labels: tuple[str, ...], facts: Facts) -> Resolved:
    """Every positive, and about `negatives_per_positive` times as many negatives, never under `min_rate` of them.

    Trades a rate that moves with the data for a table whose size follows the positives: the cheapest table that still
    holds all that positives can teach. Weights restore the true share of positives; without them a model trained on it
    would predict about 1 / (1 + negatives_per_positive) on average (King and Zeng 2001, "Logistic regression in rare events
    data", Political Analysis 9(2), on weighting).
    """
    wanted = preset.negatives_per_positive * facts.positives / facts.negatives if facts.negatives else 1.0
    counted = {"negatives": facts.negatives, "positives": facts.positives}
    return Resolved((_negatives(labels, _rounded(min(1.0, max(preset.min_rate, wanted)))),), facts=counted)


def niche_boost(preset: NicheBoost, labels: tuple[str, ...], facts: Facts) -> Resolved:
    """Every positive, every negative of the rarest `niche_share` of the column's values, and of the others as many each.

    Trades precision about popular items, of which there is plenty, for a table in which niche ones are seen. No value's
    negatives are kept with less than `min_rate`, so no weight grows by more than 1 / min_rate.
    """
    rows = max(1, quantile(facts.group_sizes, preset.niche_share))
    cap = PlanCap(column=preset.column, rows=rows, rules=(NEGATIVES,), min_factor=preset.min_rate)
    counted = {"values": sum(facts.group_sizes.values()), "rows_of_niche_value": rows}
    return Resolved((_negatives(labels, 1.0),), (cap,), counted)


def trend_adjusted(preset: TrendAdjusted, labels: tuple[str, ...], train_days: range) -> Resolved:
    """Every positive, every negative of the newest training day, and half as many for each `half_life_days` before.

    Trades precision about the past for a smaller table that knows the present as well as a full one. Weights undo it in
    expectation: the model still learns the whole window, not only its end. Shorten the window to forget.
    """
    rules: list[PlanRule] = []
    for age, day in enumerate(train_days):
        rate = _rounded(max(preset.min_rate, 2.0 ** (-age / preset.half_life_days)))
        if rules and rules[-1].rate == rate:  # at the floor: one rule for all days there
            oldest = rules[-1].where[AGE]
            assert isinstance(oldest, Range)
            rules[-1] = rules[-1].model_copy(update={"where": {AGE: oldest.model_copy(update={"below": day + 1})}})
            continue
        one_day = Range(at_least=day, below=day + 1)
        rules.append(PlanRule(name=f"{NEGATIVES}_of_day_{day}", none_of=labels, where={AGE: one_day}, rate=rate))
    return Resolved((*rules, _negatives(labels, 1.0)))


def quantile(sizes: Mapping[int, int], share: float) -> int:
    """The smallest size that at least `share` of the groups do not exceed; 0 without groups. `sizes`: size -> groups."""
    wanted, seen = math.ceil(share * sum(sizes.values())), 0
    for size in sorted(sizes):
        seen += sizes[size]
        if seen >= wanted:
            return size
    return 0


def _negatives(labels: tuple[str, ...], rate: float) -> PlanRule:
    return PlanRule(name=NEGATIVES, none_of=labels, rate=rate)


def _rounded(rate: float) -> float:
    """To six decimals, so that people can read and repeat it; never 0."""
    return max(1, round(rate * MICRO)) / MICRO
