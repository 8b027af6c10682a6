"""What a recipe's placement asks for, and what a task of a real Kubeflow backend gets."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from kfp import Client, compiler, dsl

from pipelines.placement import place
from tests.cluster.kubectl import eventually, kubectl, require_cluster
from tidewheel.contracts.placement import Placement, StepPlacement, Toleration

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]

ASKED = Placement(
    train=StepPlacement(
        cpu="100m", memory="64Mi", shm="32Mi", timeout_seconds=600, retries=1, tolerations=(Toleration(key="spot"),)
    )
)
IMAGE = os.environ.get("TIDEWHEEL_TEST_IMAGE", "localhost:5000/busybox:1.35")  # any with a shell
LOOK = "env | grep ^TIDEWHEEL; cd /etc/tidewheel; ls; cat tidewheel/TIDEWHEEL_STORE; df /dev/shm | tail -1"


@pytest.fixture
def client() -> Iterator[Client]:
    require_cluster()
    if not os.environ.get("KFP_ENDPOINT"):
        pytest.skip("KFP_ENDPOINT names no Kubeflow Pipelines")
    client = Client(host=os.environ["KFP_ENDPOINT"])
    namespace = os.environ.get("KFP_NAMESPACE", "kubeflow")  # where runs of a backend for one user are
    names = kubectl("--namespace", namespace, "get", "configmaps", "--output=name").split()
    is_ours = "configmap/tidewheel" not in names
    if is_ours:
        kubectl("--namespace", namespace, "create", "configmap", "tidewheel", "--from-literal=TIDEWHEEL_STORE=s3://bucket")
    yield client
    if is_ours:
        kubectl("--namespace", namespace, "delete", "configmap", "tidewheel")


def test_a_task_gets_what_it_asks_for(client: Client, tmp_path: Path) -> None:
    @dsl.container_component
    def look() -> dsl.ContainerSpec:
        return dsl.ContainerSpec(image=IMAGE, command=["sh", "-c", LOOK])

    @dsl.pipeline(name="tidewheel-placement")
    def placed() -> None:
        task = look()
        task.set_caching_options(False)
        place(task, "train", "quickstart", ASKED)

    compiler.Compiler().compile(placed, str(tmp_path / "placed.yaml"))
    run = client.create_run_from_pipeline_package(str(tmp_path / "placed.yaml"), arguments={}, enable_caching=False)
    assert client.wait_for_run_completion(run.run_id, timeout=300).state == "SUCCEEDED"

    selector = f"--selector=pipeline/runid={run.run_id},tidewheel/step=train,tidewheel/recipe=quickstart"
    (pod,) = json.loads(kubectl("get", "pods", "--all-namespaces", selector, "--output=json"))["items"]
    spec: dict[str, Any] = next(one for one in pod["spec"]["containers"] if one["name"] == "main")
    assert spec["resources"] == {"limits": {"memory": "64Mi"}, "requests": {"cpu": "100m", "memory": "64Mi"}}
    assert pod["spec"]["activeDeadlineSeconds"] == 600
    assert {"key": "spot", "operator": "Exists"} in pod["spec"]["tolerations"]
    place_of, name = pod["metadata"]["namespace"], pod["metadata"]["name"]
    said = eventually(
        lambda: kubectl("--namespace", place_of, "logs", name, "--container=main"), lambda text: "/dev/shm" in text, 30
    )
    for line in (f"TIDEWHEEL_NAMESPACE={place_of}", "TIDEWHEEL_RECIPE=quickstart", "tidewheel-mlflow", "tidewheel-store"):
        assert line in said
    assert "32768" in said, "the size of /dev/shm in KiB"
