"""Drift: how far the new rows lie from those that production was trained on. Pure: profiles in, reasons out."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.special import chdtri

from tidewheel.contracts.evidence import Profile
from tidewheel.contracts.recipe import ValidateConfig
from tidewheel.contracts.verdict import Phase, Reason

# One in a thousand: a run makes a few dozen of these comparisons, and a false alarm stops it.
NOISE_LEVEL = 0.001
PSEUDO_ROWS = 0.5  # a bin, Jeffreys: an empty bin on one side gives a large but finite distance


def psi(new: Sequence[float] | np.ndarray, old: Sequence[float] | np.ndarray, new_rows: float, old_rows: float) -> float:
    """Population stability index, sum of (p - q) ln(p / q) over bins, of two histograms over the same bins.

    Args:
        new, old: shares of each bin (N,), summing to 1.
        new_rows, old_rows: effective sample sizes; shares are smoothed by `PSEUDO_ROWS` rows a bin.
    """
    p = _smoothed(np.asarray(new, dtype=np.float64), new_rows)
    q = _smoothed(np.asarray(old, dtype=np.float64), old_rows)
    return float(np.sum((p - q) * np.log(p / q)))


def noise(num_bins: int, new_rows: float, old_rows: float) -> float:
    """What the index reaches by chance alone once in 1 / `NOISE_LEVEL` comparisons of unchanged data.

    Without drift PSI is distributed as (1/n + 1/m) chi-squared with N - 1 degrees of freedom (Yurdakul & Naranjo 2020,
    "Statistical properties of the population stability index", J. Risk Model Validation 14(4)); n and m are the
    effective sample sizes. Rows of one user resemble each other, so the truth lies somewhat above.
    """
    if num_bins < 2:
        return 0.0
    return (1.0 / max(new_rows, 1.0) + 1.0 / max(old_rows, 1.0)) * float(chdtri(num_bins - 1, NOISE_LEVEL))


def drift(new: Profile, baseline: Profile, config: ValidateConfig) -> list[Reason]:
    """Judge every feature and label of `baseline` against `new`, the same bins filled with the new rows.

    A feature fails when its index is above the limit by more than chance explains. Features in
    `config.unchecked_drift`, and those that the baseline does not know, are reported and never fail. Where chance alone
    could reach twice the limit, an index above the limit proves nothing: Inconclusive.
    """
    reasons = []
    for name in sorted(baseline.shares):
        bins = np.asarray(baseline.shares[name]), np.asarray(new.shares.get(name, ()))
        reasons.append(_feature(name, *bins, new, baseline, config))
    for label in sorted(baseline.label_rates):
        reasons.append(_label(label, new, baseline, config))
    return reasons


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


def _feature(name: str, old: np.ndarray, found: np.ndarray, new: Profile, baseline: Profile, config: ValidateConfig) -> Reason:
    check = f"drift {name}"
    is_checked = name not in config.unchecked_drift
    if len(found) != len(old):
        message = f"{check}: production was trained with it, the new rows do not have it"
        return Reason(check=check, phase=Phase.FAILED if is_checked else Phase.SUCCESSFUL, message=message)
    used = (old > 0) | (found > 0)
    value = psi(found[used], old[used], new.effective_rows, baseline.effective_rows)
    allowance = noise(int(used.sum()), new.effective_rows, baseline.effective_rows)
    if not is_checked:
        message = f"{check}: psi {value:.4f}, reported only (unchecked_drift)"
        return Reason(check=check, phase=Phase.SUCCESSFUL, message=message, value=value)
    return _compare(check, value, config.max_psi, allowance, "")


def _label(label: str, new: Profile, baseline: Profile, config: ValidateConfig) -> Reason:
    check = f"drift label {label}"
    old = baseline.label_rates[label]
    if label not in new.label_rates:
        return Reason(
            check=check, phase=Phase.FAILED, message=f"{check}: production was trained with it, the new rows do not have it"
        )
    rate = new.label_rates[label]
    value = psi((rate, 1 - rate), (old, 1 - old), new.effective_rows, baseline.effective_rows)
    allowance = noise(2, new.effective_rows, baseline.effective_rows)
    return _compare(check, value, config.max_label_psi, allowance, f" (rate {rate:.4f}, was {old:.4f})")


def _compare(check: str, value: float, limit: float, allowance: float, note: str) -> Reason:
    if not np.isfinite(value):
        return Reason(check=check, phase=Phase.ERROR, message=f"{check}: psi is not a finite number", limit=limit)
    if value <= limit:
        phase, says = Phase.SUCCESSFUL, f"psi {value:.4f} <= {limit:g}"
    elif value > limit + allowance:
        phase, says = Phase.FAILED, f"psi {value:.4f} > {limit:g} + {allowance:.4f} of chance"
    elif allowance <= limit:
        phase, says = Phase.SUCCESSFUL, f"psi {value:.4f} > {limit:g}, but within {allowance:.4f} of chance"
    else:
        phase, says = (
            Phase.INCONCLUSIVE,
            f"psi {value:.4f} > {limit:g}, and chance alone reaches {allowance:.4f}: too few effective rows",
        )
    return Reason(check=check, phase=phase, message=f"{check}: {says}{note}", value=value, limit=limit)


def _smoothed(shares: np.ndarray, rows: float) -> np.ndarray:
    return (shares * rows + PSEUDO_ROWS) / (shares.sum() * rows + PSEUDO_ROWS * len(shares))
