"""The compiled pipeline of each recipe is a public surface: a change in it changes what clusters run."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import yaml

from pipelines.compile import compile_manifests, compile_recipe
from tidewheel.contracts.placement import Executors, Placed, Placement, PodPlacement, StepPlacement, Toleration
from tidewheel.contracts.recipe import Recipe

ROOT = Path(__file__).parents[2]


def recipe(name: str) -> Recipe:
    return Recipe.model_validate(yaml.safe_load((ROOT / "recipes" / f"{name}.yaml").read_text(encoding="utf-8")))


def compiled(recipe: Recipe, folder: Path) -> list[dict]:
    """The graph, and what its tasks ask of Kubernetes."""
    text = compile_recipe(recipe, folder / "pipeline.yaml").read_text(encoding="utf-8")
    return list(yaml.safe_load_all(text))


@pytest.fixture
def graph(tmp_path: Path) -> dict:
    return compiled(recipe("quickstart"), tmp_path)[0]


@pytest.mark.parametrize("name", ["quickstart", "kuairand"])
def test_compiling_gives_the_golden_pipeline(name: str, golden: bool, tmp_path: Path) -> None:
    path = ROOT / "tests" / "pipelines" / "golden" / f"{name}.yaml"
    text = compile_recipe(recipe(name), tmp_path / "pipeline.yaml").read_text(encoding="utf-8")
    if golden:
        path.write_text(text, encoding="utf-8")

    assert text == path.read_text(encoding="utf-8"), "make golden; clusters will run the new graph"


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


def executors(found: list[dict]) -> dict[str, dict]:
    """Task -> what its pod asks of Kubernetes."""
    return {
        name.removeprefix("exec-").replace("-", "_"): asked
        for name, asked in found[1]["platforms"]["kubernetes"]["deploymentSpec"]["executors"].items()
    }


def test_every_step_has_its_settings_by_name_and_its_labels(tmp_path: Path) -> None:
    found = executors(compiled(recipe("quickstart"), tmp_path))

    assert set(found) == set(Placement().steps())
    for step, asked in found.items():
        labels = asked["podMetadata"]["labels"]
        assert (labels["tidewheel/step"], labels["tidewheel/recipe"]) == (step, "quickstart")
        (settings,) = asked["configMapAsVolume"]
        assert (settings["configMapName"], settings["mountPath"]) == ("tidewheel", "/etc/tidewheel/tidewheel")
        assert not settings.get("optional"), "a step without a store would keep what it makes on its pod's own disk"
        assert {(one["secretName"], one["optional"]) for one in asked["secretAsVolume"]} == {
            ("tidewheel-store", True),
            ("tidewheel-mlflow", True),
        }
        assert {one["name"] for one in asked["fieldPathAsEnv"]} == {"TIDEWHEEL_NAMESPACE", "TIDEWHEEL_POD", "TIDEWHEEL_RECIPE"}
        assert int(asked["activeDeadlineSeconds"]) > 0


def test_a_step_asks_for_what_the_recipe_says(tmp_path: Path) -> None:
    train = StepPlacement(
        cpu="4",
        memory="16Gi",
        gpus=2,
        pool="h100",
        queue="retrain",
        priority="backfill",
        shm="2Gi",
        timeout_seconds=7200,
        retries=5,
        tolerations=(Toleration(key="spot", operator="Equal", value="yes", effect="NoSchedule"),),
    )
    placed = recipe("quickstart").model_copy(update={"placement": Placement(train=train)})

    graph, platform = compiled(placed, tmp_path)
    resources = graph["deploymentSpec"]["executors"]["exec-train"]["container"]["resources"]
    asked = executors([graph, platform])["train"]

    assert resources["accelerator"]["resourceType"] == "nvidia.com/gpu"
    assert resources["accelerator"]["resourceCount"] == "2"
    assert resources["resourceCpuRequest"] == "4"
    assert resources["resourceMemoryRequest"] == resources["resourceMemoryLimit"] == "16Gi"
    assert "resourceCpuLimit" not in resources, "a CPU that is free may be used"
    assert asked["nodeSelector"]["labels"] == {"tidewheel/pool": "h100"}
    assert [(one["key"], one.get("value", "")) for one in asked["tolerations"]] == [("nvidia.com/gpu", ""), ("spot", "yes")]
    assert asked["podMetadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "retrain"
    assert asked["podMetadata"]["labels"]["kueue.x-k8s.io/priority-class"] == "backfill"
    assert [(one["mountPath"], one["medium"], one["sizeLimit"]) for one in asked["emptyDirMounts"]] == [
        ("/dev/shm", "Memory", "2Gi")
    ]
    assert asked["activeDeadlineSeconds"] == "7200"
    tasks = graph["components"]["comp-exit-handler-1"]["dag"]["tasks"]
    assert tasks["train"]["retryPolicy"]["maxRetryCount"] == 5


def test_a_step_is_told_what_pods_of_its_own_may_ask_for_and_shares_a_volume_with_them(tmp_path: Path) -> None:
    asked = Placement(workers=PodPlacement(memory="3Gi"), executors=Executors(count=3), volume="home")
    graph, platform = compiled(recipe("quickstart").model_copy(update={"placement": asked}), tmp_path)

    told = {}
    for name, one in graph["deploymentSpec"]["executors"].items():
        environment = {each["name"]: each["value"] for each in one["container"]["env"]}
        assert environment["TIDEWHEEL_HOME"] == "/var/lib/tidewheel"
        told[name.removeprefix("exec-")] = Placed.parse(environment["TIDEWHEEL_PLACED"], name)
    assert {step for step, placed in told.items() if placed.workers == asked.workers} == {"train"}
    assert {step for step, placed in told.items() if placed.executors == asked.executors} == {
        "ingest",
        "sample",
        "validate-data",
    }
    for one in executors([graph, platform]).values():
        assert [mount["mountPath"] for mount in one["pvcMount"]] == ["/var/lib/tidewheel"]


def test_where_a_run_runs_is_no_part_of_what_it_makes() -> None:
    plain = recipe("quickstart")
    placed = plain.model_copy(update={"placement": Placement(train=StepPlacement(memory="64Gi"))})
    assert placed.digest == plain.digest


def manifests(recipe: Recipe, folder: Path, namespace: str = "") -> list[dict]:
    return list(yaml.safe_load_all(compile_manifests(recipe, folder / "manifests.yaml", namespace).read_text(encoding="utf-8")))


def test_the_manifests_hold_what_would_be_uploaded(tmp_path: Path) -> None:
    graph, platform = compiled(recipe("quickstart"), tmp_path)
    pipeline, version = manifests(recipe("quickstart"), tmp_path, "ranking")

    assert [one["kind"] for one in (pipeline, version)] == ["Pipeline", "PipelineVersion"]
    assert {one["metadata"]["namespace"] for one in (pipeline, version)} == {"ranking"}
    assert version["spec"]["pipelineName"] == pipeline["metadata"]["name"] == "tidewheel-quickstart"
    assert version["spec"]["pipelineSpec"] == graph
    assert version["spec"]["platformSpec"] == platform


def test_a_version_is_named_by_what_runs(tmp_path: Path) -> None:
    def name(of: Recipe) -> str:
        return manifests(of, tmp_path)[1]["metadata"]["name"]

    plain = recipe("quickstart")
    text = compile_recipe(plain, tmp_path / "pipeline.yaml").read_bytes()

    assert name(plain) == name(plain) == hashlib.sha256(text).hexdigest()
    assert name(plain.model_copy(update={"placement": Placement(train=StepPlacement(memory="64Gi"))})) != name(plain)
