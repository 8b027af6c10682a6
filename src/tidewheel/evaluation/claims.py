"""Is a difference proven to be on the right side of a margin? Pure; never raises on data."""

from __future__ import annotations

import math

from tidewheel.contracts.comparison import Estimate
from tidewheel.contracts.evaluation import ClaimKind
from tidewheel.contracts.verdict import Phase, Reason
from tidewheel.evaluation.planning import detectable, rows_to_detect


def prove(
    check: str, kind: ClaimKind, margin: float, difference: Estimate | None, is_better_when_higher: bool = True
) -> Reason:
    """Proven where the whole interval is on its side of the margin.

    What is neither proven nor refuted says how many rows would prove it, if the difference stays what it seems to be now.
    """
    lower, upper = bounds_of(difference)
    if difference is None or lower is None or upper is None:
        return undefined(check, margin)
    sign = 1 if is_better_when_higher else -1
    worst, best = sorted((sign * lower, sign * upper))  # in the better direction
    if kind is ClaimKind.EQUIVALENT:
        is_met, is_missed = -margin < worst and best < margin, best <= -margin or worst >= margin
        distance = margin - abs(difference.value or 0.0)
        wanted, limit = f"within ±{margin:.4f}", margin
    else:
        threshold = margin if kind is ClaimKind.SUPERIOR else -margin
        is_met, is_missed = worst > threshold, best <= threshold
        distance = sign * (difference.value or 0.0) - threshold
        limit = sign * threshold
        wanted = f"{'above' if sign > 0 else 'below'} {limit:+.4f}"
    shown = f"{check}: [{lower:+.4f}, {upper:+.4f}]"
    bound = sign * worst
    if is_met:
        return reason_of(check, Phase.SUCCESSFUL, f"{shown} is {wanted}", bound, limit)
    if is_missed:
        return reason_of(check, Phase.FAILED, f"{shown} is not {wanted}", sign * best, limit)
    message = f"{shown} is neither proven nor disproven to be {wanted}; {_what_would_settle(difference, distance)}"
    return reason_of(check, Phase.INCONCLUSIVE, message, bound, limit)


def bounds_of(estimate: Estimate | None) -> tuple[float, float] | tuple[None, None]:
    """Its interval, or two Nones where it has no finite one."""
    if estimate is None or estimate.value is None or estimate.lower is None or estimate.upper is None:
        return None, None
    if not all(map(math.isfinite, (estimate.value, estimate.lower, estimate.upper))):
        return None, None
    return estimate.lower, estimate.upper


def undefined(check: str, limit: float) -> Reason:
    return reason_of(check, Phase.ERROR, f"{check}: no finite interval to compare with {limit:g}", None, limit)


def reason_of(check: str, phase: Phase, message: str, value: float | None = None, limit: float | None = None) -> Reason:
    return Reason(check=check, phase=phase, message=message, value=value, limit=limit)


def _what_would_settle(difference: Estimate, distance: float) -> str:
    smallest, rows = detectable(difference), rows_to_detect(difference, distance)
    found = f"{difference.effective_rows:,.0f} effective rows show differences of {smallest:.4f} or more in 9 of 10 logs"
    return found if rows is None else f"{found}; if it stays as it is, about {rows:,.0f} would prove it"
