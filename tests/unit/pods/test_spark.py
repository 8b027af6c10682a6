from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tidewheel.contracts.placement import Executors, StepPlacement
from tidewheel.errors import ConfigError
from tidewheel.pods.own import OwnPod
from tidewheel.pods.spark import cores_of, memory_of, server_of, settings_of, template_of

STEP = StepPlacement(memory="4Gi", queue="retrain", priority="scheduled", timeout_seconds=900)
LABELS = {"tidewheel/run-id": "r1", "tidewheel/step": "sample", "tidewheel/recipe": "kuairand"}


def own(address: str = "10.0.0.7") -> OwnPod:
    manifest: dict[str, Any] = {
        "metadata": {"name": "sample-1", "uid": "u1", "labels": LABELS},
        "spec": {
            "containers": [
                {
                    "name": "main",
                    "image": "registry.local/tidewheel/python-data:1",
                    "volumeMounts": [{"name": "home", "mountPath": "/var/lib/tidewheel"}],
                }
            ],
            "volumes": [{"name": "home", "persistentVolumeClaim": {"claimName": "home"}}],
        },
        "status": {"podIP": address},
    }
    return OwnPod("runs", "sample-1", "u1", manifest)


def settings(asked: Executors, address: str = "10.0.0.7") -> dict[str, str]:
    return settings_of(own(address), asked, STEP, "https://10.96.0.1:443", Path("/tmp/pod.json"))


def test_heap_and_the_rest_are_together_what_the_container_may_take() -> None:
    asked = settings(Executors(memory="8Gi"))

    assert (asked["spark.executor.memory"], asked["spark.executor.memoryOverhead"]) == ("6554m", "1638m")
    assert 6554 + 1638 == 8 * 1024


@pytest.mark.parametrize("memory", ["1Gi", "1500Mi", "3Gi", "64Gi", "1Ti"])
def test_no_memory_is_left_and_none_is_promised_twice(memory: str) -> None:
    amounts = {"1Gi": 2**30, "1500Mi": 1500 * 2**20, "3Gi": 3 * 2**30, "64Gi": 64 * 2**30, "1Ti": 2**40}
    heap, rest = memory_of(memory)

    assert heap + rest == amounts[memory]
    assert rest >= 384 * 2**20


def test_memory_in_which_no_executor_starts_is_refused_with_the_least_that_does() -> None:
    with pytest.raises(ConfigError, match=r"placement.executors.memory is 512Mi.*expected at least 896Mi"):
        memory_of("512Mi")

    assert memory_of("896Mi") == (512 * 2**20, 384 * 2**20)


@pytest.mark.parametrize(("cpu", "tasks"), [("250m", 1), ("1", 1), ("1.5", 1), ("2", 2), ("3500m", 3), ("16", 16)])
def test_an_executor_works_on_one_task_for_each_whole_cpu(cpu: str, tasks: int) -> None:
    assert cores_of(cpu) == tasks


def test_executors_are_started_beside_the_step_and_call_it() -> None:
    asked = settings(Executors(count=3, cpu="500m"))

    assert asked["spark.master"] == "k8s://https://10.96.0.1:443"
    assert asked["spark.kubernetes.namespace"] == "runs"
    assert (asked["spark.driver.host"], asked["spark.driver.bindAddress"]) == ("10.0.0.7", "10.0.0.7")
    assert (asked["spark.executor.instances"], asked["spark.kubernetes.executor.request.cores"]) == ("3", "500m")
    assert asked["spark.dynamicAllocation.enabled"] == "false"
    assert asked["spark.driver.memory"] == "2048m", "half of the step's: Python has the rest"


def test_an_address_of_ipv6_is_called_in_brackets_and_bound_without() -> None:
    asked = settings(Executors(), "fd00::7")

    assert (asked["spark.driver.host"], asked["spark.driver.bindAddress"]) == ("[fd00::7]", "fd00::7")
    assert server_of({"KUBERNETES_SERVICE_HOST": "fd00::1", "KUBERNETES_SERVICE_PORT": "443"}) == "https://[fd00::1]:443"
    assert server_of({"KUBERNETES_SERVICE_HOST": "10.96.0.1"}) == "https://10.96.0.1:443"


def test_a_pod_without_an_address_says_so() -> None:
    with pytest.raises(ConfigError, match="pod sample-1: it has no address"):
        settings(Executors(), "")


def test_an_executor_waits_in_the_queue_of_its_step_and_does_not_outlive_it() -> None:
    template = template_of(own(), Executors(cpu="2", memory="3Gi"), STEP, LABELS)

    assert template["metadata"]["labels"] == LABELS | {
        "app.kubernetes.io/name": "spark-executor",
        "app.kubernetes.io/component": "executor",
        "kueue.x-k8s.io/queue-name": "retrain",
        "kueue.x-k8s.io/priority-class": "scheduled",
    }
    assert template["spec"]["activeDeadlineSeconds"] == 900
    (container,) = template["spec"]["containers"]
    assert container["command"] == ["python", "-m", "tidewheel.pods.executor"]
    assert container["image"] == "registry.local/tidewheel/python-data:1"
    assert container["resources"] == {"requests": {"cpu": "2", "memory": "3Gi"}, "limits": {"memory": "3Gi"}}


def test_the_pod_of_the_step_owns_executors_and_spark_names_no_controller_that_kueue_would_let_them_in_for() -> None:
    (owner,) = template_of(own(), Executors(), STEP, LABELS)["metadata"]["ownerReferences"]

    assert owner == {"apiVersion": "v1", "kind": "Pod", "name": "sample-1", "uid": "u1", "controller": False}
    assert "spark.kubernetes.driver.pod.name" not in settings(Executors())


def test_without_a_queue_it_waits_in_none() -> None:
    template = template_of(own(), Executors(), StepPlacement(), LABELS)

    assert not [label for label in template["metadata"]["labels"] if "kueue" in label]
