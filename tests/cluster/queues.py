"""A queue of Kueue for pods of steps, as helm/gpu-node-pools makes them, and the second pods of steps that came through it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.cluster.kubectl import apply, kubectl

QUEUE = "tight"


@contextmanager
def queue_of(namespace: str, memory: str) -> Iterator[str]:
    """A LocalQueue with so much memory, and the right of the namespace's accounts to look behind it."""
    if "clusterqueues.kueue.x-k8s.io" not in kubectl("api-resources", "--api-group=kueue.x-k8s.io", "--output=name"):
        pytest.skip("Kueue is not installed")
    kueue, rbac = "kueue.x-k8s.io", "rbac.authorization.k8s.io"
    meta, version = {"name": namespace}, f"{kueue}/v1beta2"
    quotas = [{"name": "cpu", "nominalQuota": "1"}, {"name": "memory", "nominalQuota": memory}]
    group = {"coveredResources": ["cpu", "memory"], "flavors": [{"name": namespace, "resources": quotas}]}
    rule = {"apiGroups": [kueue], "resources": ["clusterqueues"], "resourceNames": [namespace], "verbs": ["get"]}
    subject = {"kind": "Group", "apiGroup": rbac, "name": f"system:serviceaccounts:{namespace}"}
    role = {"apiGroup": rbac, "kind": "ClusterRole", "name": namespace}
    shared: list[dict[str, Any]] = [
        {"apiVersion": version, "kind": "ResourceFlavor", "metadata": meta},
        {
            "apiVersion": version,
            "kind": "ClusterQueue",
            "metadata": meta,
            "spec": {"namespaceSelector": {}, "resourceGroups": [group]},
        },
        {"apiVersion": f"{rbac}/v1", "kind": "ClusterRole", "metadata": meta, "rules": [rule]},
        {"apiVersion": f"{rbac}/v1", "kind": "ClusterRoleBinding", "metadata": meta, "roleRef": role, "subjects": [subject]},
    ]
    local = {"apiVersion": version, "kind": "LocalQueue", "metadata": {"name": QUEUE, "namespace": namespace}}
    apply(*shared, local | {"spec": {"clusterQueue": namespace}})
    try:
        yield QUEUE
    finally:
        selector = f"--selector=kueue.x-k8s.io/queue-name={QUEUE}"
        kubectl("--namespace", namespace, "delete", "pods", selector, "--wait=false")
        kubectl("--namespace", namespace, "delete", "localqueue", QUEUE)
        for each in reversed(shared):
            kubectl("delete", str(each["kind"]), namespace, "--wait=false")


def second_pods(namespace: str) -> list[dict[str, Any]]:
    """Those in which the work of steps goes on."""
    selector = "--selector=app.kubernetes.io/name=step-beside"
    return list(json.loads(kubectl("--namespace", namespace, "get", "pods", selector, "--output=json"))["items"])
