"""One sentence a cause, with its numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from tidewheel.contracts.comparison import Estimate
from tidewheel.contracts.diagnosis import CauseKind, Places
from tidewheel.evaluation.diagnosis.lost_features import Lost
from tidewheel.evaluation.diagnosis.outcome_shifts import OFFLINE, ONLINE, Shifts
from tidewheel.evaluation.diagnosis.rows import Groups, Rows
from tidewheel.evaluation.diagnosis.serving_skew import Skew
from tidewheel.evaluation.metrics import calibration_ratio

NAMED = 4  # features in a sentence


def of_serving(skew: Skew, share: float) -> str:
    """What the server had instead, on which share of the rows, and how much of the gap that reproduces."""
    names = _listed(skew.features)
    proof = f"so {skew.explained:.1%} of the gap to the re-scored logits is reproduced"
    if skew.kind is CauseKind.COVERAGE:
        instead = "0 where it has a value" if skew.detail == "zero" else "missing"
        return f"{names} was {instead} when {share:.1%} of the rows were scored: {proof}"
    if skew.kind is CauseKind.STALENESS:
        return f"{names} {_were(skew)} served as of {skew.detail} on {share:.1%} of the rows: {proof}"
    if skew.kind is CauseKind.VALUE_DRIFT:
        how = "with other values" if skew.detail == "other" else skew.detail
        return f"{names} was served {how} on {share:.1%} of the rows: {proof}"
    if skew.kind is CauseKind.CALIBRATION:
        who = "the uncalibrated twin answers" if "twin" in skew.detail else "another calibrator answers"
        line = f"served logit = {skew.slope:.2f} x re-scored {skew.shift:+.2f}"
        return f"{who}: served scores are one rising curve of the re-scored ones on {share:.1%} of the rows ({line}): {proof}"
    return f"served scores of {share:.1%} of the rows are not this bundle's, and no feature and no calibrator gives them"


def of_lost(lost: Lost) -> str:
    """A feature that the log lacks."""
    return (
        f"{lost.feature} is null on {lost.online:.1%} of the rows against {lost.offline:.1%} offline, in the log as when it "
        f"was scored: with these rows the log-loss is {lost.log_loss.value:+.5f} from that of the others"
    )


def of_outcomes(name: str, groups: Groups, shifts: Shifts, places: Sequence[Places]) -> str:
    """What moved between the evaluation and the days for the same scores; `name` is one of `Shifts.proven`."""
    online, offline = groups[ONLINE], groups[OFFLINE]
    if name == "mix":
        return f"other traffic: {shifts.mix} {_moved(online, offline, shifts.mix)}; the scores are the bundle's own on it"
    if name == "position":
        where = "lists in random order" if shifts.has_random else "ranked lists, so partly what the bundle chose for them"
        ends = [place for place in places if place.online.value and place.offline.value]
        shown = (
            "; ".join(
                f"position {place.position}: actual / predicted {_value(place.online)} against {_value(place.offline)} offline"
                for place in (ends[0], ends[-1])
            )
            if ends
            else ""
        )
        return f"positions count otherwise, by {shifts.slope:+.2f} log odds a unit of log(1 + position) in {where}; {shown}"
    ratios = [calibration_ratio(rows.scores, rows.labels, rows.weight).value for rows in (online, offline)]
    now = f"predicted / actual {ratios[0]:.3f} against {ratios[1]:.3f} offline"
    if name == "calibration":
        moved = math.exp(shifts.level)
        return (
            f"the same scores mean {moved:.2f} times the odds they meant in the evaluation, with the traffic as it was: {now}"
        )
    moved = math.exp(shifts.selection)
    what = "overrates" if moved < 1 else "underrates"
    return f"the bundle ranks up what it {what}: {now}, and {moved:.2f} times the odds that lists in random order have"


def _were(skew: Skew) -> str:
    return "were" if len(skew.features) > 1 else "was"


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more


def _value(estimate: Estimate) -> str:
    return "-" if estimate.value is None else f"{estimate.value:.2f}"


def _moved(online: Rows, offline: Rows, column: str) -> str:
    """The value whose share moved most."""
    values, codes = np.unique(np.concatenate([online.mix[column], offline.mix[column]]), return_inverse=True)
    new = np.bincount(codes[: len(online)], online.weight, len(values)) / online.weight.sum()
    old = np.bincount(codes[len(online) :], offline.weight, len(values)) / offline.weight.sum()
    at = int(np.argmax(np.abs(new - old)))
    return f"{values[at] or 'null'} went from {old[at]:.1%} to {new[at]:.1%} of the impressions"
