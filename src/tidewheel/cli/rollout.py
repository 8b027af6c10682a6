"""Verbs of the rollout: plan, judge."""

from __future__ import annotations

import sys
from datetime import timedelta
from pathlib import Path

import yaml
from rich.console import Console

from tidewheel.cli.output import emit, table
from tidewheel.cli.recipes import load_recipe
from tidewheel.contracts.recipe import WorldSource
from tidewheel.contracts.rollout import PlannedStep, RolloutPlan
from tidewheel.contracts.verdict import Phase
from tidewheel.errors import ConfigError
from tidewheel.rollout.exposure import worst_case
from tidewheel.store.home import Home

FAILED_CODE = 4  # of a step that did not pass; whatever else is not 0 could not be judged, and may be asked again


def judge(canary: str, revision: str, step: int, candidate: str, production: str, home: str, as_json: bool) -> int:
    """Lead one step of a canary on a cluster to its end; returns the exit code."""
    from tidewheel.steps.judge import Asked, phase_of
    from tidewheel.steps.judge import judge as lead

    asked = Asked(canary, revision, step, candidate, production)
    found = lead(Home.resolve(Path(home) if home else None), asked, lambda _, words: print(words, file=sys.stderr, flush=True))
    phase = phase_of(found, step)

    def show() -> None:
        print(f"step {step}: {phase.value}: {found.verdict.explain()}")

    emit(found, as_json, show)
    return 0 if phase is Phase.SUCCESSFUL else FAILED_CODE


def helm_values(recipe: Path, settings: list[str]) -> None:
    """Print the plan as values of the chart ranker-serving."""
    from tidewheel.steps.served import weight_of

    chosen = load_recipe(recipe, settings, needs_data=False)
    steps = [{"share": weight_of(step.share) / 100, "maxSeconds": int(step.max_seconds)} for step in chosen.deploy.steps]
    print(yaml.safe_dump({"recipe": chosen.name, "rollout": {"steps": steps}}, sort_keys=False), end="")


def plan(recipe: Path, requests_per_second: float | None, settings: list[str], as_json: bool) -> None:
    """Show who sees a candidate at most before its canary must have ended."""
    if requests_per_second is not None and not 0 < requests_per_second < float("inf"):
        raise ConfigError(f"--requests-per-second is {requests_per_second:g}; expected a number above 0")
    chosen = load_recipe(recipe, settings, needs_data=False)
    labels = [label.name for label in chosen.labels if label.gated]
    is_closed_loop = isinstance(chosen.source, WorldSource)
    found = worst_case(chosen.name, chosen.deploy, labels, is_closed_loop, requests_per_second)
    emit(found, as_json, lambda: _show(found))


def _show(found: RolloutPlan) -> None:
    rows = [
        [
            str(step.number),
            f"{step.share:.0%}",
            _passes_from(step),
            f"{step.candidate_requests:,}",
            f"{step.requests:,}",
            f"{step.exposure:.1%}",
            _span(step.max_seconds),
            "" if step.seconds is None else _span(step.seconds),
        ]
        for step in found.steps
    ]
    head = (
        "step",
        "of users",
        "passes from",
        "candidate at most",
        "of all requests",
        "exposure so far",
        "held at most",
        "ended by",
    )
    table(head, rows)
    print()
    signals = [
        [each.name, each.role.value, each.better, f"{each.limit:+g}", f"{found.alpha:g}", f"{each.harm_alpha:.4f}"]
        for each in found.signals
    ]
    table(("signal", "role", "better", "limit", "level to pass", "level to convict"), signals)
    Console(highlight=False, soft_wrap=True).print(
        f"\nIf nothing convicts it, a harmful candidate answers {found.candidate_requests:,} of {found.requests:,} requests, "
        f"{found.exposure:.1%}, before the last step ends and production takes all back. The first look comes after "
        f"{found.first_look:,} requests of both arms; a proof of harm ends a step at any look, wrongly in at most "
        f"{found.alpha:.0%} of canaries."
    )


def _passes_from(step: PlannedStep) -> str:
    minima = [f"{step.min_requests:,} requests"]
    minima += [f"{step.min_events:,} events"] if step.min_events else []
    minima += [_span(step.min_seconds)] if step.min_seconds else []
    return ", ".join(minima)


def _span(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds))).removesuffix(", 0:00:00")
