"""A real cluster, as tests of the chart use it: kubectl, a namespace of their own, the deploy step's patch."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable
from typing import Any

import pytest

from tests.helm.chart import merged

NAME = "feed-ranker-serving"
UNRELEASED = "argo-rollouts.argoproj.io/controller-instance-id"


def kubectl(*arguments: str, text: str | None = None) -> str:
    done = subprocess.run(["kubectl", *arguments], input=text, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, f"kubectl {' '.join(arguments)}: {done.stderr}"
    return done.stdout


def apply(*objects: dict[str, Any]) -> None:
    kubectl("apply", "--filename=-", text="\n---\n".join(json.dumps(each) for each in objects))


def get(namespace: str, what: str, *more: str) -> dict[str, Any]:
    return json.loads(kubectl("--namespace", namespace, "get", what, *more, "--output=json"))


def require_cluster() -> None:
    if not os.environ.get("KUBECONFIG"):
        pytest.skip("KUBECONFIG names no cluster")


def has_rollouts() -> bool:
    return "rollouts.argoproj.io" in kubectl("api-resources", "--api-group=argoproj.io", "--output=name")


def new_namespace(prefix: str = "ranker-serving") -> str:
    name = f"{prefix}-{os.getpid()}-{time.monotonic_ns() % 1_000_000}"
    kubectl("create", "namespace", name)
    return name


def workload(values: dict[str, Any]) -> str:
    """The resource that runs the servers in the mode of `values`."""
    is_rollout = merged({"rollout": {"enabled": True}}, values)["rollout"]["enabled"]
    return f"{'rollout.argoproj.io' if is_rollout else 'deployment'}/{NAME}"


def bundle_of(found: dict[str, Any]) -> str:
    """The bundle that a workload serves, or will."""
    return found["spec"]["template"]["spec"]["containers"][0]["env"][0].get("value", "")


def release(namespace: str, what: str, bundle: str, *, is_paused: bool, canary: str | None) -> None:
    """What the deploy step does, in one patch: bundle, paused, the canary's annotation; Argo Rollouts may look."""
    patch: list[dict[str, Any]] = [
        {"op": "add", "path": "/spec/template/spec/containers/0/env/0/value", "value": bundle},
        {"op": "add", "path": "/spec/paused", "value": is_paused},
    ]
    if canary is not None:
        patch.append({"op": "add", "path": "/metadata/annotations/tidewheel~1canary", "value": canary})
    if UNRELEASED in get(namespace, what)["metadata"]["labels"]:
        patch.append({"op": "remove", "path": "/metadata/labels/" + UNRELEASED.replace("/", "~1")})
    kubectl("--namespace", namespace, "patch", what, "--type=json", "--patch", json.dumps(patch))


def eventually(look: Callable[[], Any], is_enough: Callable[[Any], bool], seconds: int) -> Any:
    """The last thing seen: as soon as it is enough, or when the time is up."""
    for _ in range(seconds):
        seen = look()
        if is_enough(seen):
            break
        time.sleep(1)
    return seen
