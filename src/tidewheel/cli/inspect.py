"""Verbs that look back: explain, lineage; and the home and ledger that a verb is about. They change nothing."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tidewheel.cli.output import emit, outcome_text, plain, short, table
from tidewheel.cli.reports import newest_runs
from tidewheel.contracts.ledger import production_after, untrusted
from tidewheel.contracts.report import RunReport, StepRecord
from tidewheel.errors import ConfigError
from tidewheel.registry.ledger import Ledger, recipes
from tidewheel.steps.records import records_of, report_of
from tidewheel.store.home import Home

LINE = 300  # characters
MENTIONED = 5  # runs, to whoever asked for one that is not there


def explain(run_id: str, home: str, as_json: bool) -> None:
    """Why a run ended as it did: every check with its numbers, what would have changed it, steps, data, teacher."""
    report = _report(existing_home(home), run_id)
    emit(report, as_json, lambda: _explain(report))


def lineage(name: str, home: str, as_json: bool) -> None:
    """Which bundle learned from which, and which of them may teach."""
    entries = ledger_of(existing_home(home), name).entries()
    bad, serving = untrusted(entries), production_after(entries)
    made = {entry.bundle: entry for entry in reversed(entries)}  # its first decision; the ledger's order of first decisions
    document = [
        {
            "bundle": entry.bundle,
            "teacher": entry.teacher,
            "generation": entry.generation,
            "window": entry.window.model_dump(mode="json") if entry.window else None,
            "decision": entry.decision.value,
            "serves": entry.bundle == serving,
            "untrusted": bad.get(entry.bundle),
        }
        for entry in sorted(made.values(), key=lambda entry: entry.number)
    ]
    emit(document, as_json, lambda: _lineage(document))


def existing_home(home: str) -> Home:
    """The home that `--home` or the environment names; of a store that lies elsewhere it may be empty.

    Raises:
        ConfigError: it is not there.
    """
    place = Home.resolve(Path(home) if home else None)
    if not place.root.is_dir() and Path(place.store_url).is_relative_to(place.root):
        raise ConfigError(f"home {place.root}: is not there; name it with --home, or make it with tidewheel run")
    return place


def ledger_of(home: Home, name: str) -> Ledger:
    """The ledger of the recipe `name`; without a name, of the only one.

    Raises:
        ConfigError: no recipe of that name released anything here, or there are several and none was named.
    """
    store = home.store()
    known = recipes(store)
    chosen = [name] if name in known else known if not name else []
    if len(chosen) != 1:
        asked = f"no recipe {name}" if name else f"{len(known)} recipes"
        raise ConfigError(f"home {home.root}: {asked} in the ledger; name one of {', '.join(known) or 'none yet'} with --name")
    return Ledger(store, chosen[0])


def _report(home: Home, run_id: str) -> RunReport:
    store = home.store()
    if run_id and (report := report_of(store, run_id)) is not None:
        return report
    if run_id and (path := home.run(run_id) / "run.json").exists():
        return RunReport.read(path)
    if run_id and (steps := records_of(store, run_id)):
        begun = ", ".join(f"{step.name} {step.status}" for step in steps)
        raise ConfigError(
            f"run {run_id}: has said nothing of its ending ({begun}): it is at work, or was ended before conclude could; "
            "see tidewheel status, on a cluster with --cluster"
        )
    found = newest_runs(home, store, MENTIONED if run_id else 1).concluded
    if not found:
        raise ConfigError(f"home {home.root}: has no run yet; start one with tidewheel run")
    if run_id:
        known = ", ".join(report.run_id for report in found)
        raise ConfigError(f"run {run_id}: is neither in {home.runs} nor in the store; found {known}")
    return found[-1]


def _explain(report: RunReport) -> None:
    from rich.console import Console

    from tidewheel.cli.standing import show_standing  # late: it loads what only this verb needs

    out = Console(highlight=False, soft_wrap=True)
    out.print(f"[bold]{report.run_id}[/]  window {plain(str(report.window))}  recipe {short(report.recipe_digest)}")
    out.print(f"{outcome_text(report.outcome)}: {plain(report.reason)}\n")
    show_standing(report)
    rows = [
        [
            step.name,
            step.status,
            "reused" if step.reused else f"{step.seconds:.1f} s",
            step.memory,
            plain(step.summary or _why(step)),
        ]
        for step in report.steps
    ]
    table(("step", "status", "took", "memory", "made"), rows)
    out.print()
    datasets = [
        [name, short(data.digest), f"{data.rows:,}", f"{data.weight_sum:,.0f}"] for name, data in report.datasets.items()
    ]
    table(("dataset", "digest", "rows", "weight sum"), datasets)
    digests = {
        "features": report.feature_digest,
        "teacher": report.teacher,
        "bundle": report.bundle,
        "production": report.production,
    }
    out.print("\n" + "\n".join(f"{what} {digest or 'none'}" for what, digest in digests.items()) + "\n")
    if report.teaching is not None:
        out.print(f"teacher: {plain(report.teaching.reason)}")
        out.print("".join(f"  not {short(bundle)}: {plain(why)}\n" for bundle, why in report.teaching.passed_over.items()))
    if (training := report.training) is not None:
        resumed = f", resumed at step {training.resumed_at}" if training.resumed_at else ""
        out.print(
            f"training: {training.rows_per_second:,.0f} rows/s, {training.data_wait_share:.1%} of the time waiting for rows, "
            f"{len(training.stalls)} stalls{resumed}\n" + "".join(f"  {plain(note)}\n" for note in training.notes)
        )


def _why(step: StepRecord) -> str:
    return step.failure.message if step.failure else ""


def _lineage(document: Sequence[dict[str, Any]]) -> None:
    """A tree a bundle that had no teacher."""
    from rich.console import Console
    from rich.tree import Tree

    trees: dict[str | None, Tree] = {None: Tree("labels alone")}
    for made in document:
        told = f"{short(made['bundle'])} generation {made['generation']}, {made['decision']}"
        told += ", [green]serves[/]" if made["serves"] else ""
        told += f", [red]teaches nobody[/]: {plain(made['untrusted'])}" if made["untrusted"] else ""
        trees[made["bundle"]] = trees.get(made["teacher"], trees[None]).add(told)
    Console(highlight=False, width=LINE).print(trees[None])  # a tree cuts what does not fit: let the terminal wrap it
