"""What Argo Rollouts makes of a judge's exit code, on a real cluster: the chart's objects, with scripts for server and judge.

The judge's script ends as its `--canary` says, so these tests also see what an annotation becomes.
"""

from __future__ import annotations

import json
import os
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
)
from tests.helm.chart import REQUIRED, manifest, merged, needs_helm

pytestmark = [pytest.mark.cluster, pytest.mark.slow, needs_helm]
IMAGE, TAG = os.environ.get("TIDEWHEEL_TEST_IMAGE", "localhost:5000/busybox:1.35").rsplit(":", 1)  # a shell and httpd
FIRST, SECOND = "1" * 64, "2" * 64
ROLLOUT = f"rollout.argoproj.io/{NAME}"
SERVER = (
    "mkdir -p /tmp/www/v2/health && touch /tmp/www/v2/health/live /tmp/www/v2/health/ready && exec httpd -f -p 8080 -h /tmp/www"
)
JUDGE = 'echo "$@"; case "$2" in passes) exit 0;; fails) exit 4;; waits) sleep 600;; *) exit 1;; esac'
VALUES = {
    "replicas": 2,
    "image": {"repository": IMAGE, "tag": TAG},
    "resources": {"requests": {"cpu": "10m", "memory": "16Mi"}, "limits": {"memory": "32Mi"}},
    "networkPolicy": {"enabled": False},
    "rollout": {
        "steps": [{"share": 0.1, "maxSeconds": 3600}, {"share": 0.5, "maxSeconds": 3600}],
        "analysis": {
            "backoffLimit": 1,
            "resources": {"requests": {"cpu": "10m", "memory": "16Mi"}, "limits": {"memory": "32Mi"}},
        },
    },
}


def objects() -> str:
    """The chart's objects, with scripts for programs."""
    documents = [each for each in yaml.safe_load_all(manifest(merged(REQUIRED, VALUES))) if each]
    for each in documents:
        each["metadata"].pop("namespace", None)
        if each["kind"] == "Rollout":
            (server,) = each["spec"]["template"]["spec"]["containers"]
            server["command"], server["args"] = ["sh", "-c", SERVER], []
        if each["kind"] == "AnalysisTemplate":
            (judge,) = each["spec"]["metrics"][0]["provider"]["job"]["spec"]["template"]["spec"]["containers"]
            judge["command"] = ["sh", "-c", JUDGE, "judge"]
    return yaml.safe_dump_all(documents)


@pytest.fixture(scope="module")
def namespace() -> Iterator[str]:
    """A namespace in which FIRST is stable."""
    require_cluster()
    if not has_rollouts():
        pytest.skip("the cluster has no Argo Rollouts")
    name = new_namespace()
    kubectl("--namespace", name, "apply", "--filename=-", text=objects())
    release(name, ROLLOUT, FIRST, is_paused=False, canary=None)
    found = ended(name, "Healthy")
    assert found["status"]["phase"] == "Healthy", found["status"]
    yield name
    kubectl("delete", "namespace", name, "--wait=false")


def ended(namespace: str, *phases: str) -> dict[str, Any]:
    def is_enough(found: dict[str, Any]) -> bool:
        status = found.get("status", {})
        is_seen = status.get("observedGeneration") == str(found["metadata"]["generation"])
        return is_seen and status.get("phase") in phases

    return eventually(lambda: get(namespace, ROLLOUT), is_enough, 180)


def runs(namespace: str, revision: str) -> list[dict[str, Any]]:
    found = get(namespace, "analysisruns", f"--selector=rollouts-pod-template-hash={revision}")["items"]
    return sorted(found, key=lambda each: each["metadata"]["creationTimestamp"])


def take_back(namespace: str) -> None:
    release(namespace, ROLLOUT, FIRST, is_paused=False, canary=None)
    assert ended(namespace, "Healthy")["status"]["phase"] == "Healthy"


@pytest.mark.parametrize("canary", ["fails", "breaks", ""])
def test_whatever_is_no_pass_leaves_production_where_it_is(namespace: str, canary: str) -> None:
    stable = get(namespace, ROLLOUT)["status"]["stableRS"]

    release(namespace, ROLLOUT, SECOND, is_paused=False, canary=canary)

    found = ended(namespace, "Degraded")
    assert found["status"]["abort"] is True, found["status"]
    assert found["status"]["stableRS"] == stable
    (run,) = runs(namespace, found["status"]["currentPodHash"])[-1:]
    assert run["status"]["phase"] == "Failed"
    canary_service = eventually(lambda: get(namespace, f"service/{NAME}-canary"), lambda each: selected(each) == stable, 30)
    assert selected(canary_service) == stable
    take_back(namespace)
    kubectl("--namespace", namespace, "delete", "analysisruns", "--all")


def selected(service: dict[str, Any]) -> str:
    return service["spec"]["selector"].get("rollouts-pod-template-hash", "")


def test_a_canary_without_its_annotation_is_given_up(namespace: str) -> None:
    annotations = get(namespace, ROLLOUT)["metadata"]["annotations"]
    if "tidewheel/canary" in annotations:
        kubectl("--namespace", namespace, "annotate", ROLLOUT, "tidewheel/canary-")

    release(namespace, ROLLOUT, "3" * 64, is_paused=False, canary=None)

    found = ended(namespace, "Degraded")
    assert found["status"]["abort"] is True, found["status"]
    (run,) = runs(namespace, found["status"]["currentPodHash"])[-1:]
    arguments = {each["name"]: each.get("value") for each in run["spec"]["args"]}
    assert arguments == {"step": "1", "canary": "", "revision": found["status"]["currentPodHash"]}
    take_back(namespace)


def test_two_passes_release_it(namespace: str) -> None:
    release(namespace, ROLLOUT, "4" * 64, is_paused=False, canary="passes")

    found = eventually(
        lambda: ended(namespace, "Healthy", "Degraded"),
        lambda each: each["status"]["stableRS"] == each["status"]["currentPodHash"],
        180,
    )
    assert found["status"]["phase"] == "Healthy", found["status"]
    assert bundle_of(found) == "4" * 64
    found_runs = runs(namespace, found["status"]["stableRS"])
    steps = [next(arg["value"] for arg in run["spec"]["args"] if arg["name"] == "step") for run in found_runs]
    assert (steps, {run["status"]["phase"] for run in found_runs}) == (["1", "2"], {"Successful"})
    release(namespace, ROLLOUT, FIRST, is_paused=False, canary="passes")
    back = eventually(
        lambda: ended(namespace, "Healthy", "Degraded"),
        lambda each: each["status"]["stableRS"] == each["status"]["currentPodHash"],
        180,
    )
    assert back["status"]["phase"] == "Healthy"


def test_an_abort_by_hand_ends_the_judge(namespace: str) -> None:
    release(namespace, ROLLOUT, "5" * 64, is_paused=False, canary="waits")
    judges = eventually(
        lambda: get(namespace, "jobs")["items"], lambda each: any(job["status"].get("active") for job in each), 120
    )
    assert any(job["status"].get("active") for job in judges)

    patch = json.dumps({"status": {"abort": True}})
    kubectl("--namespace", namespace, "patch", ROLLOUT, "--subresource=status", "--type=merge", "--patch", patch)

    found = ended(namespace, "Degraded")
    assert found["status"]["phase"] == "Degraded", found["status"]
    left = eventually(
        lambda: get(namespace, "jobs")["items"], lambda each: not any(job["status"].get("active") for job in each), 60
    )
    assert not any(job["status"].get("active") for job in left)
    take_back(namespace)
