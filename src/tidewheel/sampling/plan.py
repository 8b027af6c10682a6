"""From the recipe's section to the plan of one window: what each executor reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Protocol

from tidewheel.contracts.recipe import WindowConfig
from tidewheel.contracts.sampling import (
    NEGATIVES,
    POSITIVES,
    PROTECTED,
    Balanced,
    NicheBoost,
    PlanCap,
    PlanRule,
    SampleConfig,
    SamplePlan,
)
from tidewheel.contracts.window import Window
from tidewheel.sampling.presets import Facts, Resolved, resolve_preset
from tidewheel.sampling.rules import ColumnKind, check_columns


class Counter(Protocol):
    """Counts training rows by their rule: one pass over the impressions, the same numbers from each executor."""

    @property
    def kinds(self) -> Mapping[str, ColumnKind | None]:
        """Column of the impressions -> what it can be compared with."""
        ...

    def rows_by_rule(self, plan: SamplePlan) -> Mapping[str, int]:
        """Rule name -> training rows whose rule it is; rules without rows may be missing."""
        ...

    def group_sizes(self, plan: SamplePlan, column: str, rule: str) -> Mapping[int, int]:
        """Number of training rows of `rule` that a value of `column` has -> how many values have so many. Null is none."""
        ...


def make_plan(
    config: SampleConfig, window_config: WindowConfig, window: Window, labels: Sequence[str], counter: Counter
) -> SamplePlan:
    """The plan of one window. The data are counted only where the preset needs it, and the counts stand in the plan.

    Raises:
        ConfigError: the recipe names a column that the impressions do not have.
    """
    names, days = tuple(labels), range(window_config.eval_days, window_config.days)
    base = _plan(config, window_config, window, names, Resolved((_negatives(labels, config.negative_rate),)))
    check_columns(base, counter.kinds)
    if config.preset is None:
        return base
    facts = Facts(0, 0, {})
    if isinstance(config.preset, Balanced):
        rows = counter.rows_by_rule(base)
        facts = Facts(rows.get(NEGATIVES, 0), rows.get(POSITIVES, 0), {})
    elif isinstance(config.preset, NicheBoost):
        grouped = PlanCap(column=config.preset.column, rows=1, rules=(NEGATIVES,))
        check_columns(base.model_copy(update={"caps": (grouped,)}), counter.kinds)
        facts = Facts(0, 0, counter.group_sizes(base, config.preset.column, NEGATIVES))
    return _plan(config, window_config, window, names, resolve_preset(config.preset, names, facts, days))


def _negatives(labels: Sequence[str], rate: float) -> PlanRule:
    return PlanRule(name=NEGATIVES, none_of=tuple(labels), rate=rate)


def _plan(
    config: SampleConfig, window_config: WindowConfig, window: Window, labels: tuple[str, ...], preset: Resolved
) -> SamplePlan:
    excluded = [PlanRule(name=group.name, where=group.where, rate=0.0) for group in config.exclude]
    protected = [PlanRule(name=PROTECTED, any_of=config.never_downsample, rate=1.0, is_protected=True)]
    chosen = [PlanRule.model_validate(rule.model_dump()) for rule in config.rules]
    rest = PlanRule(name=POSITIVES, rate=1.0)
    rules = (*excluded, *(protected if config.never_downsample else []), *chosen, *preset.rules, rest)
    capped = tuple(rule.name for rule in rules if rule.rate > 0 and not rule.is_protected)
    caps = tuple(PlanCap(column=cap.column, rows=cap.rows, rules=capped) for cap in config.caps)
    eval_start = window.end - timedelta(days=window_config.eval_days)
    return SamplePlan(
        salt=config.salt,
        window_end=window.end,
        eval_start=eval_start,
        calibration_start=eval_start - timedelta(days=config.calibration_days),
        calibration_share=config.calibration_share,
        rules=rules,
        caps=(*caps, *preset.caps),
        facts=dict(preset.facts or {}),
    )
