"""Drawings of the report as inline SVG. The only place that knows matplotlib; its colours are the page's CSS variables."""

from __future__ import annotations

import io
import math
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from tidewheel.contracts.comparison import Estimate
from tidewheel.evaluation.figures import Figures

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# What matplotlib is told -> what the page shows; variables change with the reader's light or dark theme.
INK, FAINT = "#010203", "#040506"
COLOURS = {"ranker": "#070809", "student": "#0a0b0c", "production": "#0d0e0f"}
VARIABLES = {INK: "--ink", FAINT: "--line", **{colour: f"--{model}" for model, colour in COLOURS.items()}}
MARKERS = {"ranker": "D", "student": "o", "production": "s"}  # told apart without colour, too
MAX_LABELS = 6


def draw(figures: Figures) -> dict[str, str]:
    """Every drawing that these figures allow, by name: `auc`, `reliability`, `slices`, each one `<svg>` element.

    The same figures give the same text. Without numbers there is no drawing.
    """
    builders = {"auc": _auc, "reliability": _reliability, "slices": _slices}
    return as_svg({name: partial(build, figures) for name, build in builders.items()})


def as_svg(builders: Mapping[str, Callable[[], Figure | None]]) -> dict[str, str]:
    """Name -> `<svg>` element of each builder's figure; those that give None are left out."""
    import matplotlib

    style: dict[Any, Any] = {
        "text.parse_math": False,  # a slice's value may hold a dollar sign
        "svg.fonttype": "none",  # text stays text: it can be searched, and takes the page's font
        "font.family": "sans-serif",
        "font.size": 9,
        "text.color": INK,
        "axes.labelcolor": INK,
        "xtick.color": INK,
        "ytick.color": INK,
        "axes.edgecolor": FAINT,
        "grid.color": FAINT,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.titlesize": 10,
        "axes.titlelocation": "left",
    }
    drawings = {}
    for name, build in builders.items():
        with warnings.catch_warnings(), matplotlib.rc_context(style | {"svg.hashsalt": f"tidewheel-{name}"}):
            warnings.filterwarnings("ignore", message="Glyph")  # the browser draws the text, with fonts of its own
            figure = build()
            if figure is not None:
                drawings[name] = _svg(figure, name)
    return drawings


def _auc(figures: Figures) -> Figure | None:
    """AUC with its interval: a panel a label, a row a model."""
    models = [model for model in COLOURS if model in figures.metrics]
    labels = _labels(figures)
    if not models or not labels:
        return None
    figure = new_figure(8.6, 0.7 + 0.24 * len(models))
    for index, label in enumerate(labels):
        axes = figure.add_subplot(1, len(labels), index + 1)
        for row, model in enumerate(models):
            draw_interval(axes, figures.metrics[model].get(label, {}).get("auc"), row, model)
        axes.set_title(label)
        name_rows(axes, models if index == 0 else [""] * len(models))
        axes.locator_params(axis="x", nbins=3)
    return figure


def _reliability(figures: Figures) -> Figure | None:
    """Predicted against actual, a panel a label; the area of a mark is the number of rows in its bin."""
    models = [model for model in ("production", "student") if any(figures.reliability.get(model, {}).values())]
    labels = [label for label in _labels(figures) if figures.reliability.get("student", {}).get(label)]
    if not labels:
        return None
    figure = new_figure(8.6, 2.6)
    for index, label in enumerate(labels):
        axes = figure.add_subplot(1, len(labels), index + 1)
        top = 0.0
        for model in models:
            bins = figures.reliability[model].get(label, ())
            if not bins:
                continue
            predicted, actual = [b.predicted for b in bins], [b.actual for b in bins]
            top = max(top, *predicted, *actual)
            most = max(b.rows for b in bins)
            area = [30.0 * b.rows / most for b in bins]
            axes.plot(predicted, actual, color=COLOURS[model], linewidth=1, linestyle="-" if model == "student" else ":")
            axes.scatter(predicted, actual, s=area, color=COLOURS[model], marker=MARKERS[model], label=model, linewidths=0)
        rows = sum(b.rows for b in figures.reliability["student"][label])
        axes.plot([0, top], [0, top], color=INK, linewidth=0.8, linestyle=(0, (4, 4)), zorder=0)
        axes.set_title(f"{label}\n{rows:,} rows, {len(figures.reliability['student'][label])} bins")
        axes.set_xlabel("predicted")
        axes.locator_params(nbins=4)
        if index == 0:
            axes.set_ylabel("actual")
            axes.legend(frameon=False, fontsize=8, loc="upper left", handletextpad=0.2, borderpad=0)
    return figure


def _slices(figures: Figures) -> Figure | None:
    """Forest plot of the student: a row each value of the slice columns, a panel each label's AUC and calibration."""
    rows = [(column, value) for column, values in figures.slices.items() for value in values]
    labels = [label for label in _labels(figures) if any(_slice(figures, *row, label, "auc") for row in rows)][:2]
    rows = [row for row in rows if any(_slice(figures, *row, label, "auc") for label in labels)]
    if not rows:
        return None
    figure = new_figure(8.6, 1.0 + 0.22 * len(rows))
    panels = [(label, metric) for label in labels for metric in ("auc", "calibration_ratio")]
    for index, (label, metric) in enumerate(panels):
        axes = figure.add_subplot(1, len(panels), index + 1)
        for row, place in enumerate(rows):
            draw_interval(axes, _slice(figures, *place, label, metric), row, "student")
        total = figures.metrics.get("student", {}).get(label, {}).get(metric)
        reference = 1.0 if metric == "calibration_ratio" else (total.value if total else None)
        if reference is not None:
            axes.axvline(reference, color=INK, linewidth=0.8, linestyle=(0, (4, 4)), zorder=0)
        axes.set_title(f"{label}\n{'AUC' if metric == 'auc' else 'predicted / actual'}")
        name_rows(axes, [f"{column} = {value}" for column, value in rows] if index == 0 else [""] * len(rows))
        axes.locator_params(axis="x", nbins=3)
    return figure


def _labels(figures: Figures) -> list[str]:
    return [label for label, found in figures.metrics.get("student", {}).items() if is_known(found.get("auc"))][:MAX_LABELS]


def _slice(figures: Figures, column: str, value: str, label: str, metric: str) -> Estimate | None:
    estimate = figures.slices[column][value].get(label, {}).get(metric)
    return estimate if is_known(estimate) and estimate is not None and estimate.lower is not None else None


def is_known(estimate: Estimate | None) -> bool:
    return estimate is not None and estimate.value is not None and math.isfinite(estimate.value)


def new_figure(width: float, height: float) -> Figure:
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def draw_interval(axes: Axes, estimate: Estimate | None, row: int, model: str) -> None:
    if estimate is None or estimate.value is None:
        return
    if estimate.lower is not None and estimate.upper is not None:
        axes.plot([estimate.lower, estimate.upper], [row, row], color=COLOURS[model], linewidth=2.2, solid_capstyle="round")
    axes.plot([estimate.value], [row], marker=MARKERS[model], markersize=5.5, color=COLOURS[model], linestyle="none")


def name_rows(axes: Axes, names: Sequence[str]) -> None:
    """One row a name, the first on top."""
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.grid(axis="x", linewidth=0.6)
    axes.set_axisbelow(True)


def _svg(figure: Figure, name: str) -> str:
    """The figure as one element for a page: no prolog, no size of its own, ids that no other drawing has, colours by name."""
    buffer = io.StringIO()
    keep_quiet: dict[str, Any] = {"Date": None, "Creator": None, "Format": None, "Type": None}
    figure.savefig(buffer, format="svg", transparent=True, metadata=keep_quiet)
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", text, count=1)
    text = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", text, count=1)
    text = re.sub(r' xmlns:xlink="[^"]*"', "", text, count=1).replace("xlink:href", "href")
    text = re.sub(r'\bid="', f'id="{name}-', text)
    text = re.sub(r'href="#', f'href="#{name}-', text)
    text = re.sub(r"url\(#", f"url(#{name}-", text)
    text = re.sub(r"<style.*?</style>", "", text, flags=re.DOTALL)  # it would reach the whole page
    text = re.sub(r" font-family: [^;\"]*;", "", text)
    for colour, variable in VARIABLES.items():
        text = text.replace(colour, f"var({variable})")
    return text
