"""The pod of a step, and what the pods that it starts take from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tidewheel.contracts import labels
from tidewheel.contracts.placement import GPU, HOME_MOUNT, MOUNTED, POD_VARIABLE, POOL_LABEL, PodPlacement
from tidewheel.errors import ConfigError
from tidewheel.pods.api import ask

MAIN = "main"  # the container of Kubeflow's in which a step runs
USER = 10001  # of our images
NAMESPACE_VARIABLE = "TIDEWHEEL_NAMESPACE"


@dataclass(frozen=True)
class OwnPod:
    """The pod that this process runs in, as the API server has it."""

    namespace: str
    name: str
    uid: str
    manifest: Mapping[str, Any]

    @property
    def owner(self) -> dict[str, Any]:
        """What an object carries that ends with this pod."""
        return {"apiVersion": "v1", "kind": "Pod", "name": self.name, "uid": self.uid, "controller": False}

    @property
    def container(self) -> Mapping[str, Any]:
        return _container(self.manifest["spec"]["containers"])


def own_pod(environment: Mapping[str, str]) -> OwnPod | None:
    """Where this process is the pod of a pipeline; None on a laptop.

    Raises:
        ConfigError: this account may not look at its own pod.
        RetryableError: the API server does not answer.
    """
    name, namespace = environment.get(POD_VARIABLE, ""), environment.get(NAMESPACE_VARIABLE, "")
    if not name or not namespace:
        return None
    try:
        found = ask(f"/api/v1/namespaces/{namespace}/pods/{name}", f"pod {name} in namespace {namespace}")
    except ConfigError as error:
        raise ConfigError(f"{error}; expected the right to get pods, as manifests/runs gives it") from error
    return OwnPod(namespace, name, found["metadata"]["uid"], found)


def labels_of(pod: OwnPod, run_id: str) -> dict[str, str]:
    """Labels of whatever this step starts: those of DESIGN, 6, with its own step and recipe."""
    own = pod.manifest["metadata"].get("labels", {})
    return labels.OURS | {labels.RUN: run_id} | {label: own[label] for label in (labels.STEP, labels.RECIPE) if label in own}


def child_template(
    pod: OwnPod, asked: PodPlacement, labels: Mapping[str, str], container: str, environment: Mapping[str, str]
) -> dict[str, Any]:
    """The template of a pod that this step starts: the step's own image, settings and volume, and what `asked` says.

    It has no token, writes to its volume and `/tmp` alone, and passes the pod security standard `restricted`.

    Args:
        container: name of its one container, which has neither command nor arguments yet.
        environment: beside `TIDEWHEEL_HOME`, where the step has it.
    """
    own = pod.manifest["spec"]
    mounts = [each for each in pod.container.get("volumeMounts", ()) if _is_ours(each["mountPath"])]
    names = {each["name"] for each in mounts}
    volumes = [each for each in own.get("volumes", ()) if each["name"] in names]
    scratch = [("tmp", "/tmp", {}), *([("shm", "/dev/shm", {"medium": "Memory", "sizeLimit": asked.shm})] if asked.shm else [])]
    mounts += [{"name": name, "mountPath": path} for name, path, _ in scratch]
    volumes += [{"name": name, "emptyDir": source} for name, _, source in scratch]
    gpus = {GPU: str(asked.gpus)} if asked.gpus else {}
    known = {each["name"]: each["value"] for each in pod.container.get("env", ()) if "value" in each}
    variables = {name: known[name] for name in ("TIDEWHEEL_HOME",) if name in known} | dict(environment)
    tolerations = [each.model_dump(exclude_defaults=True) | {"operator": each.operator} for each in asked.tolerations]
    if asked.gpus:
        tolerations.append({"key": GPU, "operator": "Exists", "effect": "NoSchedule"})
    spec: dict[str, Any] = {
        "serviceAccountName": own.get("serviceAccountName", "default"),
        "automountServiceAccountToken": False,
        "restartPolicy": "Never",
        "imagePullSecrets": own.get("imagePullSecrets", []),
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": USER,
            "runAsGroup": USER,
            "fsGroup": USER,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "tolerations": tolerations,
        "nodeSelector": {POOL_LABEL: asked.pool} if asked.pool else {},
        "containers": [
            {
                "name": container,
                "image": pod.container["image"],
                "env": [{"name": name, "value": value} for name, value in variables.items()],
                "resources": {
                    "requests": {"cpu": asked.cpu, "memory": asked.memory} | gpus,
                    "limits": {"memory": asked.memory} | gpus,
                },
                "securityContext": {
                    "allowPrivilegeEscalation": False,
                    "readOnlyRootFilesystem": True,
                    "capabilities": {"drop": ["ALL"]},
                },
                "volumeMounts": mounts,
            }
        ],
        "volumes": volumes,
    }
    return {"metadata": {"labels": dict(labels)}, "spec": spec}


def _is_ours(path: str) -> bool:
    return path == HOME_MOUNT or path.startswith(f"{MOUNTED}/")


def _container(containers: list[Mapping[str, Any]]) -> Mapping[str, Any]:
    return next((each for each in containers if each["name"] == MAIN), containers[0])
