"""The verb that explains gaps between offline and online."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from rich.console import Console

from tidewheel.cli.inspect import existing_home
from tidewheel.cli.output import emit, plain, short, table
from tidewheel.cli.recipes import load_recipe
from tidewheel.cli.scratch import scratch_run
from tidewheel.cli.turn import moment_of
from tidewheel.cli.turning import next_window_end
from tidewheel.contracts.comparison import Estimate
from tidewheel.contracts.diagnosis import Behaviour, Diagnosis
from tidewheel.contracts.window import Window

FIGURES: dict[str, Callable[[Behaviour], Estimate]] = {
    "base rate": lambda side: side.base_rate,
    "pred/actual": lambda side: side.predicted_to_actual,
    "log-loss": lambda side: side.log_loss,
    "auc": lambda side: side.auc,
}


def diagnose(
    recipe: Path,
    data: Path | None,
    window_end: str,
    days: int,
    label: str,
    settings: list[str],
    home: str,
    as_json: bool,
) -> None:
    """Join what was served with what the bundle says of the same rows, and show what differs and why."""
    chosen = load_recipe(recipe, settings, data)
    place = existing_home(home)
    end = moment_of(window_end) if window_end else next_window_end(chosen, place)
    window = Window.ending(end, days or chosen.window.days)
    Console(stderr=True).print(f"[bold]{chosen.name}[/] served in {plain(str(window))}", highlight=False)
    from tidewheel.steps.diagnosis import diagnosis

    with scratch_run(chosen.name, place, "diagnose") as folder:
        found = diagnosis(chosen, place, folder, window, label or chosen.deploy.goal_label)
    emit(found, as_json, lambda: _show(found))


def _show(found: Diagnosis) -> None:
    out = Console(highlight=False, soft_wrap=True)
    joined = found.joined
    out.print(f"[bold]{found.finding.value}[/]: {plain(found.message)}\n")
    out.print(
        f"bundle {short(found.bundle)} of run {found.run_id}, {found.label}: {joined.joined:,} of {joined.impressions:,} "
        f"impressions joined ({joined.of_bundle:,} served by it, {joined.randomized:,} in random order), "
        f"{joined.served_differently:.1%} served with another score than the bundle gives\n"
    )
    sides = {"held out": found.offline, "re-scored": found.rescored, "served": found.served}
    there = {name: side for name, side in sides.items() if side is not None}
    if not there:
        return
    rows = [["rows", *(f"{side.rows:,}" for side in there.values())]]
    rows += [[name, *(_shown(figure(side)) for side in there.values())] for name, figure in FIGURES.items()]
    table(("", *there), rows)
    if found.causes:
        out.print()
        causes = [
            [str(at), cause.kind.value, plain(", ".join(cause.features) or cause.detail), _signed(cause.log_loss)]
            for at, cause in enumerate(found.causes, start=1)
        ]
        table(("", "cause", "of", "log-loss by"), causes)
        out.print()
        for at, cause in enumerate(found.causes, start=1):
            out.print(f"{at}. {plain(cause.sentence)}")
    out.print()
    table(("from held out to served", "log-loss by"), [[plain(term.name), _signed(term.log_loss)] for term in found.terms])


def _shown(estimate: Estimate) -> str:
    if estimate.value is None:
        return "-"
    if estimate.lower is None or estimate.upper is None:
        return f"{estimate.value:.3f}"
    return plain(f"{estimate.value:.3f} [{estimate.lower:.3f}, {estimate.upper:.3f}]")


def _signed(estimate: Estimate) -> str:
    if estimate.value is None or estimate.lower is None or estimate.upper is None:
        return "-"
    return plain(f"{estimate.value:+.5f} [{estimate.lower:+.5f}, {estimate.upper:+.5f}]")
