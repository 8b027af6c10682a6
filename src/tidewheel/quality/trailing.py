"""A window beside those before it: limits of volume, label rates and freshness. Pure: records in, limits out."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow.compute as pc

from tidewheel.contracts.evidence import Profile, WindowRecord
from tidewheel.contracts.recipe import ValidateConfig
from tidewheel.contracts.schema import label_column
from tidewheel.contracts.window import Window
from tidewheel.quality.rows import Rows

MIN_WINDOWS = 2
DEVIATIONS = 3.0
TO_DEVIATION = 1.4826  # median absolute deviation of a normal distribution -> its standard deviation


@dataclass(frozen=True)
class Range:
    """One number of the window and where it should lie; `is_judged` is false where there is too little to compare with."""

    check: str
    value: float
    lower: float
    upper: float
    words: str
    is_judged: bool = True


def window_record(window: Window, splits: Mapping[str, Rows], profile: Profile) -> WindowRecord:
    """What later windows will be judged against; `newest` is over all splits."""
    times = [rows["event_time"] for rows in splits.values() if rows.num_rows and "event_time" in rows.column_names]
    newest = [moment for column in times if (moment := pc.max(column).as_py()) is not None]
    return WindowRecord(
        window=window,
        rows=profile.rows,
        weight_sum=profile.weight_sum,
        label_rates=profile.label_rates,
        label_precision={
            label: profile.precision[label_column(label)].effective_rows
            for label in profile.label_rates
            if label_column(label) in profile.precision
        },
        newest=max(newest) if newest else None,
    )


def ranges(record: WindowRecord, trailing: Sequence[WindowRecord], config: ValidateConfig) -> list[Range]:
    """The numbers of this window with the limits that the recipe and the windows before it set.

    Without a single time of an impression the age is infinite, which no limit holds.
    """
    age = (record.window.end - record.newest).total_seconds() / 3600 if record.newest else math.inf
    found = [
        Range("freshness", age, -math.inf, config.max_age_hours, f"newest impression {age:.1f} hours before the window's end"),
        _volume(record, trailing, config),
    ]
    return [*found, *(_label_rate(label, record, trailing, config) for label in sorted(record.label_rates))]


def band(values: Sequence[float], change: float) -> tuple[float, float, float]:
    """Median of positive values, and the limits either way: `change` times it, or as much as the values themselves vary.

    Works on logarithms, so halving and doubling are equally far: |ln(x / median)| <= max(ln(1 + change), 3 * 1.4826 * MAD),
    MAD the median absolute deviation of ln x (Rousseeuw & Croux 1993), which one bad window among the rest does not move.
    """
    logs = np.log(np.asarray(values, dtype=np.float64))
    middle = float(np.median(logs))
    spread = DEVIATIONS * TO_DEVIATION * float(np.median(np.abs(logs - middle)))
    width = max(math.log1p(change), spread)
    return math.exp(middle), math.exp(middle - width), math.exp(middle + width)


def _volume(record: WindowRecord, trailing: Sequence[WindowRecord], config: ValidateConfig) -> Range:
    value, known = record.weight_sum, [earlier.weight_sum for earlier in trailing if earlier.weight_sum > 0]
    words = f"training rows stand for {value:,.0f} impressions"
    if len(known) < MIN_WINDOWS:
        return Range("volume", value, 0.0, math.inf, f"{words}{_too_few(known)}", is_judged=False)
    middle, lower, upper = band(known, config.max_volume_change)
    return Range("volume", value, lower, upper, f"{words}, median of {len(known)} windows {middle:,.0f}")


def _label_rate(label: str, record: WindowRecord, trailing: Sequence[WindowRecord], config: ValidateConfig) -> Range:
    value, check = record.label_rates[label], f"label_rate {label}"
    known = [earlier.label_rates[label] for earlier in trailing if earlier.label_rates.get(label, 0) > 0]
    words = f"rate of {label} {value:.4f}"
    if len(known) < MIN_WINDOWS:
        return Range(check, value, 0.0, 1.0, f"{words}{_too_few(known)}", is_judged=False)
    middle, lower, upper = band(known, config.max_label_rate_change)
    rows = record.label_precision.get(label, 0.0)
    chance = DEVIATIONS * math.sqrt((1 - middle) / (middle * rows)) if rows > 0 else 0.0
    lower, upper = lower * math.exp(-chance), min(1.0, upper * math.exp(chance))
    return Range(check, value, lower, upper, f"{words}, median of {len(known)} windows {middle:.4f}")


def _too_few(known: Sequence[float]) -> str:
    return f", {len(known)} earlier window{'' if len(known) == 1 else 's'}: at least {MIN_WINDOWS} to judge by, reported only"
