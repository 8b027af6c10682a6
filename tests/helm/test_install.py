"""The chart on a real cluster: what helm may change, what it must leave alone, and that nothing stays behind.

No pod has to become ready: releases are paused, and no image is pulled.
"""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from tests.helm.chart import CASES, CHART, REQUIRED, helm, merged, needs_helm

pytestmark = [pytest.mark.cluster, needs_helm]
NAME = "feed-ranker-serving"
FIRST, SECOND = "1" * 64, "2" * 64
HASH = "rollouts-pod-template-hash"
OURS = {"podDisruptionBudget": {"enabled": True}, "deployer": {"serviceAccounts": [{"name": "runner", "namespace": "default"}]}}


def kubectl(*arguments: str, text: str | None = None) -> str:
    done = subprocess.run(["kubectl", *arguments], input=text, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, f"kubectl {' '.join(arguments)}: {done.stderr}"
    return done.stdout


@pytest.fixture(scope="module", autouse=True)
def _cluster() -> None:
    if not os.environ.get("KUBECONFIG"):
        pytest.skip("KUBECONFIG names no cluster")


@pytest.fixture(scope="module")
def has_rollouts(_cluster: None) -> bool:
    return "rollouts.argoproj.io" in kubectl("api-resources", "--api-group=argoproj.io", "--output=name")


@pytest.fixture(params=["rollout", "plain"])
def mode(request: pytest.FixtureRequest, has_rollouts: bool) -> dict[str, Any]:
    """Values of both modes."""
    if request.param == "rollout" and not has_rollouts:
        pytest.skip("the cluster has no Argo Rollouts")
    return merged(merged(REQUIRED, OURS), {"rollout": {"enabled": request.param == "rollout"}})


@pytest.fixture
def namespace(_cluster: None) -> Iterator[str]:
    name = f"ranker-serving-{os.getpid()}-{time.monotonic_ns() % 1_000_000}"
    kubectl("create", "namespace", name)
    yield name
    kubectl("delete", "namespace", name, "--wait=false")


def workload(values: dict[str, Any]) -> str:
    return f"{'rollout.argoproj.io' if values['rollout']['enabled'] else 'deployment'}/{NAME}"


def get(namespace: str, what: str) -> dict[str, Any]:
    return json.loads(kubectl("--namespace", namespace, "get", what, "--output=json"))


def bundle_of(found: dict[str, Any]) -> str:
    return found["spec"]["template"]["spec"]["containers"][0]["env"][0].get("value", "")


def run_helm(verb: str, namespace: str, values: dict[str, Any], *more: str) -> None:
    done = helm(verb, "feed", CHART, "--namespace", namespace, *more, values=values)
    assert done.returncode == 0, done.stderr


def release(namespace: str, values: dict[str, Any], bundle: str, is_paused: bool) -> None:
    """What the deploy step does: bundle, paused and the canary's annotation in one patch."""
    patch = [
        {"op": "replace", "path": "/spec/template/spec/containers/0/env/0/value", "value": bundle},
        {"op": "replace", "path": "/spec/paused", "value": is_paused},
        {"op": "add", "path": "/metadata/annotations/tidewheel~1canary", "value": "canary-7"},
    ]
    kubectl("--namespace", namespace, "patch", workload(values), "--type=json", "--patch", json.dumps(patch))


def left_in(namespace: str) -> set[str]:
    """Everything of the release in the namespace, whatever kind it is."""
    kinds = kubectl("api-resources", "--verbs=list", "--namespaced", "--output=name").split()
    kinds = [kind for kind in kinds if not kind.startswith("events")]
    found = kubectl(
        "--namespace", namespace, "get", ",".join(kinds), "--selector=app.kubernetes.io/instance=feed", "--output=name"
    )
    secrets = kubectl("--namespace", namespace, "get", "secrets", "--selector=owner=helm", "--output=name")
    return {*found.split(), *secrets.split()}


def wait_until_gone(namespace: str) -> set[str]:
    for _ in range(60):
        if not (left := left_in(namespace)):
            break
        time.sleep(1)
    return left


@pytest.mark.parametrize("case", CASES, ids=lambda path: path.stem)
def test_the_api_server_accepts_the_example_values(case: Any, namespace: str, has_rollouts: bool) -> None:
    values = merged(yaml.safe_load(case.read_text(encoding="utf-8")), {"monitoring": {"serviceMonitor": {"enabled": False}}})
    values = merged(values, {"monitoring": {"prometheusRule": {"enabled": False}}})  # other operators' kinds
    if values.get("rollout", {}).get("enabled", True) and not has_rollouts:
        pytest.skip("the cluster has no Argo Rollouts")

    run_helm("install", namespace, values, "--dry-run=server")


def test_before_the_first_release_no_pod_is_started(namespace: str, mode: dict[str, Any]) -> None:
    run_helm("install", namespace, mode)

    found = get(namespace, workload(mode))
    assert (bundle_of(found), found["spec"]["paused"]) == ("", True)
    assert get(namespace, "pods")["items"] == []


def test_an_upgrade_leaves_what_was_released(namespace: str, mode: dict[str, Any]) -> None:
    run_helm("install", namespace, mode)
    release(namespace, mode, FIRST, is_paused=True)

    run_helm("upgrade", namespace, merged(mode, {"replicas": 2, "bundle": SECOND}))

    found = get(namespace, workload(mode))
    assert (bundle_of(found), found["spec"]["paused"], found["spec"]["replicas"]) == (FIRST, True, 2)
    assert found["metadata"]["annotations"]["tidewheel/canary"] == "canary-7"


def test_an_upgrade_does_not_pause_what_runs(namespace: str, mode: dict[str, Any]) -> None:
    nowhere = merged(mode, {"nodeSelector": {"nowhere": "true"}})
    run_helm("install", namespace, nowhere)
    release(namespace, mode, FIRST, is_paused=False)

    run_helm("upgrade", namespace, nowhere)

    found = get(namespace, workload(mode))
    assert (bundle_of(found), found["spec"].get("paused", False)) == (FIRST, False)


def test_until_the_first_release_the_values_decide(namespace: str, mode: dict[str, Any]) -> None:
    nowhere = merged(mode, {"nodeSelector": {"nowhere": "true"}})
    run_helm("install", namespace, nowhere)

    run_helm("upgrade", namespace, merged(nowhere, {"bundle": FIRST}))

    found = get(namespace, workload(mode))
    assert (bundle_of(found), found["spec"].get("paused", False)) == (FIRST, False)


def test_an_upgrade_leaves_services_at_their_revision(namespace: str, has_rollouts: bool) -> None:
    if not has_rollouts:
        pytest.skip("the cluster has no Argo Rollouts")
    run_helm("install", namespace, REQUIRED)
    service = f"service/{NAME}-stable"
    kubectl("--namespace", namespace, "patch", service, "--patch", json.dumps({"spec": {"selector": {HASH: "abc"}}}))

    run_helm("upgrade", namespace, merged(REQUIRED, {"replicas": 2}))

    assert get(namespace, service)["spec"]["selector"][HASH] == "abc"
    assert HASH not in get(namespace, f"service/{NAME}")["spec"]["selector"]


def test_a_bundle_goes_on_when_argo_rollouts_comes_or_goes(namespace: str, has_rollouts: bool) -> None:
    if not has_rollouts:
        pytest.skip("the cluster has no Argo Rollouts")
    with_it, without = REQUIRED, merged(REQUIRED, {"rollout": {"enabled": False}})
    without_it = merged(without, {})
    run_helm("install", namespace, without_it)
    release(namespace, without_it, FIRST, is_paused=True)

    run_helm("upgrade", namespace, with_it)

    found = get(namespace, f"rollout.argoproj.io/{NAME}")
    assert (bundle_of(found), found["spec"]["paused"]) == (FIRST, True)


def test_nothing_is_left_after_uninstall(namespace: str, mode: dict[str, Any]) -> None:
    run_helm("install", namespace, mode)
    run_helm("upgrade", namespace, merged(mode, {"replicas": 2}))
    assert len(left_in(namespace)) > 5

    done = helm("uninstall", "feed", "--namespace", namespace, "--wait")

    assert done.returncode == 0, done.stderr
    assert wait_until_gone(namespace) == set()
