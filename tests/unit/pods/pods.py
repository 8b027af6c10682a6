"""The pod of a step as the API server has it, and Ray's pods as the kubelet reports them."""

from __future__ import annotations

from typing import Any

from tidewheel.pods.memory import P, Sizes
from tidewheel.pods.own import OwnPod

IMAGE = "registry.example/tidewheel/python-trainer@sha256:" + "5" * 64
CONFIG_MAP = {"name": "tidewheel"}
CLAIM = {"claimName": "tidewheel-home"}


def step_pod(**labels: str) -> OwnPod:
    """A task's pod of Kubeflow Pipelines: `main` between containers of others, with mounts of ours and theirs."""
    main = {
        "name": "main",
        "image": IMAGE,
        "env": [
            {"name": "TIDEWHEEL_HOME", "value": "/var/lib/tidewheel"},
            {"name": "TIDEWHEEL_POD", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
            {"name": "TIDEWHEEL_PLACED", "value": "{}"},
        ],
        "volumeMounts": [
            {"name": "home", "mountPath": "/var/lib/tidewheel"},
            {"name": "settings", "mountPath": "/etc/tidewheel/tidewheel"},
            {"name": "kfp-launcher", "mountPath": "/kfp-launcher"},
            {"name": "kube-api-access", "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount"},
        ],
    }
    manifest = {
        "metadata": {
            "name": "train-1",
            "uid": "7-uid",
            "labels": {"tidewheel/step": "train", "tidewheel/recipe": "feed", "pipeline/runid": "run-1"} | labels,
        },
        "spec": {
            "serviceAccountName": "tidewheel-run",
            "imagePullSecrets": [{"name": "registry"}],
            "containers": [{"name": "wait", "image": "argoexec"}, main],
            "volumes": [
                {"name": "home", "persistentVolumeClaim": CLAIM},
                {"name": "settings", "configMap": CONFIG_MAP},
                {"name": "kfp-launcher", "emptyDir": {}},
                {"name": "kube-api-access", "projected": {}},
            ],
        },
    }
    return OwnPod("runs", "train-1", "7-uid", manifest)


def ray_pod(name: str = "ray-worker-1", *, is_ready: bool = True, **status: Any) -> dict[str, Any]:
    """A pod of Ray that is up unless `status` says otherwise."""
    conditions = [{"type": "PodScheduled", "status": "True"}, {"type": "Ready", "status": "True" if is_ready else "False"}]
    return {
        "metadata": {"name": name},
        "spec": {"containers": [{"name": "ray-worker", "resources": {"limits": {"memory": "2Gi"}}}]},
        "status": {"phase": "Running" if is_ready else "Pending", "conditions": conditions} | status,
    }


class AsAsked(Sizes):
    """Sizes that teach nothing, and remember what they heard."""

    def __init__(self) -> None:
        self.heard: list[int] = []

    def sized(self, asked: P, count: int) -> P:
        return asked

    def ended(self, killed_bytes: int) -> None:
        self.heard.append(killed_bytes)
