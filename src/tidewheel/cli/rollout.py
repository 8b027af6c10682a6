"""Verbs of the rollout: plan."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

from rich.console import Console

from tidewheel.cli.output import emit, table
from tidewheel.cli.recipes import load_recipe
from tidewheel.contracts.rollout import RolloutPlan
from tidewheel.errors import ConfigError
from tidewheel.rollout.exposure import worst_case


def plan(recipe: Path, requests_per_second: float | None, settings: list[str], as_json: bool) -> None:
    """Show who sees a candidate at most before its canary must have ended."""
    if requests_per_second is not None and not 0 < requests_per_second < float("inf"):
        raise ConfigError(f"--requests-per-second is {requests_per_second:g}; expected a number above 0")
    chosen = load_recipe(recipe, settings, needs_data=False)
    found = worst_case(chosen.name, chosen.deploy, requests_per_second)
    emit(found, as_json, lambda: _show(found))


def _show(found: RolloutPlan) -> None:
    rows = [
        [
            str(step.number),
            f"{step.share:.0%}",
            f"{step.min_requests:,}",
            f"{step.candidate_requests:,}",
            f"{step.requests:,}",
            f"{step.exposure:.1%}",
            "" if step.seconds is None else str(timedelta(seconds=round(step.seconds))),
        ]
        for step in found.steps
    ]
    head = ("step", "of users", "passes from", "candidate at most", "of all requests", "exposure so far", "ended by")
    table(head, rows)
    Console(highlight=False, soft_wrap=True).print(
        f"\nIf nothing convicts it, a harmful candidate answers {found.candidate_requests:,} of {found.requests:,} requests, "
        f"{found.exposure:.1%}, before the last step ends and production takes all back. The first look comes after "
        f"{found.first_look:,} requests of both arms; a proof of harm ends a step at any look, wrongly in at most "
        f"{found.alpha:.0%} of canaries."
    )
