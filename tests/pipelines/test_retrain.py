"""The compiled pipeline of each recipe is a public surface: a change in it changes what clusters run."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from pipelines.compile import compile_recipe
from tidewheel.contracts.recipe import Recipe

ROOT = Path(__file__).parents[2]


def recipe(name: str) -> Recipe:
    return Recipe.model_validate(yaml.safe_load((ROOT / "recipes" / f"{name}.yaml").read_text(encoding="utf-8")))


@pytest.fixture
def graph(tmp_path: Path) -> dict:
    return yaml.safe_load(compile_recipe(recipe("quickstart"), tmp_path / "pipeline.yaml").read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", ["quickstart", "kuairand"])
def test_compiling_gives_the_golden_pipeline(name: str, golden: bool, tmp_path: Path) -> None:
    path = ROOT / "tests" / "pipelines" / "golden" / f"{name}.yaml"
    compiled = compile_recipe(recipe(name), tmp_path / "pipeline.yaml").read_text(encoding="utf-8")
    if golden:
        path.write_text(compiled, encoding="utf-8")

    assert compiled == path.read_text(encoding="utf-8"), "make golden; clusters will run the new graph"


def test_equal_recipes_compile_to_equal_bytes(tmp_path: Path) -> None:
    first = compile_recipe(recipe("quickstart"), tmp_path / "a.yaml").read_bytes()

    assert compile_recipe(recipe("quickstart"), tmp_path / "b.yaml").read_bytes() == first


def test_nothing_deploys_unless_evaluate_says_so(graph: dict) -> None:
    body = graph["components"]["comp-exit-handler-1"]["dag"]["tasks"]
    gate = body["condition-2"]["triggerPolicy"]["condition"]

    assert "deploy" not in body
    assert gate == "inputs.parameter_values['pipelinechannel--evaluate-Output'] == true"


def test_conclude_runs_whatever_became_of_the_steps(graph: dict) -> None:
    end = graph["root"]["dag"]["tasks"]["conclude"]

    assert end["triggerPolicy"]["strategy"] == "ALL_UPSTREAM_TASKS_COMPLETED"


def test_run_time_parameters_are_the_window_the_reason_and_dry_run(graph: dict) -> None:
    assert set(graph["root"]["inputDefinitions"]["parameters"]) == {"window_end", "reason", "dry_run"}


def test_the_orchestrators_own_cache_is_off(graph: dict) -> None:
    bodies = [graph["root"], *graph["components"].values()]
    tasks = [task for body in bodies for task in body.get("dag", {}).get("tasks", {}).values()]
    leaves = [task for task in tasks if "executorLabel" in graph["components"][task["componentRef"]["name"]]]

    cached = [task["taskInfo"]["name"] for task in leaves if task.get("cachingOptions", {}).get("enableCache")]

    assert len(leaves) == 8
    assert cached == []
