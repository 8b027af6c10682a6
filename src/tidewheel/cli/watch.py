"""Verbs of the holdout experiment: watch, which acts, and experiment, which looks."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

from rich.console import Console

from tidewheel.cli.inspect import existing_home, ledger_of
from tidewheel.cli.output import emit, plain, short, table
from tidewheel.cli.recipes import load_recipe
from tidewheel.contracts.experiment import ExperimentReport
from tidewheel.contracts.ledger import experiment_after
from tidewheel.contracts.recipe import Recipe
from tidewheel.contracts.rollout import Signal
from tidewheel.contracts.verdict import Phase
from tidewheel.contracts.window import iso, parse_time
from tidewheel.errors import ConfigError
from tidewheel.registry.ledger import Ledger
from tidewheel.store.home import Home


def watch(recipe: Path | None, name: str, until: str, settings: list[str], home: str, as_json: bool) -> None:
    """Judge the running experiment, and act on proven harm or on its end."""
    place = existing_home(home)
    moment = _moment(until) if until else None
    chosen = _recipe(place, recipe, name, settings)
    report = None
    if chosen is not None:
        from tidewheel.steps.watch import watch as look_and_act

        report = look_and_act(chosen, place, moment)
    _emit(report, as_json)


def experiment(recipe: Path | None, name: str, settings: list[str], home: str, as_json: bool) -> None:
    """Show what the running experiment shows. Changes nothing."""
    place = existing_home(home)
    chosen = _recipe(place, recipe, name, settings)
    report = None
    if chosen is not None:
        from tidewheel.steps.watch import look

        report = look(chosen, place)
    _emit(report, as_json)


def watch_first(recipe: Recipe, home: Home, until: datetime, console: Console) -> None:
    """Before a turn: what is proven to do harm must not be the turn's baseline. Says what it found where it found something."""
    if experiment_after(Ledger(home.store(), recipe.name).entries()) is None:
        return
    from tidewheel.steps.watch import watch as look_and_act

    if (report := look_and_act(recipe, home, until)) is not None:
        console.print(f"  watch: {plain(headline(report))}", highlight=False, soft_wrap=True)


def headline(report: ExperimentReport) -> str:
    """What an experiment came to, in one line."""
    told = report.experiment
    if report.ledger_number is None:
        return report.verdict.explain()
    entry, verdict = f"ledger entry {report.ledger_number}", report.verdict
    if verdict.phase is Phase.FAILED:
        return f"{short(told.new)} taken back, {short(told.previous)} serves again ({entry}): {verdict.explain()}"
    return f"experiment over, {short(told.new)} serves everybody ({entry}): {verdict.phase.value}: {verdict.explain()}"


def _recipe(home: Home, recipe: Path | None, name: str, settings: list[str]) -> Recipe | None:
    """The recipe that is named, or that of the run which began the running experiment; None where none runs.

    Raises:
        ConfigError: the run was made in another home.
    """
    if recipe is not None:
        return load_recipe(recipe, settings)
    if settings:
        raise ConfigError("--set changes a recipe; name it with --recipe")
    entries = ledger_of(home, name).entries()
    running = experiment_after(entries)
    if running is None:
        return None
    path = home.run(entries[running.number - 1].run_id) / "recipe.json"
    if not path.exists():
        raise ConfigError(f"{path}: the run that began the experiment was made in another home; name its recipe with --recipe")
    return Recipe.read(path)


def _moment(text: str) -> datetime:
    try:
        return parse_time(text)
    except ValueError as error:
        raise ConfigError(f"--until {text}: expected an ISO 8601 date or time, e.g. 2026-02-02") from error


def _emit(report: ExperimentReport | None, as_json: bool) -> None:
    if report is None:
        emit({"experiment": None}, as_json, lambda: print("no holdout experiment runs"))
        return
    emit(report, as_json, lambda: _show(report))


def _show(report: ExperimentReport) -> None:
    out = Console(highlight=False, soft_wrap=True)
    told = report.experiment
    out.print(f"[bold]{report.verdict.phase.value}[/]: {plain(headline(report))}\n")
    since = f"since {report.first_day}" if report.first_day else f"expected from {iso(told.begins)} on"
    skipped = f", {report.skipped_days} of them not counted: servers had not followed" if report.skipped_days else ""
    out.print(
        f"experiment {told.number} of {report.recipe}: {short(told.new)} serves {1 - told.rules.share:.0%} of users, "
        f"{short(told.previous)} the rest, {since}: {report.days} of {told.rules.horizon_days} days{skipped}\n"
    )
    if report.periods:
        rows = [[signal.name, *_figures(signal), ""] for signal in report.periods]
        rows += [[signal.name, *_figures(signal), signal.phase.value] for signal in report.signals]
        rows += [["trend a period", *_figures(report.trend), ""]] if report.trend is not None else []
        table((f"{told.rules.goal_label} a request", "against held-out users", "bounds", "verdict"), rows)


def _figures(signal: Signal) -> tuple[str, str]:
    if signal.estimate is None:
        return "-", plain(signal.message)
    low = f"{signal.lower:+.1%}" if signal.lower is not None else "-"
    high = f"{signal.upper:+.1%}" if signal.upper is not None else "-"
    return f"{signal.estimate:+.1%}", plain(f"[{low}, {high}]")
