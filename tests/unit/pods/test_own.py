"""What a pod that a step starts takes from the step's own pod."""

from __future__ import annotations

import pytest

from tests.unit.pods.pods import CLAIM, CONFIG_MAP, IMAGE, step_pod
from tidewheel.contracts.placement import PodPlacement, Toleration
from tidewheel.pods.own import child_template, labels_of, own_pod

LABELS = {"tidewheel/run-id": "run-1"}


def test_a_laptop_is_no_pod() -> None:
    assert own_pod({}) is None
    assert own_pod({"TIDEWHEEL_POD": "train-1"}) is None
    assert own_pod({"TIDEWHEEL_NAMESPACE": "runs"}) is None


def test_an_owner_names_the_pod_by_its_uid() -> None:
    assert step_pod().owner == {"apiVersion": "v1", "kind": "Pod", "name": "train-1", "uid": "7-uid", "controller": False}


def test_what_a_step_starts_says_whose_it_is() -> None:
    assert labels_of(step_pod(), "run-1") == {
        "app.kubernetes.io/part-of": "tidewheel",
        "tidewheel/run-id": "run-1",
        "tidewheel/step": "train",
        "tidewheel/recipe": "feed",
    }


def test_a_child_waits_in_no_queue_of_its_own() -> None:
    assert "kueue.x-k8s.io/queue-name" not in labels_of(step_pod(**{"kueue.x-k8s.io/queue-name": "retrain"}), "run-1")


def test_a_child_has_the_image_the_settings_and_the_volume_of_the_step_and_nothing_else() -> None:
    spec = child_template(step_pod(), PodPlacement(), LABELS, "worker", {"A": "1"})["spec"]

    (container,) = spec["containers"]
    assert (container["name"], container["image"]) == ("worker", IMAGE)
    assert container["env"] == [{"name": "TIDEWHEEL_HOME", "value": "/var/lib/tidewheel"}, {"name": "A", "value": "1"}]
    assert [each["mountPath"] for each in container["volumeMounts"]] == [
        "/var/lib/tidewheel",
        "/etc/tidewheel/tidewheel",
        "/tmp",
    ]
    assert spec["volumes"] == [
        {"name": "home", "persistentVolumeClaim": CLAIM},
        {"name": "settings", "configMap": CONFIG_MAP},
        {"name": "tmp", "emptyDir": {}},
    ]
    assert spec["imagePullSecrets"] == [{"name": "registry"}]


def test_a_child_has_no_token_and_none_of_roots_powers() -> None:
    template = child_template(step_pod(), PodPlacement(), LABELS, "worker", {})

    spec = template["spec"]
    assert template["metadata"]["labels"] == LABELS
    assert (spec["serviceAccountName"], spec["automountServiceAccountToken"]) == ("tidewheel-run", False)
    assert spec["securityContext"] == {
        "runAsNonRoot": True,
        "runAsUser": 10001,
        "runAsGroup": 10001,
        "fsGroup": 10001,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    assert spec["containers"][0]["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }


def test_a_child_asks_for_what_the_recipe_places() -> None:
    asked = PodPlacement(cpu="8", memory="32Gi", gpus=2, pool="h100", shm="4Gi", tolerations=(Toleration(key="spot"),))
    spec = child_template(step_pod(), asked, LABELS, "worker", {})["spec"]

    assert spec["containers"][0]["resources"] == {
        "requests": {"cpu": "8", "memory": "32Gi", "nvidia.com/gpu": "2"},
        "limits": {"memory": "32Gi", "nvidia.com/gpu": "2"},
    }
    assert spec["nodeSelector"] == {"tidewheel/pool": "h100"}
    assert spec["tolerations"] == [
        {"key": "spot", "operator": "Exists"},
        {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"},
    ]
    assert {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": "4Gi"}} in spec["volumes"]
    assert {"name": "shm", "mountPath": "/dev/shm"} in spec["containers"][0]["volumeMounts"]


@pytest.mark.parametrize("asked", [PodPlacement(), PodPlacement(shm="1Gi", tolerations=(Toleration(key="spot"),))])
def test_a_cpu_child_minds_the_taint_of_gpu_nodes(asked: PodPlacement) -> None:
    spec = child_template(step_pod(), asked, LABELS, "worker", {})["spec"]

    assert "nvidia.com/gpu" not in [each["key"] for each in spec["tolerations"]]
    assert spec["nodeSelector"] == {}
