"""What each account may do, by hand: everything that is not here it may not. A right reads as `kubectl auth can-i` is asked."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any


def each(verbs: str, *resources: str) -> frozenset[str]:
    return frozenset(f"{verb} {resource}" for verb in verbs.split() for resource in resources)


EVERY_TASK = (
    each("create", "events", "events.events.k8s.io")
    | each("create patch", "workflowtaskresults.argoproj.io")
    | each("create", "retrains.tidewheel.dev")
    | each("patch", "retrains.tidewheel.dev/status")
    | each("get", "configmaps/kfp-launcher")
    | each("get list", "pods")
    | each("patch", "pods/resize")
    | each("list", "resourcequotas", "limitranges")
    | each("get", "localqueues.kueue.x-k8s.io")
)
SPARK = each("get list watch create delete deletecollection", "pods")
RAY = each("create get patch delete", "rayjobs.ray.io") | each("list", "workloads.kueue.x-k8s.io") | each("get list", "pods")
SWEEP = each("list delete", "pods", "services", "configmaps", "rayjobs.ray.io")

RIGHTS: dict[str, frozenset[str]] = {
    "tidewheel-step": EVERY_TASK,
    "tidewheel-ingest": EVERY_TASK | SPARK,
    "tidewheel-sample": EVERY_TASK | SPARK,
    "tidewheel-train": EVERY_TASK | RAY,
    "tidewheel-deploy": EVERY_TASK,
    "tidewheel-conclude": EVERY_TASK | SWEEP,
    "tidewheel-run": EVERY_TASK | SPARK | RAY | SWEEP,
}

# What would hurt most, asked by name of every account.
NOBODY_MAY = (
    *(f"{verb} secrets" for verb in ("get", "list", "watch", "create", "patch", "delete")),
    "get secrets/tidewheel-store",
    "get secrets/mlpipeline-minio-artifact",
    "create pods/exec",
    "get pods/exec",
    "patch pods/ephemeralcontainers",
    "patch pods",
    "create serviceaccounts/token",
    "impersonate serviceaccounts",
    "patch serviceaccounts",
    "create roles.rbac.authorization.k8s.io",
    "escalate roles.rbac.authorization.k8s.io",
    "bind roles.rbac.authorization.k8s.io",
    "create rolebindings.rbac.authorization.k8s.io",
    "create clusterrolebindings.rbac.authorization.k8s.io",
    "patch rollouts.argoproj.io",
    "patch rollouts.argoproj.io/status",
    "delete rollouts.argoproj.io",
    "create workflows.argoproj.io",
    "delete workflows.argoproj.io",
    "patch deployments.apps",
    "create jobs.batch",
    "patch rayclusters.ray.io",
    "patch workloads.kueue.x-k8s.io",
    "patch configmaps",
    "patch events",
    "patch retrains.tidewheel.dev",
    "delete retrains.tidewheel.dev",
    "list events",
    "patch resourcequotas",
    "delete networkpolicies.networking.k8s.io",
    "delete namespaces",
    "patch namespaces",
    "list nodes",
    "get clusterqueues.kueue.x-k8s.io",
    "patch localqueues.kueue.x-k8s.io",
    "delete nodes",
    "patch nodes",
    "create persistentvolumes",
    "create customresourcedefinitions.apiextensions.k8s.io",
    "create validatingwebhookconfigurations.admissionregistration.k8s.io",
)
# And in its own namespace of those that have no business with it.
MAY_NOT = {
    "tidewheel-step": (
        "create pods",
        "watch pods",
        "delete pods",
        "get configmaps",
        "create rayjobs.ray.io",
        "patch rayjobs.ray.io",
    ),
    "tidewheel-ingest": (
        "create rayjobs.ray.io",
        "delete rayjobs.ray.io",
        "get pods/log",
        "create persistentvolumeclaims",
        "create services",
        "create configmaps",
    ),
    "tidewheel-sample": (
        "create rayjobs.ray.io",
        "delete rayjobs.ray.io",
        "get pods/log",
        "create persistentvolumeclaims",
        "create services",
        "create configmaps",
    ),
    "tidewheel-train": (
        "create pods",
        "delete pods",
        "watch pods",
        "get pods/log",
        "create services",
        "get configmaps",
        "create rayclusters.ray.io",
    ),
    "tidewheel-deploy": ("create pods", "watch pods", "delete pods", "get rollouts.argoproj.io", "delete configmaps"),
    "tidewheel-conclude": ("create pods", "create rayjobs.ray.io", "watch pods", "deletecollection pods", "get configmaps"),
    "tidewheel-run": (
        "create persistentvolumeclaims",
        "create services",
        "create configmaps",
        "watch rayclusters.ray.io",
        "deletecollection rayjobs.ray.io",
    ),
}


def rights_of(rules: Iterable[Mapping[str, Any]]) -> frozenset[str]:
    """The rights that rules of RBAC give, one by one."""
    return frozenset(
        f"{verb} {_asked(group, resource)}{f'/{name}' if name else ''}"
        for rule in rules
        for verb in rule["verbs"]
        for group in rule.get("apiGroups") or [""]
        for resource in rule.get("resources") or []
        for name in rule.get("resourceNames") or [""]
    )


def _asked(group: str, resource: str) -> str:
    """`pods/log`, `rollouts.argoproj.io/status`."""
    name, _, sub = resource.partition("/")
    return f"{name}{f'.{group}' if group else ''}{f'/{sub}' if sub else ''}"
