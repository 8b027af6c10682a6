"""Is a slice worse than it was, and how sure is that when many slices are looked at? Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist

from tidewheel.contracts.comparison import Estimate, Metrics
from tidewheel.contracts.evaluation import Compared, EvaluateConfig
from tidewheel.contracts.verdict import Phase, Reason
from tidewheel.evaluation.planning import error_of

ALPHA = 0.025  # one-sided, as an end of a 95% interval


@dataclass(frozen=True)
class Drop:
    """A slice's label, its difference to production, and how likely one as bad is if it were worse by the margin exactly."""

    place: str
    difference: Estimate
    p: float


def slice_gates(differences: Mapping[str, Metrics], labels: Sequence[str], config: EvaluateConfig) -> list[Reason]:
    """A reason for each metric of `config.max_slice_drop`: Failed where a slice is proven worse by more than the margin.

    Args:
        differences: slice column -> value -> label -> metric -> student minus production; empty without production.
        labels: the gated ones.
    """
    found = []
    for metric, margin in config.max_slice_drop.items() if differences else ():
        drops, unknown = _drops(differences, labels, metric, margin)
        if not drops and not unknown:
            continue
        check, note = f"{metric} in slices vs production", f", {unknown} too small to judge" if unknown else ""
        worse = [
            drop for drop, is_proven in zip(drops, proven([d.p for d in drops], config.slice_control), strict=True) if is_proven
        ]
        if worse:
            shown = "; ".join(_shown(drop) for drop in worse[:3]) + (f" and {len(worse) - 3} more" if len(worse) > 3 else "")
            message = (
                f"{check}: worse by more than {margin:.4f} ({config.slice_control}, {len(drops)} looked at{note}): {shown}"
            )
            found.append(
                Reason(check=check, phase=Phase.FAILED, message=message, value=worse[0].difference.value, limit=margin)
            )
        else:
            lowest = f"; the lowest: {_shown(drops[0])}" if drops else ""
            message = f"{check}: none of {len(drops)} is proven worse by {margin:.4f}{note}{lowest}"
            value = drops[0].difference.value if drops else None
            found.append(Reason(check=check, phase=Phase.SUCCESSFUL, message=message, value=value, limit=margin))
    return found


def proven(p: Sequence[float], control: str, alpha: float = ALPHA) -> list[bool]:
    """Which of these p-values may be believed all together.

    `holm`: at most `alpha` of runs believe any wrongly (Holm 1979). `bh`: at most `alpha` of those believed are wrongly so
    (Benjamini & Hochberg 1995; slices that share rows are positively dependent, Benjamini & Yekutieli 2001, theorem 1.2).
    """
    order = sorted(range(len(p)), key=p.__getitem__)
    n, believed = len(p), 0
    if control == "holm":
        while believed < n and p[order[believed]] <= alpha / (n - believed):
            believed += 1
    else:
        believed = max((rank for rank, at in enumerate(order, start=1) if p[at] <= alpha * rank / n), default=0)
    kept = set(order[:believed])
    return [at in kept for at in range(n)]


def _drops(
    differences: Mapping[str, Metrics], labels: Sequence[str], metric: Compared, margin: float
) -> tuple[list[Drop], int]:
    """Every slice that can be judged, worst first, and how many cannot."""
    sign = 1 if metric.is_better_when_higher else -1
    drops, unknown = [], 0
    for column, values in differences.items():
        for value, by_label in values.items():
            for label in labels:
                difference = by_label.get(label, {}).get(metric)
                error = None if difference is None else error_of(difference)
                if difference is None or difference.value is None or error is None:
                    unknown += label in by_label
                    continue
                beyond = sign * difference.value + margin
                p = NormalDist().cdf(beyond / error) if error > 0 else float(beyond >= 0)
                drops.append(Drop(f"{column}={value} {label}", difference, p))
    return sorted(drops, key=lambda drop: drop.p), unknown


def _shown(drop: Drop) -> str:
    difference = drop.difference
    return f"{drop.place} {difference.value:+.4f} [{difference.lower:+.4f}, {difference.upper:+.4f}]"
