"""Drawings of student against production: ROC curves, and the difference in every slice."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from tidewheel.contracts.comparison import Curves, Estimate, ModelComparison
from tidewheel.contracts.evaluation import Compared
from tidewheel.evaluation.report.drawings import (
    COLOURS,
    INK,
    MAX_LABELS,
    as_svg,
    draw_interval,
    is_known,
    name_rows,
    new_figure,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LINES = {"student": "-", "production": (0, (1, 1.2))}  # told apart without colour, too
NAMES = {Compared.AUC: "AUC", Compared.LOGLOSS: "log-loss"}


def draw_comparison(comparison: ModelComparison, curves: Curves, margins: Mapping[Compared, float]) -> dict[str, str]:
    """The drawings `roc` and `lift` as far as there are numbers, each one `<svg>` element; equal values give equal text.

    Args:
        margins: metric -> the drop that no slice may be proven to have; their metrics are drawn, without any AUC.
    """
    return as_svg({"roc": lambda: _roc(curves), "lift": lambda: _lift(comparison, margins or {Compared.AUC: 0.0})})


def _roc(curves: Curves) -> Figure | None:
    """True against false positive rate, a panel a label."""
    labels = list(curves.roc.get("student", {}))[:MAX_LABELS]
    if not labels:
        return None
    figure = new_figure(8.6, 2.9)
    for index, label in enumerate(labels):
        axes = figure.add_subplot(1, len(labels), index + 1)
        axes.plot([0, 1], [0, 1], color=INK, linewidth=0.8, linestyle=(0, (4, 4)), zorder=0)
        for model in ("production", "student"):
            points = curves.roc.get(model, {}).get(label, ())
            if points:
                axes.plot(
                    [point.false_positive_rate for point in points],
                    [point.true_positive_rate for point in points],
                    color=COLOURS[model],
                    linewidth=1.6,
                    linestyle=LINES[model],
                    label=model,
                )
        axes.set_title(label)
        axes.set_xlabel("false positive rate")
        axes.set_aspect("equal")
        axes.set_xticks([0, 0.5, 1])
        axes.set_yticks([0, 0.5, 1])
        if index == 0:
            axes.set_ylabel("true positive rate")
            axes.legend(frameon=False, fontsize=8, loc="lower right", borderpad=0)
    return figure


def _lift(comparison: ModelComparison, margins: Mapping[Compared, float]) -> Figure | None:
    """Forest plot of student minus production: a row each value of the slice columns, a panel each label and metric."""
    places = [(column, value) for column, values in comparison.slice_differences.items() for value in values]
    labels = list(dict.fromkeys(label for column, value in places for label in comparison.slice_differences[column][value]))
    known = [
        (label, metric)
        for metric in margins
        for label in labels
        if any(_difference(comparison, *place, label, metric) for place in places)
    ]
    panels = known[:MAX_LABELS]
    rows = [place for place in places if any(_difference(comparison, *place, *panel) for panel in panels)]
    if not rows:
        return None
    figure = new_figure(8.6, 1.0 + 0.22 * len(rows))
    for index, (label, metric) in enumerate(panels):
        axes = figure.add_subplot(1, len(panels), index + 1)
        for row, place in enumerate(rows):
            draw_interval(axes, _difference(comparison, *place, label, metric), row, "student")
        axes.axvline(0.0, color=INK, linewidth=0.8, zorder=0)
        if margins[metric] > 0:
            edge = -margins[metric] if metric.is_better_when_higher else margins[metric]
            axes.axvline(edge, color=INK, linewidth=0.8, linestyle=(0, (4, 4)), zorder=0)
        axes.set_title(f"{label}\n{NAMES.get(metric, metric.value.replace('_', ' '))}")
        name_rows(axes, [f"{column} = {value}" for column, value in rows] if index == 0 else [""] * len(rows))
        axes.locator_params(axis="x", nbins=3)
    return figure


def _difference(comparison: ModelComparison, column: str, value: str, label: str, metric: Compared) -> Estimate | None:
    estimate = comparison.slice_differences[column][value].get(label, {}).get(metric.value)
    return estimate if estimate is not None and is_known(estimate) and estimate.lower is not None else None
