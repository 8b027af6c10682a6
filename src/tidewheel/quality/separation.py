"""That no split tells another what it is judged on: splits share no row, and evaluation lies after training."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pyarrow.compute as pc

from tidewheel.contracts.verdict import Phase, Reason
from tidewheel.quality.rows import Rows

SEPARATE = ("train", "calibration", "eval")  # randomized rows may be evaluation rows too


def separation(splits: Mapping[str, Rows]) -> list[Reason]:
    """Judge that no `row_key` is in two of `SEPARATE` and that training ends before evaluation begins.

    Splits that are empty or lack the column are left to the expectations, which name them.
    """
    reasons = []
    names = [name for name in SEPARATE if name in splits and splits[name].num_rows]
    usable = {name: splits[name] for name in names if {"row_key", "event_time"} <= set(splits[name].column_names)}
    names = list(usable)
    for index, first in enumerate(names):
        for second in names[index + 1 :]:
            reasons.append(_shares_no_row(first, second, usable))
    if {"train", "eval"} <= set(names):
        reasons.append(_ends_before("train", "eval", usable))
    return reasons


def _shares_no_row(first: str, second: str, splits: Mapping[str, Rows]) -> Reason:
    keys = [splits[name]["row_key"].drop_null().to_numpy() for name in (first, second)]
    shared = len(np.intersect1d(*keys))
    phase = Phase.FAILED if shared else Phase.SUCCESSFUL
    message = f"{first} and {second} share {shared} rows; expected 0"
    return Reason(check=f"separation {first} {second}", phase=phase, message=message, value=shared, limit=0)


def _ends_before(first: str, second: str, splits: Mapping[str, Rows]) -> Reason:
    last, begin = pc.max(splits[first]["event_time"]).as_py(), pc.min(splits[second]["event_time"]).as_py()
    check = f"separation {first} before {second}"
    if last is None or begin is None:
        return Reason(check=check, phase=Phase.ERROR, message=f"{first} or {second} has no event time to compare")
    phase = Phase.SUCCESSFUL if last < begin else Phase.FAILED
    sign = "<" if last < begin else ">="
    return Reason(check=check, phase=phase, message=f"{first} ends {last} {sign} {second} begins {begin}")
