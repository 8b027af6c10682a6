"""What `explain` says beside steps and lineage: verdicts, what would have changed them, and how the candidate stands."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from tidewheel.cli.output import plain
from tidewheel.contracts.comparison import Comparability
from tidewheel.contracts.report import RunReport
from tidewheel.contracts.verdict import SEVERITY, Phase, Reason, Verdict
from tidewheel.evaluation.report.counterfactual import changes
from tidewheel.evaluation.report.sections import Section, last_first, parts, sections

PHASE_STYLES = {Phase.SUCCESSFUL: "green", Phase.FAILED: "red", Phase.ERROR: "red"}
MOST_PASSES = 60  # of a verdict are listed; the many checks of the data are in data.html
WORST_DRIFT = 5
BASELINES = {
    Comparability.NO_BASELINE: "no production yet: nothing to compare with",
    Comparability.COMPARABLE: "production was measured on the same rows",
}
PIPE_WIDTH = 300  # nobody folds a file's lines


def show_standing(report: RunReport) -> None:
    """Everything that a verdict of this run stands on, from run.json alone."""
    out = Console(highlight=False, soft_wrap=True)
    if report.comparison is not None:
        baseline = report.comparison.baseline
        missing = ", ".join(report.comparison.missing_features) or "not said which"
        incompatible = f"[bold red]{baseline.value}[/]: this window's rows lack what production takes: {plain(missing)}"
        out.print(f"baseline: {BASELINES.get(baseline, incompatible)}\n")
    for name, verdict in last_first(report.verdicts):
        _show_verdict(out, name, verdict)
    _show_changes(out, report)
    for section in sections(report.metrics, report.comparison, report.verdicts.get("evaluate")):
        out.print(f"\n[bold]{section.title}[/]\n{plain(section.note)}")
        _show_table(section)
    if "validate_data" in report.verdicts:
        _show_drift(out, report.verdicts["validate_data"])
    out.print()


def _show_verdict(out: Console, name: str, verdict: Verdict) -> None:
    out.print(f"[bold]{plain(name)}[/]: {_phase(verdict.phase)}")
    worst_first = sorted(verdict.reasons, key=lambda reason: (reason.is_warning, -SEVERITY.index(reason.phase)))
    passed = [reason for reason in worst_first if reason.phase is Phase.SUCCESSFUL]
    is_long = len(passed) > MOST_PASSES
    for reason in worst_first:
        if not (is_long and reason.phase is Phase.SUCCESSFUL):
            out.print(f"  {_sign(reason)} {plain(reason.message)}")
    if is_long:
        out.print(f"  {_phase(Phase.SUCCESSFUL)} {len(passed)} checks; all of them are in data.html")


def _show_changes(out: Console, report: RunReport) -> None:
    lines = []
    for step, verdict in last_first(report.verdicts):
        of_evaluate = (report.metrics, report.comparison) if step == "evaluate" else ({}, None)
        lines += [f"  {plain(step)}: {plain(change.check)}: {plain(change.words)}" for change in changes(verdict, *of_evaluate)]
    if lines:
        out.print("\n[bold]What would have changed the verdict[/]\n" + "\n".join(lines))


def _show_drift(out: Console, verdict: Verdict) -> None:
    """The drift that came closest to its limit or went beyond it, of what decides and what only warns."""
    found = [
        reason
        for reason in verdict.reasons
        if reason.check.startswith("drift ")
        and reason.value is not None
        and reason.limit
        and "reported only" not in reason.message
    ]
    worst = sorted(found, key=lambda reason: -(reason.value or 0.0) / (reason.limit or 1.0))[:WORST_DRIFT]
    if worst:
        out.print(f"\n[bold]Drift[/]\nThe {len(worst)} of {len(found)} that came closest to their limits.")
        for reason in worst:
            out.print(f"  {_sign(reason)} {plain(reason.message)}")


def _show_table(section: Section) -> None:
    """One line a row where that fits, else intervals below their values."""
    console = Console()
    wide = console if console.is_terminal else Console(width=PIPE_WIDTH)
    grid = _grid(section.head, _cells(section, " "))
    if Measurement.get(wide, wide.options.update(width=PIPE_WIDTH), grid).maximum > wide.width:
        grid = _grid(section.head, _cells(section, "\n"))
    wide.print(grid)


def _cells(section: Section, between: str) -> list[list[str]]:
    return [
        [cell if isinstance(cell, str) else between.join(part for part in parts(cell) if part) for cell in row]
        for row in section.rows
    ]


def _grid(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    grid = Table(box=None, pad_edge=False, header_style="bold")
    for name in head:
        grid.add_column(Text(name), overflow="fold")
    for row in rows:
        grid.add_row(*(Text(cell) for cell in row))
    return grid


def _sign(reason: Reason) -> str:
    return "[yellow]Warning[/]" if reason.is_warning else _phase(reason.phase)


def _phase(phase: Phase) -> str:
    return f"[{PHASE_STYLES.get(phase, 'yellow')}]{phase.value}[/]"
