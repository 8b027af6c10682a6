"""The part of report.html that says how the candidate stands: what would have changed the verdict, tables, drift, drawings."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape

from tidewheel.contracts.comparison import Comparability
from tidewheel.contracts.evidence import DataReport
from tidewheel.contracts.report import RunReport
from tidewheel.evaluation.report.counterfactual import changes
from tidewheel.evaluation.report.page import badge, number, phase_of, table
from tidewheel.evaluation.report.sections import MODELS, Cell, Section, last_first, parts, sections

CAPTIONS = {
    "auc": ("AUC", "AUC of every model with its 95% interval over users. ◆ ranker, ● student, ■ production."),
    "roc": (
        "ROC",
        "Among rows at or above a threshold, which share of all engaged rows and of all others. Full line: student, dotted: "
        "production, dashed: a coin.",
    ),
    "reliability": (
        "Reliability",
        "Predicted against actual, in bins of equal weight; on the dashed line a probability means what it says. "
        "● student, ■ production; the area of a mark is the number of rows in its bin.",
    ),
    "lift": (
        "Lift by slice",
        "Student minus production in each slice with 95% intervals, paired by row. Full line: no difference; dashed: the drop "
        "that no slice may be proven to have.",
    ),
    "slices": (
        "Student by slice",
        "The student in each slice, with 95% intervals; dashed: AUC over all rows, and a calibration of 1. "
        "An AUC within a slice lacks the differences between slices, so it is usually lower. "
        "Values with too few positive or negative rows are left out.",
    ),
}
SLICE_DRAWINGS = ("lift", "slices")
NUMERIC = frozenset(
    {"effective rows", "requests", "rows", "reached", "mean weight", "largest share of a row", "smallest propensity"}
)
WORST_SHOWN = 8


def banner(run: RunReport) -> str:
    """Says, where nobody can overlook it, that production could not be measured as it was when it was released."""
    if run.comparison is None or run.comparison.baseline is not Comparability.INCOMPATIBLE:
        return ""
    missing = ", ".join(f"<code>{escape(name)}</code>" for name in run.comparison.missing_features) or "not said which"
    return (
        '<div class="alarm" role="alert"><strong>⚠ BASELINE_INCOMPATIBLE</strong>'
        "<p>This window's rows lack what production takes, so every comparison with it is of a production that is worse off "
        f"than it was, or there is none. Missing: {missing}.</p></div>"
    )


def changed(run: RunReport) -> str:
    """What would have changed each verdict: of one that let nothing pass every deciding gate, else the closest."""
    found = []
    for step, verdict in last_first(run.verdicts):
        of_evaluate = (run.metrics, run.comparison) if step == "evaluate" else ({}, None)
        for change in changes(verdict, *of_evaluate):
            gate = f"<b>{escape(step)}: {escape(change.check)}</b>"
            found.append(f"<li>{badge(change.phase.value)} {gate} {escape(change.words)}</li>")
    if not found:
        return ""
    return f'<h2>What would have changed the verdict</h2><ul class="changes">{"".join(found)}</ul>'


def compared(run: RunReport, drawings: Mapping[str, str], data: DataReport | None) -> str:
    """Every table and drawing of the evaluation, and the drift of the data it stands on."""
    found = {section.name: section for section in sections(run.metrics, run.comparison, run.verdicts.get("evaluate"))}
    slices = found.pop("slices", None)
    pieces = [_section(section) for section in found.values()]
    pieces.append(_drift(data))
    curves = [_drawing(name, drawings[name]) for name in CAPTIONS if name in drawings and name not in SLICE_DRAWINGS]
    if curves:
        pieces += ["<h2>Curves</h2>", *curves]
    by_slice = [_drawing(name, drawings[name]) for name in SLICE_DRAWINGS if name in drawings]
    if by_slice or slices is not None:
        pieces += ["<h2>Slices</h2>", *by_slice]
    if slices is not None:
        pieces.append(f'<p class="soft">{escape(slices.note)}</p>{_table(slices)}')
    return "\n".join(piece for piece in pieces if piece)


def _section(section: Section) -> str:
    return f'<h2>{escape(section.title)}</h2><p class="soft">{escape(section.note)}</p>{_table(section)}'


def _table(section: Section) -> str:
    numeric = frozenset(index for index, name in enumerate(section.head) if name in NUMERIC)
    rows = [[_cell(cell) for cell in row] for row in section.rows]
    shown = table(section.head, rows, numeric, "stack", section.keys)
    return f"<details><summary>{len(rows)} rows</summary>{shown}</details>" if section.is_detail else shown


def _cell(cell: Cell) -> str:
    if isinstance(cell, str):
        return f'<span class="{cell}">{cell}</span>' if cell in MODELS else escape(cell)
    value, bounds = parts(cell)
    return f'{value} <span class="bounds">{bounds}</span>' if bounds else value


def _drawing(name: str, svg: str) -> str:
    title, caption = CAPTIONS[name]
    return (
        f'<figure role="group" aria-label="{name}"><h3>{title}</h3><div class="wide">{svg}</div>'
        f"<figcaption>{caption}</figcaption></figure>"
    )


def _drift(data: DataReport | None) -> str:
    """The comparisons that came closest to their limits or went beyond them; all of them are in data.html."""
    found = [one for one in data.comparisons if one.baseline_rows is not None and one.value is not None] if data else []
    if data is None or not found:
        return ""
    reasons = {reason.check: reason for reason in data.verdict.reasons}
    is_reported = {check: "reported only" in reason.message for check, reason in reasons.items()}
    ranked = sorted(found, key=lambda one: (is_reported.get(one.check, False), -(one.value or 0.0) / one.limit))
    worst = ranked[:WORST_SHOWN]
    rows = [
        [
            escape(one.check.removeprefix("drift ")),
            escape(one.statistic),
            f'{number(one.value)} <span class="bounds">[{number(one.lower)}, {number(one.upper)}]</span>',
            f"{one.limit:g}",
            "reported only" if is_reported.get(one.check) else phase_of(reasons[one.check]) if one.check in reasons else "",
        ]
        for one in worst
    ]
    note = (
        f"<p class=\"soft\">This window's rows against production's training rows: the {len(rows)} of {len(found)} comparisons "
        'that came closest to their limits. <a href="data.html">All about the data</a></p>'
    )
    return f"<h2>Drift</h2>{note}{table(('what', 'statistic', 'value', 'limit', 'phase'), rows, frozenset({3}), 'stack', 2)}"
