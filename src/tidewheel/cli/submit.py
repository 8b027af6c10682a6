"""The verb submit: a recipe's pipeline as a run on Kubeflow Pipelines."""

from __future__ import annotations

import hashlib
import os
from datetime import datetime
from pathlib import Path
from typing import Any

from rich.console import Console

from tidewheel.cli.output import emit, plain, short
from tidewheel.cli.recipes import load_cluster_recipe
from tidewheel.cli.turn import exit_code as turned
from tidewheel.cli.turn import moment_of
from tidewheel.cli.turning import next_window_end
from tidewheel.cluster.backend import Order, RunState, TaskState
from tidewheel.cluster.finding import Finding
from tidewheel.contracts.recipe import Recipe, pipeline_name
from tidewheel.contracts.report import RunReport
from tidewheel.contracts.window import iso
from tidewheel.errors import ConfigError
from tidewheel.steps.records import report_of
from tidewheel.store.home import STORE_VARIABLE, Home

STYLES = {"SUCCEEDED": "green", "FAILED": "red", "CANCELED": "yellow", "SKIPPED": "dim", "RUNNING": "blue"}


def submit(
    recipe: Path,
    data: str,
    window_end: str,
    settings: list[str],
    reason: str,
    dry_run: bool,
    service_account: str,
    patience_seconds: float | None,
    as_json: bool,
) -> int:
    """Upload the pipeline where the backend has not got it, create the run and say where it is; returns the exit code.

    Args:
        patience_seconds: follow the run, and give up a pod that lacks something for so long; None: do not follow it.
    """
    chosen = load_cluster_recipe(recipe, settings, data)
    end = moment_of(window_end) if window_end else _next_end(chosen)
    from pipelines.compile import compiled
    from tidewheel.cluster.kubeflow import Kubeflow

    backend = Kubeflow.from_environment()
    pipeline = compiled(chosen)
    order = Order(
        title=f"{chosen.name} {iso(end)}",
        description=reason,
        version=backend.upload(chosen.name, pipeline),
        experiment_id=backend.experiment(chosen.name),
        parameters={"window_end": end.isoformat(), "reason": reason, "dry_run": dry_run},
        service_account=service_account,
    )
    run_id = backend.create_run(order)
    address = backend.address_of(run_id)
    document: dict[str, Any] = {
        "run_id": run_id,
        "recipe": chosen.name,
        "recipe_digest": chosen.digest,
        "window_end": end.isoformat(),
        "pipeline": pipeline_name(chosen.name),
        "pipeline_digest": hashlib.sha256(pipeline).hexdigest(),
        "address": address,
    }
    if patience_seconds is None:
        emit(document, as_json, lambda: print(f"run {run_id} of {chosen.name} until {iso(end)}\n{address}"))
        return 0
    return _wait(document, lambda: backend.run(run_id), patience_seconds, as_json)


def _next_end(recipe: Recipe) -> datetime:
    """As `run` chooses it, where the store that the pods use can be read from here."""
    if not os.environ.get(STORE_VARIABLE):
        raise ConfigError(
            "--window-end is not given, and TIDEWHEEL_STORE names no store whose ledger says which window is next; "
            "name a time, e.g. --window-end 2026-01-12, or the store that the runs use"
        )
    return next_window_end(recipe, Home.resolve(None))


def _wait(document: dict[str, Any], read: Any, patience_seconds: float, as_json: bool) -> int:
    """Follow the run, a line a step on stderr and one for each thing that holds a pod up."""
    from tidewheel.cluster.following import exit_code, follow
    from tidewheel.cluster.starting import looking_at

    console = Console(stderr=True, highlight=False, soft_wrap=True)
    console.print(f"run {document['run_id']}  {plain(document['address'])}")

    def tell(task: TaskState) -> None:
        took = "" if task.seconds is None else f" {task.seconds:6.1f} s"
        console.print(f"  [{STYLES.get(task.state, 'default')}]{task.state.lower():10}[/] {task.name}{took}")

    def say(held: Finding) -> None:
        console.print(f"  [{'red' if held.is_in_the_way else 'yellow'}]waits     [/] {plain(held.explain())}")

    found: RunState = follow(read, tell, looking_at(document["run_id"], say, patience_seconds))
    tasks = [{"name": task.name, "state": task.state, "seconds": task.seconds} for task in found.tasks]
    report = ending(document["run_id"])
    ended = {**document, "state": found.state, "tasks": tasks, "error": found.error or None}
    ended |= {"report": report.model_dump(mode="json", by_alias=True) if report else None}
    words = f"{report.outcome.value}: {report.reason}" if report else f"{found.state.lower()} {found.error}".rstrip()
    emit(ended, as_json, lambda: print(f"run {short(document['run_id'])} {words}"))
    return exit_code(found) if report is None else turned(report)


def ending(run_id: str) -> RunReport | None:
    """What the run says of itself, where the store that its pods use can be read from here."""
    return report_of(Home.resolve(None).store(), run_id) if os.environ.get(STORE_VARIABLE) else None
