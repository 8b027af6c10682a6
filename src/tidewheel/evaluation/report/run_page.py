"""report.html: what one turn of the wheel did, for the person who was woken up by it. Stdlib only, so it is quick to load."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from tidewheel.contracts.evidence import DataReport
from tidewheel.contracts.report import RunReport
from tidewheel.contracts.training import TrainingReport
from tidewheel.contracts.verdict import SEVERITY, Phase, Verdict
from tidewheel.contracts.window import iso
from tidewheel.evaluation.report.canary import canary_section
from tidewheel.evaluation.report.comparison import banner, changed, compared
from tidewheel.evaluation.report.page import badge, code, number, page, reasons_table, table
from tidewheel.evaluation.report.sections import last_first

OUTCOMES = {
    "bootstrap": ("good", "First release", "the candidate became the first production"),
    "promoted": ("good", "Promoted", "the candidate is production now"),
    "rejected": ("open", "Rejected", "the candidate was not let through; production stayed"),
    "rolled_back": ("bad", "Rolled back", "the canary was not convinced; production stayed"),
    "data_rejected": ("bad", "Data rejected", "nothing was trained; production stayed"),
    "failed": ("bad", "Failed", "the run did not reach a decision; production stayed"),
}

READ_AT_ONCE = 60  # checks


def render(
    run: RunReport,
    drawings: Mapping[str, str],
    canary: Mapping[str, Any] | Sequence[Mapping[str, Any]] | None,
    data: DataReport | None = None,
) -> str:
    """One self-contained HTML document: no script, nothing loaded, light or dark as the reader likes it.

    Args:
        drawings: SVG elements by name, as `draw` made them; they are trusted, all other text is escaped.
        canary: JSON of `contracts.rollout.CanaryResult`, or of its steps alone; None or empty where there was no canary.
        data: what `validate_data` found; None where the run did not get that far.
    """
    steps = canary.get("steps", ()) if isinstance(canary, Mapping) else canary
    parts = [_top(run), banner(run), _cards(run)]
    if run.verdicts:
        verdicts = [_verdict(name, verdict) for name, verdict in last_first(run.verdicts)]
        parts += ["<h2>Verdicts</h2>", *verdicts, changed(run)]
    parts.append(compared(run, drawings, data))
    if steps:
        parts.append(canary_section(steps))
    parts.append(_steps(run))
    if run.training is not None:
        parts.append(_training(run.training))
    parts.append(_lineage(run))
    return page(f"{run.recipe} {run.run_id}: {run.outcome.value}", "\n".join(part for part in parts if part))


def _top(run: RunReport) -> str:
    tone, title, meaning = OUTCOMES[run.outcome.value]
    window = f"{iso(run.window.start)} to {iso(run.window.end)}"
    return (
        f'<p class="soft">tidewheel · {escape(run.recipe)}</p><h1>{escape(run.run_id)}</h1>'
        f'<p class="soft">Impressions from {window} (end excluded)</p>'
        f'<div class="outcome {tone}"><strong>{title}</strong> <span class="soft">– {meaning}</span>'
        f"<p>{escape(run.reason)}</p></div>"
    )


def _cards(run: RunReport) -> str:
    cards = [(f"{sum(step.seconds for step in run.steps):.1f} s", "all steps")]
    if "train" in run.datasets:
        cards.append((f"{run.datasets['train'].rows:,}", "training rows"))
    for label, found in list(run.metrics.get("student", {}).items())[:2]:
        cards.append((number(found["auc"].value) if "auc" in found else "–", f"AUC {label}, student"))
    shown = "".join(f"<div><b>{escape(value)}</b><span>{escape(what)}</span></div>" for value, what in cards)
    return f'<div class="cards">{shown}</div>'


def _verdict(name: str, verdict: Verdict) -> str:
    worst_first = sorted(verdict.reasons, key=lambda reason: (reason.is_warning, -SEVERITY.index(reason.phase)))
    open_ones = [reason for reason in worst_first if reason.phase is not Phase.SUCCESSFUL]
    passed = [reason for reason in worst_first if reason.phase is Phase.SUCCESSFUL]
    link = ' <a href="data.html">all about the data</a>' if name == "validate_data" else ""
    parts = [f"<h3>{escape(name)} {badge(verdict.phase.value)}{link}</h3>"]
    if open_ones:
        parts.append(reasons_table(open_ones))
    if passed:
        # a few gates are read at once; the many checks of the data are there when asked for
        is_open = " open" if len(passed) <= READ_AT_ONCE else ' class="bulk"'  # data.html is the place to print those from
        said = f"{len(passed)} check{'' if len(passed) == 1 else 's'} passed"
        parts.append(f"<details{is_open}><summary>{said}</summary>{reasons_table(passed)}</details>")
    return "".join(parts)


def _steps(run: RunReport) -> str:
    longest = max((step.seconds for step in run.steps), default=0.0) or 1.0
    rows = []
    for step in run.steps:
        width, overhead = 100 * step.seconds / longest, 100 * step.overhead_seconds / (step.seconds or 1.0)
        inner = f'<i style="width:{min(overhead, 100):.1f}%"></i>'
        bar = f'<div class="track"><div class="bar" style="width:{width:.1f}%">{inner}</div></div>'
        failed = (
            f'<br><span class="bad">{escape(step.failure.kind)}: {escape(step.failure.message)}</span>' if step.failure else ""
        )
        status = "reused" if step.reused else step.status
        rows.append([escape(step.name), status, f"{step.seconds:.2f}", bar, step.memory, escape(step.summary) + failed])
    note = '<p class="soft">Grey part of a bar: start, imports and manifests. Memory: used at most, of requested.</p>'
    return f"<h2>Steps</h2>{note}{table(('step', 'status', 'seconds', '', 'memory', 'what it did'), rows, frozenset({2, 4}))}"


def _training(training: TrainingReport) -> str:
    rows = [
        ["rows", f"{training.rows:,}", f"in {training.steps:,} steps of {1000 * training.median_step_seconds:.1f} ms (median)"],
        ["rows a second", f"{training.rows_per_second:,.0f}", "of this machine, waiting for rows included"],
        ["waited for rows", f"{training.data_wait_share:.1%}", "of the time"],
        ["loss", number(training.loss), "of the last steps, fading"],
    ]
    if training.resumed_at:
        rows.append(["resumed at step", f"{training.resumed_at:,}", "from a checkpoint: the figures are of what came after"])
    rows += [["note", "", escape(note)] for note in training.notes]
    stalls = "".join(
        f"<details><summary>step {stall.step} had taken {stall.seconds:.1f} s when it was looked at</summary>"
        + "".join(f"<h4>{escape(name)}</h4><pre>{escape(stack)}</pre>" for name, stack in stall.stacks.items())
        + "</details>"
        for stall in training.stalls
    )
    return f"<h2>Training</h2>{table(('what', '', ''), rows, frozenset({1}))}{stalls}"


def _lineage(run: RunReport) -> str:
    rows = [
        ["recipe", code(run.recipe_digest), escape(run.recipe)],
        ["teacher", code(run.teacher), escape(run.teaching.reason) if run.teaching else "was not chosen yet"],
        ["bundle", code(run.bundle), "the candidate of this run" if run.bundle else "none was made"],
        ["production", code(run.production), "serves after this run" if run.production else "nothing is released yet"],
    ]
    for bundle, why in run.teaching.passed_over.items() if run.teaching else ():
        rows.append(["not the teacher", code(bundle), escape(why)])
    for name, dataset in run.datasets.items():
        rows.append([escape(name), code(dataset.digest), f"{dataset.rows:,} rows, weight {dataset.weight_sum:,.1f}"])
    return f"<h2>Lineage</h2>{table(('what', 'digest', ''), rows)}"
