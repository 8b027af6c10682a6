"""The chart on a real cluster: what helm may change, what it must leave alone, and that nothing stays behind.

No pod has to become ready: releases are paused, and no image is pulled.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from tests.cluster.kubectl import (
    NAME,
    bundle_of,
    eventually,
    get,
    has_rollouts,
    kubectl,
    new_namespace,
    release,
    require_cluster,
    workload,
)
from tests.helm.chart import CASES, CHART, REQUIRED, helm, merged, needs_helm

pytestmark = [pytest.mark.cluster, needs_helm]
FIRST, SECOND = "1" * 64, "2" * 64
HASH = "rollouts-pod-template-hash"
OURS = {"podDisruptionBudget": {"enabled": True}, "deployer": {"serviceAccounts": [{"name": "runner", "namespace": "default"}]}}


@pytest.fixture(scope="module")
def with_rollouts() -> bool:
    """Whether the cluster has Argo Rollouts."""
    require_cluster()
    return has_rollouts()


@pytest.fixture(params=["rollout", "plain"])
def mode(request: pytest.FixtureRequest, with_rollouts: bool) -> dict[str, Any]:
    """Values of both modes."""
    if request.param == "rollout" and not with_rollouts:
        pytest.skip("the cluster has no Argo Rollouts")
    return merged(merged(REQUIRED, OURS), {"rollout": {"enabled": request.param == "rollout"}})


@pytest.fixture
def namespace(with_rollouts: bool) -> Iterator[str]:
    name = new_namespace()
    yield name
    kubectl("delete", "namespace", name, "--wait=false")


def run_helm(verb: str, namespace: str, values: dict[str, Any], *more: str) -> None:
    done = helm(verb, "feed", CHART, "--namespace", namespace, *more, values=values)
    assert done.returncode == 0, done.stderr


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
    return eventually(lambda: left_in(namespace), lambda left: not left, 60)


@pytest.mark.parametrize("case", CASES, ids=lambda path: path.stem)
def test_the_api_server_accepts_the_example_values(case: Any, namespace: str, with_rollouts: bool) -> None:
    values = merged(yaml.safe_load(case.read_text(encoding="utf-8")), {"monitoring": {"serviceMonitor": {"enabled": False}}})
    values = merged(values, {"monitoring": {"prometheusRule": {"enabled": False}}})  # other operators' kinds
    if values.get("rollout", {}).get("enabled", True) and not with_rollouts:
        pytest.skip("the cluster has no Argo Rollouts")

    run_helm("install", namespace, values, "--dry-run=server")


def test_before_the_first_release_no_pod_is_started(namespace: str, mode: dict[str, Any]) -> None:
    run_helm("install", namespace, mode)

    found = get(namespace, workload(mode))
    assert (bundle_of(found), found["spec"]["paused"]) == ("", True)
    assert get(namespace, "replicasets,pods")["items"] == []
    assert "stableRS" not in found.get("status", {})


def test_an_upgrade_leaves_what_was_released(namespace: str, mode: dict[str, Any]) -> None:
    run_helm("install", namespace, mode)
    release(namespace, workload(mode), FIRST, is_paused=True, canary="canary-7")

    run_helm("upgrade", namespace, merged(mode, {"replicas": 2, "bundle": SECOND}))

    found = get(namespace, workload(mode))
    assert (bundle_of(found), found["spec"]["paused"], found["spec"]["replicas"]) == (FIRST, True, 2)
    assert found["metadata"]["annotations"]["tidewheel/canary"] == "canary-7"


def test_an_upgrade_does_not_pause_what_runs(namespace: str, mode: dict[str, Any]) -> None:
    nowhere = merged(mode, {"nodeSelector": {"nowhere": "true"}})
    run_helm("install", namespace, nowhere)
    release(namespace, workload(mode), FIRST, is_paused=False, canary="canary-7")

    run_helm("upgrade", namespace, nowhere)

    found = get(namespace, workload(mode))
    assert (bundle_of(found), found["spec"].get("paused", False)) == (FIRST, False)


def test_until_the_first_release_the_values_decide(namespace: str, mode: dict[str, Any]) -> None:
    nowhere = merged(mode, {"nodeSelector": {"nowhere": "true"}})
    run_helm("install", namespace, nowhere)

    run_helm("upgrade", namespace, merged(nowhere, {"bundle": FIRST}))

    found = get(namespace, workload(mode))
    assert (bundle_of(found), found["spec"].get("paused", False)) == (FIRST, False)


def test_an_upgrade_leaves_services_at_their_revision(namespace: str, with_rollouts: bool) -> None:
    if not with_rollouts:
        pytest.skip("the cluster has no Argo Rollouts")
    run_helm("install", namespace, REQUIRED)
    service = f"service/{NAME}-stable"
    kubectl("--namespace", namespace, "patch", service, "--patch", json.dumps({"spec": {"selector": {HASH: "abc"}}}))

    run_helm("upgrade", namespace, merged(REQUIRED, {"replicas": 2}))

    assert get(namespace, service)["spec"]["selector"][HASH] == "abc"
    assert HASH not in get(namespace, f"service/{NAME}")["spec"]["selector"]


def test_a_bundle_goes_on_when_argo_rollouts_comes_or_goes(namespace: str, with_rollouts: bool) -> None:
    if not with_rollouts:
        pytest.skip("the cluster has no Argo Rollouts")
    with_it, without_it = REQUIRED, merged(REQUIRED, {"rollout": {"enabled": False}})
    run_helm("install", namespace, without_it)
    release(namespace, workload(without_it), FIRST, is_paused=True, canary="canary-7")

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
