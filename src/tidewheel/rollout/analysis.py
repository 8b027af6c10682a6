"""Judges the evidence of a canary at every look: values in, signals with their numbers out. Pure.

| signal | proven harmless | proven harmful |
| --- | --- | --- |
| engagement (closed loop) | candidate / control - 1 > -max_engagement_drop | < 0, and not proven harmless |
| logloss of a label (replay) | candidate - control < max_logloss_rise | > 0, and not proven harmless |
| calibration | predicted / actual within max_calibration_error of 1, or of control's | beyond it, and beyond control's |
| scores | mean score / control's - 1 within max_score_shift of 0 | beyond it |
| coverage | share of missing values - control's < max_coverage_drop, every feature | > it, any feature |
| errors | share of failed requests < max_error_rate | > max_error_rate |
| latency | median / control's median < max_latency_ratio | > max_latency_ratio |

All are guards. Those named in `goals` have to do better than control to pass: engagement > 0, log-loss < 0.

To pass, *all* signals must be proven harmless, so each may use all of `alpha`: a candidate that is truly harmful in one
of them has to fool that one (intersection-union test; Berger 1982, "Multiparameter hypothesis testing and acceptance
sampling", Technometrics 24(4)). To fail, *one* proof of harm is enough, so `alpha` is split over signals, and over steps
where a signal starts anew in each. Hence: P(harmful passes) <= alpha and P(harmless is called harmful) <= alpha.

Engagement, log-loss, calibration, scores and coverage belong to the model and its features, which do not change between steps:
their evidence accumulates. Errors and latency depend on the load, which does change: they start anew in every step.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from tidewheel.contracts.recipe import DeployConfig
from tidewheel.contracts.rollout import Better, PlannedSignal, Role, Signal
from tidewheel.contracts.verdict import Phase
from tidewheel.rollout import signals
from tidewheel.rollout.evidence import Evidence

STARTS_ANEW = ("errors", "latency")


def planned(config: DeployConfig, labels: Sequence[str], is_closed_loop: bool, has_control: bool) -> tuple[PlannedSignal, ...]:
    """What a canary will judge, and the level at which each signal proves harm.

    Args:
        labels: whose log-loss is compared in replay.
    """
    limits: dict[str, tuple[Better, float]] = {
        "errors": ("lower", config.max_error_rate),
        "calibration": ("near", config.max_calibration_error),
    }
    if has_control:
        limits["latency"] = ("lower", config.max_latency_ratio)
        limits["scores"] = ("near", config.max_score_shift)
        limits["coverage"] = ("higher", -config.max_coverage_drop)
        if is_closed_loop:
            limits["engagement"] = ("higher", -config.max_engagement_drop)
        else:
            limits |= {f"logloss {label}": ("lower", config.max_logloss_rise) for label in labels}
    level = config.alpha / len(limits)
    return tuple(
        PlannedSignal(
            name=name,
            better=better,
            limit=limit,
            role=Role.GOAL if name in config.goals else Role.GUARD,
            harm_alpha=level / len(config.steps) if name in STARTS_ANEW else level,
        )
        for name, (better, limit) in limits.items()
    )


_planned = lru_cache(maxsize=8)(planned)  # the same at every look


def assess(evidence: Evidence, config: DeployConfig) -> tuple[Signal, ...]:
    """Every signal of this canary at this look. Never raises on data: what is not finite is an `Error`."""
    if evidence.fault:
        return (Signal(name="evidence", phase=Phase.ERROR, message=evidence.fault),)
    labels = tuple(sorted(evidence.candidate.labels))
    plans = _planned(config, labels, evidence.is_closed_loop, evidence.control is not None)
    return tuple(signals.judge(plan, evidence, config) for plan in plans)
