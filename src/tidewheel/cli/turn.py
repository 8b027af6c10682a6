"""The verbs that turn the wheel: run, simulate, compile."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path

from rich.console import Console

from tidewheel.cli.output import emit, metric, outcome_text, plain, short, shown, table
from tidewheel.cli.recipes import load_recipe
from tidewheel.cli.turning import UNDECIDED, decided, next_window_end, turn
from tidewheel.cli.unfinished import conclude_killed
from tidewheel.cli.watch import watch_first
from tidewheel.contracts.recipe import Recipe, WorldSource
from tidewheel.contracts.report import Outcome, RunReport
from tidewheel.contracts.window import Window, iso, parse_time
from tidewheel.errors import ConfigError
from tidewheel.store.home import Home


def run(
    recipe: Path,
    data: Path | None,
    window_end: str,
    settings: list[str],
    home: str,
    reason: str,
    dry_run: bool,
    require: list[str],
    as_json: bool,
    verify: str,
) -> int:
    """Turn the wheel once and show how it ended; returns the exit code."""
    if unknown := sorted(set(require) - set(Outcome)):
        raise ConfigError(f"--require {unknown[0]}: expected one of {', '.join(Outcome)}")
    chosen = load_recipe(recipe, settings, data)
    place = Home.resolve(Path(home) if home else None, verify=verify)
    console = Console(stderr=True)
    recall(chosen, place, console)
    end = moment_of(window_end) if window_end else next_window_end(chosen, place)
    announce(chosen, end, console)
    if not dry_run:
        watch_first(chosen, place, end, console)
    report = turn(chosen, place, end, reason, dry_run, console)
    emit(report, as_json, lambda: _show(report, place))
    return exit_code(report, [Outcome(ending) for ending in require])


def simulate(recipe: Path, turns: int, settings: list[str], home: str, as_json: bool) -> int:
    """Turn the wheel on the built-in world, window after window; returns the worst exit code."""
    chosen = load_recipe(recipe, settings)
    if not isinstance(chosen.source, WorldSource):
        raise ConfigError(f"recipe {recipe.name}: simulate needs source.kind world; found {chosen.source.kind}")
    place = Home.resolve(Path(home) if home else None)
    console = Console(stderr=True)
    recall(chosen, place, console)
    wanted = [chosen.window.first_end + timedelta(days=chosen.window.stride_days * number) for number in range(turns)]
    done = decided(chosen, place)
    if all(end in done for end in wanted) or set(done) - set(wanted):
        _move_aside(place, console)
        done = {}
    for number, end in enumerate(wanted, start=1):
        if end in done:
            console.print(f"turn {number} of {turns}: decided before: {done[end].outcome.value}", highlight=False)
            continue
        console.print(f"[bold]turn {number} of {turns}[/]", highlight=False)
        announce(chosen, end, console)
        watch_first(chosen, place, end, console)
        done[end] = turn(chosen, place, end, f"simulated turn {number}", False, console)
        console.print(f"  → {outcome_text(done[end].outcome)}: {plain(done[end].reason)}\n", highlight=False, soft_wrap=True)
        if done[end].outcome in UNDECIDED:
            break
    results = [done[end] for end in wanted if end in done]
    emit([result.model_dump(mode="json", by_alias=True) for result in results], as_json, lambda: _show_turns(results, place))
    return max(exit_code(result) for result in results)


def compile_pipeline(
    recipe: Path, output: Path, is_manifest: bool, namespace: str, data: Path | None, settings: list[str], as_json: bool
) -> None:
    """Write the pipeline that `run` would execute, or objects of Kubernetes with it.

    Raises:
        ConfigError: a namespace without `is_manifest`: a pipeline has none.
    """
    if namespace and not is_manifest:
        raise ConfigError(f"--namespace {namespace}: a pipeline has no namespace; add --manifest, or leave it out")
    chosen = load_recipe(recipe, settings, data)
    from pipelines.compile import compile_manifests, compile_recipe

    if is_manifest:
        compile_manifests(chosen, output, namespace)
    else:
        compile_recipe(chosen, output)
    found = {"pipeline": str(output), "recipe": chosen.name, "recipe_digest": chosen.digest}
    emit(found, as_json, lambda: print(f"{output}: pipeline of recipe {chosen.name} ({short(chosen.digest)})"))


def exit_code(report: RunReport, required: Sequence[Outcome] = ()) -> int:
    """0: production is known good; 2: the recipe is at fault; 3: the data is; 4: not the required ending; 1: else."""
    if report.outcome is Outcome.DATA_REJECTED:
        return 3
    if report.outcome is Outcome.FAILED:
        failures = [step.failure.kind for step in report.steps if step.failure is not None]
        return 2 if {"ConfigError", "PausedError"} & {*failures} else 1
    return 4 if required and report.outcome not in required else 0


def moment_of(text: str) -> datetime:
    """What `--window-end` names.

    Raises:
        ConfigError: it is not a date or time.
    """
    try:
        return parse_time(text)
    except ValueError as error:
        raise ConfigError(f"--window-end {text}: expected an ISO 8601 date or time, e.g. 2026-01-12") from error


def recall(recipe: Recipe, home: Home, console: Console) -> None:
    """Conclude runs that were killed after their decision, and say so: their windows are decided."""
    for report in conclude_killed(recipe.name, home):
        console.print(f"{report.run_id} was killed after its decision: {outcome_text(report.outcome)}", highlight=False)


def announce(recipe: Recipe, end: datetime, console: Console) -> None:
    """Say what is about to run."""
    window = Window.ending(end, recipe.window.days)
    console.print(f"[bold]{recipe.name}[/] window \\[{iso(window.start)}, {iso(window.end)})", highlight=False)


def _move_aside(home: Home, console: Console) -> None:
    """Keep a finished home under the next free number and leave its name free.

    Raises:
        ConfigError: its store lies elsewhere, and with it the ledger that would have to be kept too.
    """
    if not Path(home.store_url).is_relative_to(home.root):
        raise ConfigError(
            f"simulation in {home.root.name}: is over, and its store {home.store_url} is no part of it; "
            "name another with TIDEWHEEL_STORE and another --home"
        )
    number = 1
    while (kept := home.root.with_name(f"{home.root.name}.{number}")).exists():
        number += 1
    shutil.move(home.root, kept)
    console.print(f"the simulation in {home.root.name} was over: kept as {kept.name}", highlight=False)


def _show(report: RunReport, home: Home) -> None:
    """What a person wants to know at the end of a run."""
    from rich.console import Console as Output

    out = Output()
    out.print(f"\n{outcome_text(report.outcome)}: {plain(report.reason)}", highlight=False, soft_wrap=True)
    labels = list(report.metrics.get("student", {}))
    if labels:
        rows = [
            [model, label, *(metric(report, model, label, name) for name in ("auc", "logloss", "calibration_ratio", "ece"))]
            for model in report.metrics
            for label in labels
        ]
        table(("model", "label", "auc", "log-loss", "predicted/actual", "ece"), rows)
    for warning in [reason for verdict in report.verdicts.values() for reason in verdict.warnings]:
        out.print(f"[yellow]warning[/] {plain(warning.message)}", highlight=False, soft_wrap=True)
    where = shown(home.run(report.run_id) / "report.html")
    out.print(f"production {short(report.production)}   report {where}", highlight=False, soft_wrap=True)


def _show_turns(results: Sequence[RunReport], home: Home) -> None:
    """A row a turn in 80 columns, then where the reports are."""
    label = next((label for result in results for label in result.metrics.get("student", {})), "click")
    rows = [
        [
            str(number),
            iso(result.window.end),
            outcome_text(result.outcome),
            short(result.teacher)[:8],
            metric(result, "student", label, "auc"),
            metric(result, "production", label, "auc"),
            short(result.production)[:8],
            f"{sum(step.seconds for step in result.steps):.0f} s",
        ]
        for number, result in enumerate(results, start=1)
    ]
    table(("turn", "window end", "outcome", "teacher", f"auc {label}", "before", "serves", "took"), rows)
    print("\nreports")
    for result in results:
        print(f"  {shown(home.run(result.run_id) / 'report.html')}")
