"""The RayJob that a step makes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.unit.pods.pods import IMAGE, AsAsked, ray_pod, step_pod
from tidewheel.contracts.placement import Placed, PodPlacement, StepPlacement, Toleration
from tidewheel.errors import RetryableError
from tidewheel.pods.rayjobs import expect_enough_memory, name_of, rayjob_of

FOLDER = Path("/var/lib/tidewheel/scratch/rows/workers-1")
WORKERS = PodPlacement(cpu="8", memory="32Gi", gpus=1, pool="h100")
PLACED = Placed(step=StepPlacement(timeout_seconds=3600), workers=WORKERS)


def made(placed: Placed = PLACED, run_id: str = "run-1", folder: Path = FOLDER) -> dict[str, Any]:
    return rayjob_of(step_pod(), placed, run_id, folder, 3, 2, "2.60.0")


def container(group: dict[str, Any]) -> dict[str, Any]:
    (found,) = group["template"]["spec"]["containers"]
    return found


def test_its_name_is_of_the_run_and_its_work_and_short_enough_for_kuberay() -> None:
    name = made()["metadata"]["name"]

    assert name == made()["metadata"]["name"] == name_of("run-1", "train", FOLDER)
    assert name.startswith("tidewheel-train-")
    assert len(name) <= 47
    assert len({name, made(run_id="run-2")["metadata"]["name"], made(folder=FOLDER.parent)["metadata"]["name"]}) == 3


def test_it_ends_with_the_pod_of_its_step_and_says_whose_it_is() -> None:
    metadata = made()["metadata"]

    assert [owner["uid"] for owner in metadata["ownerReferences"]] == ["7-uid"]
    assert metadata["namespace"] == "runs"
    assert metadata["labels"] == {
        "app.kubernetes.io/part-of": "tidewheel",
        "tidewheel/run-id": "run-1",
        "tidewheel/step": "train",
        "tidewheel/recipe": "feed",
    }


def test_it_is_stopped_in_time_and_leaves_no_pods() -> None:
    spec = made()["spec"]

    assert spec["activeDeadlineSeconds"] == 3600
    assert spec["shutdownAfterJobFinishes"] is True
    assert spec["ttlSecondsAfterFinished"] == 600
    assert spec["backoffLimit"] == 2


def test_its_driver_works_in_the_folder_without_a_pod_that_only_waits() -> None:
    spec = made(folder=Path("/var/lib/tidewheel/a folder"))["spec"]

    assert spec["entrypoint"] == "python -m tidewheel.training --one-a-node '/var/lib/tidewheel/a folder'"
    assert spec["submissionMode"] == "HTTPMode"
    assert "submitterPodTemplate" not in spec


def test_there_is_one_pod_for_each_worker_and_a_head_without_any() -> None:
    cluster = made()["spec"]["rayClusterSpec"]
    (workers,) = cluster["workerGroupSpecs"]

    assert cluster["rayVersion"] == "2.60.0"
    assert (workers["replicas"], workers["minReplicas"], workers["maxReplicas"]) == (3, 3, 3)
    assert cluster["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    assert {container(group)["image"] for group in (cluster["headGroupSpec"], workers)} == {IMAGE}


def test_workers_are_on_the_gpu_pool_and_the_head_is_where_the_step_may_be() -> None:
    step = StepPlacement(pool="cpu", tolerations=(Toleration(key="spot"),))
    cluster = made(Placed(step=step, workers=WORKERS))["spec"]["rayClusterSpec"]
    head, (workers,) = cluster["headGroupSpec"], cluster["workerGroupSpecs"]

    assert workers["template"]["spec"]["nodeSelector"] == {"tidewheel/pool": "h100"}
    assert container(workers)["resources"]["limits"] == {"memory": "32Gi", "nvidia.com/gpu": "1"}
    assert head["template"]["spec"]["nodeSelector"] == {"tidewheel/pool": "cpu"}
    assert head["template"]["spec"]["tolerations"] == [{"key": "spot", "operator": "Exists"}]
    assert container(head)["resources"]["limits"] == {"memory": "3Gi"}


def test_a_head_of_a_step_on_gpu_nodes_may_be_there_without_a_gpu() -> None:
    head = made(Placed(step=StepPlacement(gpus=1, pool="h100"), workers=WORKERS))["spec"]["rayClusterSpec"]["headGroupSpec"]

    assert head["template"]["spec"]["tolerations"] == [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}]
    assert "nvidia.com/gpu" not in container(head)["resources"]["limits"]


def test_it_waits_in_the_queue_of_its_step_and_its_pods_do_not() -> None:
    job = made(Placed(step=StepPlacement(queue="retrain", priority="scheduled"), workers=WORKERS))
    cluster = job["spec"]["rayClusterSpec"]

    assert job["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "retrain"
    assert job["metadata"]["labels"]["kueue.x-k8s.io/priority-class"] == "scheduled"
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        labels = group["template"]["metadata"]["labels"]
        assert labels["tidewheel/run-id"] == "run-1"
        assert not [label for label in labels if label.startswith("kueue")]


def test_without_workers_there_is_none() -> None:
    with pytest.raises(ValueError, match="no workers are placed"):
        made(Placed(step=StepPlacement()))


def killed(node: str, at: str = "state") -> dict[str, Any]:
    container = {"name": "ray-worker", at: {"terminated": {"reason": "OOMKilled", "exitCode": 137}}}
    pod = ray_pod(f"ray-{node}-1", containerStatuses=[container])
    pod["metadata"]["labels"] = {"ray.io/node-type": node}
    return pod


@pytest.mark.parametrize("at", ["state", "lastState"])
def test_a_worker_that_took_too_much_memory_is_named_with_its_limit_and_the_next_has_more(at: str) -> None:
    sizes = AsAsked()
    with pytest.raises(
        RetryableError, match=r"rayjob r: pod ray-worker-1 was OOMKilled at 2Gi; the next try gives workers more"
    ):
        expect_enough_memory("rayjob r", [ray_pod("head"), killed("worker", at)], sizes)
    assert sizes.heard == [2 * 2**30]


def test_a_head_that_took_too_much_memory_teaches_nothing_of_workers() -> None:
    sizes = AsAsked()
    with pytest.raises(RetryableError, match="pod ray-head-1 was OOMKilled at 2Gi; it is Ray's head"):
        expect_enough_memory("rayjob r", [killed("head")], sizes)
    assert sizes.heard == []


def test_a_pod_that_died_of_something_else_had_memory_enough() -> None:
    sizes = AsAsked()
    container = {"name": "ray-worker", "state": {"terminated": {"reason": "Error", "exitCode": 137}}}
    expect_enough_memory("rayjob r", [ray_pod(containerStatuses=[container])], sizes)
    expect_enough_memory("rayjob r", [], sizes)
    assert sizes.heard == []
