"""What would have changed a verdict: the limit at which a gate would have ended otherwise, and the rows that would settle it.

Pure, from contracts alone. A gate's own numbers are its reason's `value` and `limit`; where the estimate that it judged is
known, the limit that it would have passed is exact, else only the distance is said.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from tidewheel.contracts.comparison import Estimate, Metrics, ModelComparison
from tidewheel.contracts.evaluation import Compared
from tidewheel.contracts.verdict import Phase, Reason, Severity, Verdict
from tidewheel.evaluation.planning import rows_to_detect

CANARY_CALIBRATION = " calibration"  # ends its gate's name: a ratio, whose limit is how far from 1 it may be
REPORTED = ("(not gated", "reported only")  # in the message of a reason that does not decide
WORSE_WHEN_HIGHER = frozenset(metric.value for metric in Compared if not metric.is_better_when_higher)
SUPERIOR, EQUIVALENT = " superior", " equivalent"


@dataclass(frozen=True)
class Change:
    """One gate and what would have made it end otherwise; `needed` is the limit that would have, null where none is known."""

    check: str
    phase: Phase
    words: str
    needed: float | None = None


def changes(verdict: Verdict, metrics: Metrics | None = None, comparison: ModelComparison | None = None) -> tuple[Change, ...]:
    """For every reason that decided, what would have let it pass; of a pass, the one gate that came closest to its limit.

    Args:
        metrics: model -> label -> metric -> estimate, of the run whose verdict it is.
        comparison: of that run. Without either the answer says less.
    """
    judged = dict(_judged(metrics or {}, comparison or ModelComparison()))
    critical = [reason for reason in verdict.reasons if reason.severity is Severity.CRITICAL]
    if verdict.is_successful:
        gates = [(slack, reason) for reason in critical if (slack := _slack(reason, judged, comparison)) is not None]
        return (_closest(*min(gates, key=lambda gate: gate[0])),) if gates else ()
    return tuple(_change(reason, judged, comparison) for reason in critical if reason.phase is verdict.phase)


def _judged(metrics: Metrics, comparison: ModelComparison) -> Iterator[tuple[str, Estimate]]:
    """Name of a gate -> the estimate that it judged."""
    for label, by_metric in metrics.get("student", {}).items():
        for metric, check in (("auc", "auc"), ("calibration_ratio", "calibration"), ("ece", "ece")):
            if metric in by_metric:
                yield f"{check} {label}", by_metric[metric]
    for label, by_metric in comparison.differences.items():
        for metric, difference in by_metric.items():
            for kind in ("", SUPERIOR, EQUIVALENT):
                yield f"{metric} {label} vs production{kind}", difference
            earlier = [by[label][metric] for by in comparison.releases.values() if metric in by.get(label, {})]
            known = [one for one in earlier if one.lower is not None and one.upper is not None]
            if earlier and len(known) == len(earlier):  # all of them have to be passed: the hardest is the gate
                yield f"{metric} {label} vs the last {len(earlier) + 1} releases", min(known, key=lambda e: _worst(metric, e))
    for label, replay in comparison.replay.items():
        if replay.judged_by in replay.differences:
            yield f"replay {label} vs production", replay.differences[replay.judged_by]


def _worst(metric: str, difference: Estimate) -> float:
    """The unfavourable bound, turned so that higher is better."""
    lower, upper = difference.lower or 0.0, difference.upper or 0.0
    return -upper if metric in WORSE_WHEN_HIGHER else lower


def _change(reason: Reason, judged: Mapping[str, Estimate], comparison: ModelComparison | None) -> Change:
    value, limit = reason.value, reason.limit
    if reason.phase is Phase.ERROR or value is None or limit is None:
        return Change(reason.check, reason.phase, "no limit would have let it pass: what was missing has to be there first")
    if " in slices vs production" in reason.check and comparison is not None:
        needed = _slice_margin(reason, comparison)
        if needed is not None:
            words = f"no slice is accused at a margin of {needed:.4f} ({limit:.4f} now)"
            return Change(reason.check, reason.phase, words, needed)
    if reason.check.startswith("evidence"):  # rows of a class, whose limit is the recipe's; or users, whose is not
        other = f", or min_positives of {value:g} ({limit:g} now)" if " " in reason.check else ""
        return Change(reason.check, reason.phase, f"{limit - value:,.0f} more{other}", value if other else None)
    if reason.check.startswith("rank agreement "):
        return Change(reason.check, reason.phase, f"passes with a limit of {value:.4f} or less ({limit:.4f} now)", value)
    estimate = judged.get(reason.check)
    is_support = reason.check.startswith("replay ") and limit >= 0  # what the log says at all, not the difference
    if is_support or estimate is None or estimate.value is None or estimate.lower is None or estimate.upper is None:
        return Change(reason.check, reason.phase, _distance(reason, value, limit))
    if " vs " in reason.check:
        return _claim(reason, estimate, estimate.value, estimate.lower, estimate.upper)
    if reason.check.startswith("auc "):
        settled = "" if reason.phase is Phase.FAILED else _rows(estimate, abs(estimate.value - limit), estimate.value > limit)
        words = f"passes with a floor of {estimate.lower:.4f} or less ({limit:.4f} now){settled}"
        return Change(reason.check, reason.phase, words, estimate.lower)
    return Change(reason.check, reason.phase, f"passes with a limit of {value:.4f} or more ({limit:.4f} now)", value)


def _distance(reason: Reason, value: float, limit: float) -> str:
    if reason.check.endswith(CANARY_CALIBRATION):
        return f"{_shown(value)} is {_shown(abs(value - 1.0))} away from 1, and may be {_shown(limit)} away"
    return f"{_shown(value)} is {_shown(abs(value - limit))} away from its limit of {_shown(limit)}"


def _shown(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 10_000 else f"{value:.4g}"


def _claim(reason: Reason, estimate: Estimate, value: float, lower: float, upper: float) -> Change:
    """The margin at which a claim about student minus production is proven by the interval there is."""
    sign = -1 if reason.check.split(" ")[0] in WORSE_WHEN_HIGHER else 1
    worst, middle = min(sign * lower, sign * upper), sign * value
    margin = abs(reason.limit or 0.0)
    if reason.check.endswith(EQUIVALENT):
        needed, distance, side = max(abs(lower), abs(upper)), margin - abs(value), "above"
    elif reason.check.endswith(SUPERIOR):
        needed, distance, side = worst, middle - margin, "below"
        if worst <= 0:
            words = "no margin lets it pass: the interval does not exclude that production is better"
            return Change(reason.check, reason.phase, words + _rows(estimate, abs(distance), distance > 0))
    else:
        needed, distance, side = max(-worst, 0.0), middle + margin, "above"
    words = f"proven with a margin {side} {needed:.4f} ({margin:.4f} now)"
    return Change(reason.check, reason.phase, words + _rows(estimate, abs(distance), distance > 0), needed)


def _rows(estimate: Estimate, distance: float, is_on_its_side: bool) -> str:
    """How many rows would settle it if the estimate stays what it is now, and which way."""
    rows = rows_to_detect(estimate, distance)
    if rows is None or rows <= estimate.effective_rows:
        return ""
    end = "prove it" if is_on_its_side else "refute it"
    return f"; about {rows:,.0f} effective rows would {end} if it stays as it is ({estimate.effective_rows:,.0f} now)"


def _slice_margin(reason: Reason, comparison: ModelComparison) -> float | None:
    """The largest drop of any slice's favourable bound: at this margin each slice alone, and so all together, is in doubt."""
    metric = reason.check.split(" ")[0]
    drops = [
        lower if metric in WORSE_WHEN_HIGHER else -upper
        for by_value in comparison.slice_differences.values()
        for by_label in by_value.values()
        for by_metric in by_label.values()
        if (found := by_metric.get(metric)) is not None
        and (lower := found.lower) is not None
        and (upper := found.upper) is not None
    ]
    return max(drops) if drops else None


def _slack(reason: Reason, judged: Mapping[str, Estimate], comparison: ModelComparison | None) -> tuple[float, float] | None:
    """How far a passed gate was from its limit: relative to it, and as it is. None where there is nothing to compare."""
    value, limit = reason.value, reason.limit
    if value is None or limit is None or limit == 0 or reason.phase is not Phase.SUCCESSFUL:
        return None
    if any(words in reason.message for words in REPORTED):
        return None
    left = abs(limit - value)
    if " in slices vs production" in reason.check:
        drop = _slice_margin(reason, comparison) if comparison is not None else None
        if drop is None:
            return None
        left = max(limit - drop, 0.0)
    elif reason.check.endswith(EQUIVALENT) and reason.check in judged:
        estimate = judged[reason.check]
        left = limit - max(abs(estimate.lower or 0.0), abs(estimate.upper or 0.0))
    elif reason.check.endswith(CANARY_CALIBRATION):
        left = limit - abs(value - 1.0)
    return left / abs(limit), left


def _closest(slack: tuple[float, float], reason: Reason) -> Change:
    relative, left = slack
    limit = reason.limit or 0.0
    words = f"came closest: {_shown(left)} from its limit of {_shown(limit)} ({relative:.0%} of it)"
    return Change(reason.check, reason.phase, words, None)
