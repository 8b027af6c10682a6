"""Drift: how far the new rows lie from those that production was trained on. Pure: profiles in, comparisons and reasons out."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from tidewheel.contracts.evidence import Comparison, Precision, Profile
from tidewheel.contracts.recipe import ValidateConfig
from tidewheel.contracts.schema import label_column
from tidewheel.contracts.verdict import Phase, Reason
from tidewheel.quality.distance import Interval, ks_interval, psi_interval


def num_comparisons(baseline: Profile) -> int:
    """How many drift comparisons a run makes: the false-alarm rate is shared out among them."""
    return len(baseline.shares) + len(baseline.quantiles) + len(baseline.label_rates)


def drift(new: Profile, baseline: Profile, config: ValidateConfig, level: float) -> tuple[list[Reason], list[Comparison]]:
    """Judge every feature and label of `baseline` against `new`, the same bins filled with the new rows.

    Args:
        level: false-alarm rate of one comparison.

    Returns:
        A reason each comparison, and the comparisons. Features in `config.unchecked_drift` are reported and never fail.
    """
    found: list[tuple[Reason, Comparison]] = []
    for name in sorted(baseline.shares):
        found.append(_feature(name, new, baseline, config, level))
        if name in baseline.quantiles and name in new.quantiles:
            found.append(_distribution(name, new, baseline, config, level))
    for label in sorted(baseline.label_rates):
        found.append(_label(label, new, baseline, config, level))
    return [reason for reason, _ in found], [comparison for _, comparison in found]


def unknown_features(baseline: Profile, names: Sequence[str]) -> list[Reason]:
    """One Successful reason for each feature that production was not trained with: there is nothing to compare it to."""
    return [
        Reason(
            check=f"drift {name}",
            phase=Phase.SUCCESSFUL,
            message=f"drift {name}: not in production's profile, nothing to compare",
        )
        for name in names
        if name not in baseline.shares
    ]


def judge(comparison: Comparison, floor: float, note: str = "", is_judged: bool = True) -> Reason:
    """Phase and sentence of one comparison. Never raises on data.

    Failed: the lower bound is above the limit. Inconclusive: fewer effective rows than `floor`, or a value above the limit
    that chance alone could have made of nothing at all (the lower bound is 0). Else Successful.
    """
    name, value, limit = comparison.statistic, comparison.value, comparison.limit
    rows = min(comparison.effective_rows, comparison.baseline_rows or math.inf)

    def reason(phase: Phase, words: str) -> Reason:
        return Reason(check=comparison.check, phase=phase, message=f"{comparison.check}: {words}", value=value, limit=limit)

    if value is None or comparison.lower is None:
        return reason(Phase.ERROR, f"{name} is not a finite number")
    interval = f" [{comparison.lower:.4f}, {_number(comparison.upper)}], {rows:,.0f} effective rows{note}"
    if not is_judged:
        return reason(Phase.SUCCESSFUL, f"{name} {value:.4f}{interval}, reported only (unchecked_drift)")
    if rows < floor:
        return reason(Phase.INCONCLUSIVE, f"{name} {value:.4f}{interval} < {floor:,.0f}: too few to judge")
    if comparison.lower > limit:
        return reason(Phase.FAILED, f"{name} {value:.4f} > {limit:g} beyond chance{interval}")
    if value <= limit:
        return reason(Phase.SUCCESSFUL, f"{name} {value:.4f} <= {limit:g}{interval}")
    if comparison.lower == 0:
        return reason(Phase.INCONCLUSIVE, f"{name} {value:.4f} > {limit:g}, but chance alone may reach it{interval}")
    return reason(Phase.SUCCESSFUL, f"{name} {value:.4f} > {limit:g}, but within chance{interval}")


def precision_of(profile: Profile, column: str, num_bins: int) -> Precision:
    """As measured, or that of independent rows for a profile from before it was."""
    return profile.precision.get(column) or Precision(
        effective_rows=profile.effective_rows, degrees=float(max(num_bins - 1, 1))
    )


def _feature(name: str, new: Profile, baseline: Profile, config: ValidateConfig, level: float) -> tuple[Reason, Comparison]:
    old, found = np.asarray(baseline.shares[name]), np.asarray(new.shares.get(name, ()))
    is_judged, subject = name not in config.unchecked_drift, f"drift {name}"
    if len(found) != len(old):
        return _vanished(subject, name, config.max_psi, is_judged)
    return _psi(subject, name, name, (found, old), (new, baseline), config, config.max_psi, level, "", is_judged)


def _label(label: str, new: Profile, baseline: Profile, config: ValidateConfig, level: float) -> tuple[Reason, Comparison]:
    check, old = f"drift label {label}", baseline.label_rates[label]
    if label not in new.label_rates:
        return _vanished(check, label, config.max_label_psi, True)
    rate = new.label_rates[label]
    pair = np.array([1 - rate, rate]), np.array([1 - old, old])
    note = f" (rate {rate:.4f}, was {old:.4f})"
    return _psi(check, label, label_column(label), pair, (new, baseline), config, config.max_label_psi, level, note, True)


def _psi(
    check: str,
    subject: str,
    column: str,
    shares: tuple[np.ndarray, np.ndarray],
    profiles: tuple[Profile, Profile],
    config: ValidateConfig,
    limit: float,
    level: float,
    note: str,
    is_judged: bool,
) -> tuple[Reason, Comparison]:
    used = int(((shares[0] > 0) | (shares[1] > 0)).sum())
    new, old = (precision_of(profile, column, used) for profile in profiles)
    interval = psi_interval(*shares, new, old, level)
    comparison = compared(check, subject, "psi", interval, limit, new.effective_rows, old.effective_rows)
    return judge(comparison, config.min_effective_rows, note, is_judged), comparison


def _distribution(
    name: str, new: Profile, baseline: Profile, config: ValidateConfig, level: float
) -> tuple[Reason, Comparison]:
    found, old = new.quantiles[name], baseline.quantiles[name]
    interval = ks_interval(found, old, level)
    rows = found.effective_rows, old.effective_rows
    comparison = compared(f"drift {name} ks", name, "ks", interval, config.max_ks, *rows)
    is_judged = name not in config.unchecked_drift
    return judge(comparison, config.min_effective_rows, "", is_judged), comparison


def compared(
    check: str, subject: str, statistic: str, interval: Interval, limit: float, rows: float, baseline_rows: float | None
) -> Comparison:
    """The comparison as a contract, which holds no number that is not finite."""
    value, lower, upper = (bound if math.isfinite(bound) else None for bound in interval)
    return Comparison(
        check=check,
        subject=subject,
        statistic=statistic,
        value=value,
        lower=lower if value is not None else None,
        upper=upper,
        limit=limit,
        effective_rows=rows,
        baseline_rows=baseline_rows,
    )


def _vanished(check: str, subject: str, limit: float, is_judged: bool) -> tuple[Reason, Comparison]:
    message = f"{check}: production was trained with it, the new rows do not have it"
    phase = Phase.FAILED if is_judged else Phase.SUCCESSFUL
    reason = Reason(check=check, phase=phase, message=message)
    return reason, Comparison(check=check, subject=subject, statistic="psi", value=None, limit=limit)


def _number(value: float | None) -> str:
    return "inf" if value is None else f"{value:.4f}"
