"""How many rows a comparison needs, from the error that it has now. Pure."""

from __future__ import annotations

from statistics import NormalDist

from tidewheel.contracts.comparison import Estimate

POWER = 0.9
TWO_SIDED = NormalDist().inv_cdf(0.975)


def error_of(difference: Estimate) -> float | None:
    """The standard error that its interval stands for; None without an interval."""
    if difference.value is None or difference.lower is None or difference.upper is None:
        return None
    return (difference.upper - difference.lower) / 2 / TWO_SIDED


def detectable(difference: Estimate, power: float = POWER) -> float | None:
    """The smallest difference that as many rows as these would show in a share `power` of all logs (minimum detectable
    effect; Cohen 1988, section 1.5), in the metric's unit; None without an interval.
    """
    error = error_of(difference)
    return None if error is None else (TWO_SIDED + NormalDist().inv_cdf(power)) * error


def rows_to_detect(difference: Estimate, distance: float, power: float = POWER) -> float | None:
    """Effective rows at which a difference of `distance` would be shown with that power: errors fall with their root."""
    found = detectable(difference, power)
    return None if found is None or not distance > 0 else difference.effective_rows * (found / distance) ** 2
