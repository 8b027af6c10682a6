"""The verbs schedule diff, apply and list: schedules.yaml against a Kubeflow Pipelines backend."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from tidewheel.cli.output import emit, table
from tidewheel.cli.recipes import load_cluster_recipe
from tidewheel.cluster.schedules import Action, Found, Kind, Wanted, found_of, plan
from tidewheel.cluster.schedules import apply as apply_plan
from tidewheel.contracts.base import first_fault
from tidewheel.contracts.recipe import Recipe
from tidewheel.contracts.schedules import Schedules
from tidewheel.errors import ConfigError


def diff(file: Path, as_json: bool) -> None:
    """Show what apply would do; changes nothing."""
    schedules, wanted = _read(file)
    actions = plan(wanted, found_of(schedules.group, _backend().recurring_runs()))
    document = {"group": schedules.group, "actions": [_row(each) for each in actions], "changes": len(actions)}
    emit(document, as_json, lambda: _show(actions, (), "would be made"))


def apply(file: Path, as_json: bool) -> None:
    """Make the backend's schedules those of the file."""
    schedules, wanted = _read(file)
    found = apply_plan(_backend(), schedules.group, wanted)
    document = {
        "group": schedules.group,
        "actions": [_row(each) for each in found.done],
        "changes": len(found.done),
        "waiting": [_row(each) for each in found.waiting],
    }
    emit(document, as_json, lambda: _show(found.done, found.waiting, "made"))


def list_(file: Path, as_json: bool) -> None:
    """Show every schedule of the file and of its group in the backend."""
    schedules, wanted = _read(file)
    found = found_of(schedules.group, _backend().recurring_runs())
    rows = _states(wanted, found)
    columns = ("name", "cron, UTC", "state", "recurring run")
    emit(
        {"group": schedules.group, "schedules": rows},
        as_json,
        lambda: table(columns, [[row["name"], row["cron"], row["state"], row["id"] or "-"] for row in rows]),
    )


def read_schedules(file: Path) -> Schedules:
    """The file, checked.

    Raises:
        ConfigError: it cannot be read, is not YAML, or breaks the contract.
    """
    try:
        document = yaml.safe_load(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{file}: cannot be read ({error.strerror})") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file}: is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(document, dict):
        raise ConfigError(f"{file}: expected schema: tidewheel/schedules/v1 and schedules, found {type(document).__name__}")
    try:
        return Schedules.model_validate(document)
    except ValidationError as error:
        raise ConfigError(f"{file}: {first_fault(error)}") from error


def _read(file: Path) -> tuple[Schedules, list[Wanted]]:
    schedules = read_schedules(file)
    from tidewheel.cluster.compiling import wanted_of

    def recipe_of(name: str) -> Recipe:
        return load_cluster_recipe(file.parent / name)

    return schedules, wanted_of(schedules, recipe_of)


def _backend() -> Any:
    from tidewheel.cluster.kubeflow import Kubeflow

    return Kubeflow.from_environment()


def _row(action: Action) -> dict[str, str]:
    return {"action": action.kind.value, "name": action.name, "why": action.why, "id": action.id}


def _states(wanted: Sequence[Wanted], found: Sequence[Found]) -> list[dict[str, Any]]:
    """A row for each schedule that is there, and one for each that is missing."""
    by_name = {each.name: each for each in wanted}
    right: set[str] = set()
    rows: list[dict[str, Any]] = []
    for each in sorted(found, key=lambda each: (each.name, not each.is_enabled, each.created_at)):
        chosen = by_name.get(each.name)
        state = "enabled" if each.is_enabled else "disabled"
        why = "not in the file" if chosen is None else each.difference(chosen)
        if chosen is not None and not why:
            if each.name in right:
                why = "there are two of it"
            elif chosen.is_enabled != each.is_enabled:
                why = "the file enables it" if chosen.is_enabled else "the file disables it"
            right.add(each.name)
        rows.append({"name": each.name, "cron": each.cron, "id": each.id, "state": f"{state}: {why}" if why else state})
    missing = [each for each in wanted if each.name not in right]
    rows += [{"name": each.name, "cron": each.cron, "id": None, "state": "missing"} for each in missing]
    return rows


def _show(actions: Sequence[Action], waiting: Sequence[Action], words: str) -> None:
    if actions:
        table(("action", "schedule", "why", "recurring run"), [[*_row(each).values()] for each in actions])
    for each in waiting:
        print(f"{each.name}: {each.id} is deleted by an apply after its run ended ({each.why})")
    counts = {kind: sum(action.kind is kind for action in actions) for kind in Kind}
    parts = ", ".join(f"{count} {kind.value}" for kind, count in counts.items() if count)
    print(f"{len(actions)} changes {words}" + (f": {parts}" if parts else ""))
