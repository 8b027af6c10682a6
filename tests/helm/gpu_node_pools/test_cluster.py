"""The chart on a real cluster with fake GPU nodes: who waits, who is admitted, who lands where, and that nothing stays behind.

A fake node runs nothing: a Job's pod there is complete at once. Where a test needs a step that goes on, its pod has a
scheduling gate: the step holds its quota, and reaches its node when the test takes the gate away.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cluster.gpu_pool import gpu_pool
from tests.cluster.kubectl import eventually, get, kubectl, new_namespace, require_cluster
from tests.helm.chart import helm, merged, needs_helm
from tests.helm.gpu_node_pools.chart import CASES, CHART

pytestmark = [pytest.mark.cluster, needs_helm]
IMAGE = os.environ.get("TIDEWHEEL_TEST_IMAGE", "localhost:5000/busybox:1.35")
GATE = "tidewheel.test/goes-on"


def require_kueue() -> None:
    require_cluster()
    if "clusterqueues.kueue.x-k8s.io" not in kubectl("api-resources", "--api-group=kueue.x-k8s.io", "--output=name"):
        pytest.skip("the cluster has no Kueue")


@pytest.fixture(scope="module")
def pool() -> Iterator[tuple[str, str]]:
    with gpu_pool() as found:
        yield found


@pytest.fixture
def namespace() -> Iterator[str]:
    require_cluster()
    name = new_namespace("gpu-node-pools")
    yield name
    kubectl("delete", "namespace", name, "--wait=false")


def values_of(pool: str, namespace: str, gpus: int = 1) -> dict[str, Any]:
    """One pool, one queue of `gpus` GPUs and one CPU; names of what is of the whole cluster are the pool's."""
    queue = {
        "name": pool,
        "resources": {"cpu": "1", "memory": "1Gi"},
        "gpus": [{"pool": pool, "quota": gpus}],
        "localQueues": [{"name": "retrain", "namespace": namespace}],
    }
    classes = [{"name": f"{pool}-{name}", "value": value} for name, value in (("urgent", 1000), ("patient", 100))]
    return {
        "pools": [{"name": pool, "accelerator": "h100", "gpus": 8, "maxNodes": 1}],
        "kueue": {"cpuFlavor": f"{pool}-cpu", "clusterQueues": [queue], "priorityClasses": classes},
    }


def run_helm(verb: str, namespace: str, values: dict[str, Any], *more: str) -> None:
    done = helm(verb, namespace, CHART, "--namespace", namespace, *more, values=values)
    assert done.returncode == 0, done.stderr


def uninstall(namespace: str) -> None:
    kubectl("--namespace", namespace, "delete", "jobs", "--all", "--wait=true")
    done = helm("uninstall", namespace, "--namespace", namespace, "--wait", "--timeout", "2m")
    assert done.returncode == 0, done.stderr


@pytest.fixture
def queue(pool: tuple[str, str], namespace: str) -> Iterator[str]:
    """The namespace of a local queue with one GPU."""
    require_kueue()
    run_helm("install", namespace, values_of(pool[0], namespace))
    active = eventually(lambda: get(namespace, f"clusterqueue/{pool[0]}"), lambda each: is_true(each, "Active"), 60)
    assert is_true(active, "Active"), active["status"]
    yield namespace
    uninstall(namespace)


def is_true(found: dict[str, Any], condition: str) -> bool:
    return any(each["type"] == condition and each["status"] == "True" for each in found.get("status", {}).get("conditions", []))


def start(namespace: str, name: str, resources: dict[str, str], *, is_held: bool = False, **labels: str) -> None:
    """A step as a Job of one pod, through the queue `retrain`."""
    pod: dict[str, Any] = {
        "restartPolicy": "Never",
        "containers": [
            {"name": "step", "image": IMAGE, "command": ["true"], "resources": {"requests": resources, "limits": resources}}
        ],
    }
    if is_held:
        pod["schedulingGates"] = [{"name": GATE}]
    job = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name, "labels": {"kueue.x-k8s.io/queue-name": "retrain", **labels}},
        "spec": {"suspend": True, "backoffLimit": 0, "template": {"spec": pod}},
    }
    kubectl("--namespace", namespace, "create", "--filename=-", text=json.dumps(job))


def goes_on(namespace: str, name: str) -> None:
    """Take the gate from the only pod of a Job."""
    (pod,) = eventually(lambda: pods(namespace, name), lambda each: len(each) == 1, 30)
    patch = [{"op": "remove", "path": "/spec/schedulingGates"}]
    kubectl("--namespace", namespace, "patch", "pod", pod["metadata"]["name"], "--type=json", f"--patch={json.dumps(patch)}")


def pods(namespace: str, name: str) -> list[dict[str, Any]]:
    return get(namespace, "pods", f"--selector=job-name={name}")["items"]


def workload(namespace: str, name: str) -> dict[str, Any]:
    """What Kueue knows of a Job; empty as long as it knows nothing."""
    found = get(namespace, "workloads")["items"]
    return next((each for each in found if each["metadata"]["ownerReferences"][0]["name"] == name), {})


def admitted(namespace: str, name: str) -> dict[str, Any]:
    found = eventually(lambda: workload(namespace, name), lambda each: is_true(each, "Admitted"), 60)
    assert is_true(found, "Admitted"), found.get("status")
    return found


def waiting(namespace: str, name: str) -> str:
    """Why a Job waits, in Kueue's words."""

    def refused(found: dict[str, Any]) -> list[dict[str, Any]]:
        return [
            each
            for each in found.get("status", {}).get("conditions", [])
            if each["type"] == "QuotaReserved" and each["status"] == "False"
        ]

    found = eventually(lambda: workload(namespace, name), lambda each: bool(refused(each)), 60)
    assert refused(found), found.get("status")
    assert get(namespace, f"job/{name}")["spec"]["suspend"] is True
    assert pods(namespace, name) == []
    return refused(found)[0]["message"]


def ended_on(namespace: str, name: str) -> str:
    """The node on which a Job became complete."""
    job = eventually(lambda: get(namespace, f"job/{name}"), lambda each: is_true(each, "Complete"), 90)
    assert is_true(job, "Complete"), job["status"]
    (pod,) = pods(namespace, name)
    return pod["spec"]["nodeName"]


def test_a_gpu_step_is_admitted_on_its_pool_and_the_next_waits_for_it(queue: str, pool: tuple[str, str]) -> None:
    name, node = pool
    start(queue, "first", {"nvidia.com/gpu": "1"}, is_held=True)
    (assigned,) = admitted(queue, "first")["status"]["admission"]["podSetAssignments"]

    start(queue, "second", {"nvidia.com/gpu": "1"})

    assert assigned["flavors"]["nvidia.com/gpu"] == name
    assert "insufficient unused quota for nvidia.com/gpu" in waiting(queue, "second")
    goes_on(queue, "first")
    assert ended_on(queue, "first") == node
    admitted(queue, "second")
    assert ended_on(queue, "second") == node


def test_a_step_larger_than_the_quota_is_never_admitted(queue: str) -> None:
    start(queue, "large", {"nvidia.com/gpu": "2"})

    assert "nvidia.com/gpu" in waiting(queue, "large")


def test_a_cpu_step_is_no_guest_of_a_pool(queue: str, pool: tuple[str, str]) -> None:
    start(queue, "report", {"cpu": "10m", "memory": "16Mi"})
    (assigned,) = admitted(queue, "report")["status"]["admission"]["podSetAssignments"]

    assert set(assigned["flavors"].values()) == {f"{pool[0]}-cpu"}
    (pod,) = eventually(lambda: pods(queue, "report"), lambda each: bool(each and each[0]["spec"].get("nodeName")), 60)
    assert pod["spec"]["nodeName"] not in kubectl("get", "nodes", "--selector=type=kwok", "--output=name")
    assert "nvidia.com/gpu" not in {each.get("key") for each in pod["spec"].get("tolerations", [])}


def test_a_cpu_step_waits_for_cpus_though_a_pool_has_many(queue: str) -> None:
    start(queue, "hungry", {"cpu": "2"})

    assert "for cpu in flavor" in waiting(queue, "hungry")


def test_an_urgent_step_ends_a_patient_one_which_begins_again_later(queue: str, pool: tuple[str, str]) -> None:
    name, node = pool
    priority = "kueue.x-k8s.io/priority-class"
    start(queue, "backfill", {"nvidia.com/gpu": "1"}, is_held=True, **{priority: f"{name}-patient"})
    admitted(queue, "backfill")

    start(queue, "retrain", {"nvidia.com/gpu": "1"}, **{priority: f"{name}-urgent"})

    assert ended_on(queue, "retrain") == node
    back = eventually(lambda: workload(queue, "backfill"), lambda each: is_true(each, "Admitted"), 90)
    assert is_true(back, "Admitted"), back["status"]
    assert any(each["type"] == "Preempted" for each in back["status"]["conditions"])
    goes_on(queue, "backfill")
    assert ended_on(queue, "backfill") == node


def test_an_upgrade_gives_a_waiting_step_its_quota(queue: str, pool: tuple[str, str]) -> None:
    start(queue, "first", {"nvidia.com/gpu": "1"}, is_held=True)
    admitted(queue, "first")
    start(queue, "second", {"nvidia.com/gpu": "1"})
    waiting(queue, "second")

    run_helm("upgrade", queue, values_of(pool[0], queue, gpus=2))

    assert ended_on(queue, "second") == pool[1]
    assert is_true(workload(queue, "first"), "Admitted"), "what runs goes on"


def test_the_plugin_is_placed_on_the_pool_and_nowhere_else(pool: tuple[str, str], namespace: str) -> None:
    values = {**values_of(pool[0], namespace), "devices": {"kind": "device-plugin"}, "kueue": {"enabled": False}}
    run_helm("install", namespace, values)

    found = eventually(lambda: get(namespace, "pods")["items"], lambda each: bool(each and each[0]["spec"].get("nodeName")), 60)
    assert [each["spec"]["nodeName"] for each in found] == [pool[1]]
    uninstall(namespace)


@pytest.mark.parametrize("kind", ["device-plugin", "dra"])
def test_nothing_is_left_after_uninstall(kind: str, namespace: str) -> None:
    has_kueue = "clusterqueues" in kubectl("api-resources", "--api-group=kueue.x-k8s.io", "--output=name")
    if kind == "dra" and "resource.k8s.io/v1\n" not in kubectl("api-versions"):
        pytest.skip("the cluster has no resource.k8s.io/v1")
    values = merged(values_of(namespace, namespace), {"devices": {"kind": kind, "dra": {"deviceClass": namespace}}})
    values["kueue"]["enabled"] = has_kueue
    run_helm("install", namespace, values)
    values["pools"].append({"name": f"{namespace}-more", "accelerator": "l4"})
    run_helm("upgrade", namespace, values)
    assert len(left_of(namespace)) >= (8 if has_kueue else 1)

    uninstall(namespace)

    assert eventually(lambda: left_of(namespace), lambda left: not left, 60) == set()


def left_of(release: str) -> set[str]:
    """Everything of the release, in its namespace and of the whole cluster, whatever kind it is."""
    found: set[str] = set()
    for scope in ("true", "false"):
        kinds = kubectl("api-resources", "--verbs=list", f"--namespaced={scope}", "--output=name").split()
        kinds = [kind for kind in kinds if not kind.startswith(("events", "componentstatuses"))]
        more = ["--namespace", release] if scope == "true" else []
        selector = f"--selector=app.kubernetes.io/instance={release}"
        found |= set(kubectl(*more, "get", ",".join(kinds), selector, "--output=name").split())
    secrets = kubectl("--namespace", release, "get", "secrets", "--selector=owner=helm", "--output=name")
    return {*found, *secrets.split()}


@pytest.mark.parametrize("case", CASES, ids=lambda path: path.stem)
def test_the_api_server_accepts_the_example_values(case: Path, namespace: str) -> None:
    """Those of providers whose kinds the cluster has; namespaces of queues are this one."""
    text = case.read_text(encoding="utf-8")
    values = merged(yaml.safe_load(text), {"devices": {"dra": {"deviceClass": namespace}}})
    for each in values.get("kueue", {}).get("clusterQueues", []):
        each["localQueues"] = [{"name": each["name"], "namespace": namespace}]
    rendered = helm("template", namespace, CHART, "--namespace", namespace, values=values)
    known = set(kubectl("api-versions").split())
    wanted = {each["apiVersion"] for each in yaml.safe_load_all(rendered.stdout) if each}
    if wanted - known:
        pytest.skip(f"the cluster has no {', '.join(sorted(wanted - known))}")

    run_helm("install", namespace, values, "--dry-run=server")
