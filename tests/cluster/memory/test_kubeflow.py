"""The memory ladder in whole runs of a real Kubeflow Pipelines, which tries the step again by itself."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from kfp import Client, compiler, dsl, kubernetes

from components.images import image_of
from pipelines.placement import place
from tests.cluster.kubectl import kubectl
from tests.cluster.memory.ladder import ASKED, MIB, PYTHON, RECIPE, SECOND, STEP, STEPS, Shelf, allow
from tests.cluster.queues import queue_of, second_pods
from tidewheel.contracts.placement import Placement

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(1800)]

# Argo's executor and Kubeflow's launcher are in the same container.
IN_KUBEFLOW = Placement(train=ASKED.train.model_copy(update={"memory": "256Mi"}))


@pytest.fixture
def client(shelf: Shelf) -> Iterator[Client]:
    if not os.environ.get("KFP_ENDPOINT"):
        pytest.skip("KFP_ENDPOINT names no Kubeflow Pipelines")
    home, account = os.environ.get("KFP_NAMESPACE", "kubeflow"), os.environ.get("KFP_ACCOUNT", "pipeline-runner")
    is_ours = "configmap/tidewheel" not in kubectl("--namespace", home, "get", "configmaps", "--output=name").split()
    if is_ours:
        kubectl("--namespace", home, "create", "configmap", "tidewheel")
    allow(home, "ladder-test", account)
    allow(home, "second-test", account, SECOND)
    yield Client(host=os.environ["KFP_ENDPOINT"])
    kubectl("--namespace", home, "delete", "rolebinding,role", "ladder-test", "second-test")
    kubectl("--namespace", home, "delete", "configmap", "ladder")
    if is_ours:
        kubectl("--namespace", home, "delete", "configmap", "tidewheel")


@pytest.fixture
def home_queue(client: Client) -> Iterator[str]:
    with queue_of(os.environ.get("KFP_NAMESPACE", "kubeflow"), "1Gi") as name:
        yield name


def submitted(client: Client, shelf: Shelf, folder: Path, amount: str, placement: Placement = IN_KUBEFLOW) -> str:
    @dsl.container_component
    def hold(run_id: str) -> dsl.ContainerSpec:
        return dsl.ContainerSpec(image=image_of("evaluate"), command=[PYTHON, "-c", STEP, "hold", amount, run_id])

    @dsl.pipeline(name="tidewheel-ladder")
    def pipeline() -> None:
        task = hold(run_id=dsl.PIPELINE_JOB_ID_PLACEHOLDER)
        task.set_caching_options(False)
        place(task, "train", RECIPE, placement)
        kubernetes.use_config_map_as_volume(task, "ladder", STEPS)
        task.set_env_variable("PYTHONPATH", STEPS)
        for name, value in shelf.environment.items():
            task.set_env_variable(name, value)

    compiler.Compiler().compile(pipeline, str(folder / "ladder.yaml"))
    run = client.create_run_from_pipeline_package(str(folder / "ladder.yaml"), arguments={}, enable_caching=False)
    assert client.wait_for_run_completion(run.run_id, timeout=400, sleep_duration=2).state == "SUCCEEDED"
    return run.run_id


def pods_of(run_id: str) -> list[dict[str, Any]]:
    selector = f"--selector=pipeline/runid={run_id},tidewheel/step=train"
    found = json.loads(kubectl("get", "pods", "--all-namespaces", selector, "--output=json"))["items"]
    return sorted(found, key=lambda pod: pod["metadata"]["creationTimestamp"])


def main_of(pod: dict[str, Any]) -> tuple[str, str]:
    (main,) = [one for one in pod["status"]["containerStatuses"] if one["name"] == "main"]
    return main["state"]["terminated"]["reason"], main["resources"]["limits"]["memory"]


def test_kubeflow_tries_again_and_the_run_ends_well(client: Client, shelf: Shelf, tmp_path: Path) -> None:
    first = submitted(client, shelf, tmp_path, "200")
    second = submitted(client, shelf, tmp_path, "200")

    print(f"in Kubeflow: {shelf.record(first).memory}, then {shelf.record(second).memory}")
    assert [main_of(pod) for pod in pods_of(first)] == [("OOMKilled", "256Mi"), ("Completed", "512Mi")]
    assert [main_of(pod) for pod in pods_of(second)] == [("Completed", "512Mi")]
    for run_id in (first, second):
        assert shelf.record(run_id).memory_bytes == 512 * MIB
        assert 256 * MIB < (shelf.record(run_id).peak_memory_bytes or 0) < 512 * MIB
    assert shelf.learned is not None
    assert (shelf.learned.rung_bytes, shelf.learned.killed_bytes) == (512 * MIB, 256 * MIB)


def test_a_step_in_a_queue_of_kubeflow_goes_on_in_a_second_pod(
    client: Client, shelf: Shelf, home_queue: str, tmp_path: Path
) -> None:
    asked = Placement(train=IN_KUBEFLOW.train.model_copy(update={"queue": home_queue}))
    first = submitted(client, shelf, tmp_path, "200", asked)
    second = submitted(client, shelf, tmp_path, "200", asked)

    assert [main_of(pod) for pod in pods_of(first)] == [("OOMKilled", "256Mi"), ("Completed", "256Mi")]
    assert [main_of(pod) for pod in pods_of(second)] == [("Completed", "256Mi")]
    for run_id in (first, second):
        (pod,) = [
            each
            for each in second_pods(os.environ.get("KFP_NAMESPACE", "kubeflow"))
            if each["metadata"]["labels"]["tidewheel/run-id"] == run_id
        ]
        assert main_of(pod) == ("Completed", "512Mi")
        assert shelf.record(run_id).memory_bytes == 512 * MIB
