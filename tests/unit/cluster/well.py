"""A cluster in which everything is well, as an API server tells it; tests change one thing of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tidewheel.cluster.api import Answer, RememberedApi
from tidewheel.cluster.checks import findings
from tidewheel.cluster.facts import Facts, look
from tidewheel.cluster.finding import Finding
from tidewheel.cluster.needs import ACCOUNTS
from tidewheel.contracts.placement import Placement
from tidewheel.contracts.target import ArgoTarget, Target

NAMESPACE = "runs"
CORE = f"/api/v1/namespaces/{NAMESPACE}"
CLAIMS = f"{CORE}/persistentvolumeclaims?limit=500"
CLAIM_EVENTS = f"{CORE}/events?fieldSelector=involvedObject.kind%3DPersistentVolumeClaim&limit=500"
PODS = f"{CORE}/pods?fieldSelector=status.phase%21%3DSucceeded%2Cstatus.phase%21%3DFailed&limit=500"
LOCAL_QUEUES = f"/apis/kueue.x-k8s.io/v1beta2/namespaces/{NAMESPACE}/localqueues"
CLUSTER_QUEUE = "/apis/kueue.x-k8s.io/v1beta2/clusterqueues/pool"
STORAGE_CLASSES = "/apis/storage.k8s.io/v1/storageclasses"
VERSION = {"gitVersion": "v1.34.10"}
IDENTITY = {"status": {"userInfo": {"username": "ada", "groups": ["rankers", "system:authenticated"]}}}
ACTIVE = {"conditions": [{"type": "Active", "status": "True"}]}
DEFAULT = Placement()
ROLLOUT = ArgoTarget(kind="argo", namespace="serving", name="feed")


def controller(name: str) -> str:
    return f"/apis/apps/v1/deployments?fieldSelector=metadata.name%3D{name}"


def deployment(name: str, image: str, ready: int = 1, env: Mapping[str, str] | None = None, **labels: str) -> dict[str, Any]:
    metadata = {"name": name, "namespace": f"{name}-system", "labels": labels}
    variables = [{"name": variable, "value": value} for variable, value in (env or {}).items()]
    template = {"spec": {"containers": [{"image": image, "env": variables}]}}
    return {"metadata": metadata, "spec": {"template": template}, "status": {"readyReplicas": ready}}


def several(*each: dict[str, Any]) -> dict[str, Any]:
    return {"items": list(each)}


def resources(*names: str) -> dict[str, Any]:
    return {"resources": [{"name": name} for name in names]}


def quota(hard: dict[str, str], used: dict[str, str], **spec: Any) -> dict[str, Any]:
    return several({"metadata": {"name": "runs"}, "spec": {"hard": hard, **spec}, "status": {"used": used}})


def limits(**most: dict[str, str]) -> dict[str, Any]:
    ranges = [{"type": kind, "max": values} for kind, values in most.items()]
    return several({"metadata": {"name": "runs"}, "spec": {"limits": ranges}})


def local_queue(**status: Any) -> dict[str, Any]:
    return several({"metadata": {"name": "gpus"}, "spec": {"clusterQueue": "pool"}, "status": status or ACTIVE})


def claim(name: str, phase: str = "Pending", storage_class: str = "fast") -> dict[str, Any]:
    return {"metadata": {"name": name}, "spec": {"storageClassName": storage_class}, "status": {"phase": phase}}


def event(claim: str, reason: str, message: str, at: str = "2026-01-05T00:00:00Z") -> dict[str, Any]:
    return {"involvedObject": {"name": claim}, "reason": reason, "message": message, "lastTimestamp": at}


LASTING = {"ARGO_POD_STATUS_CAPTURE_FINALIZER": "true", "TRANSIENT_ERROR_PATTERN": "failed calling webhook|try again"}
WELL: dict[str, Answer] = {
    "/apis/argoproj.io/v1alpha1": resources("rollouts", "workflows"),
    "/apis/kueue.x-k8s.io/v1beta2": resources("localqueues", "clusterqueues"),
    "/apis/ray.io/v1": resources("rayjobs"),
    "/apis/tidewheel.dev/v1alpha1": resources("retrains"),
    controller("ml-pipeline"): several(deployment("ml-pipeline", "registry.local/kfp/api-server:2.14.3")),
    controller("workflow-controller"): several(
        deployment("workflow-controller", "registry.local/workflows:v3.6.7", env=LASTING)
    ),
    controller("argo-rollouts"): several(deployment("argo-rollouts", "registry.local/argo-rollouts:v1.9.1")),
    controller("kueue-controller-manager"): several(deployment("kueue-controller-manager", "registry.local/kueue:v0.19.2")),
    controller("kuberay-operator"): several(deployment("kuberay-operator", "registry.local/operator:v1.6.2")),
    CORE: {"metadata": {"name": NAMESPACE, "labels": {"pod-security.kubernetes.io/enforce": "baseline"}}},
    f"{CORE}/serviceaccounts": several(*({"metadata": {"name": name}} for name in ACCOUNTS)),
    f"{CORE}/configmaps/tidewheel": {"data": {"TIDEWHEEL_STORE": "s3://b/t", "MLFLOW_TRACKING_URI": "https://mlflow"}},
    f"{CORE}/resourcequotas": quota({"pods": "40", "requests.memory": "16Gi"}, {"pods": "2", "requests.memory": "1Gi"}),
    f"{CORE}/limitranges": limits(Container={"memory": "4Gi"}),
    LOCAL_QUEUES: local_queue(),
    CLUSTER_QUEUE: {"spec": {}, "status": ACTIVE},
    STORAGE_CLASSES: several(
        {"metadata": {"name": "fast", "annotations": {"storageclass.kubernetes.io/is-default-class": "true"}}}
    ),
    CLAIMS: several(),
    PODS: several(),
}


def seen(
    changed: dict[str, Answer] | None = None,
    target: Target | None = None,
    allowed: frozenset[str] | None = None,
    placement: Placement = DEFAULT,
    num_workers: int = 2,
) -> Facts:
    """The facts of the cluster, with some answers changed, for an account that may all or only what is `allowed`."""
    return look(RememberedApi(WELL | (changed or {}), allowed), NAMESPACE, target, placement, num_workers, VERSION, IDENTITY)


def sick(
    changed: dict[str, Answer] | None = None,
    target: Target | None = None,
    allowed: frozenset[str] | None = None,
    placement: Placement = DEFAULT,
    num_workers: int = 2,
) -> list[Finding]:
    """What is not well then."""
    return [finding for finding in findings(seen(changed, target, allowed, placement, num_workers)) if not finding.is_well]
