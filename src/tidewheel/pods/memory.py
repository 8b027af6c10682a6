"""The memory of pods: with how much they were killed, and more of it for this pod while it runs (Kubernetes 1.33 or newer)."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from tidewheel.contracts.labels import KUBEFLOW_RUN, STEP
from tidewheel.contracts.placement import PodPlacement
from tidewheel.errors import ConfigError, RetryableError
from tidewheel.pods.api import ask
from tidewheel.pods.ladder import quantity
from tidewheel.pods.own import OwnPod

OOM_KILLED = "OOMKilled"  # what the kubelet calls it; an exit code 137 alone may be any kill
BESIDE = "wait"  # Argo Workflows' own container of each pod, whose memory is not the step's
PATIENCE_SECONDS, LOOK_SECONDS = 60.0, 1.0
PENDING, INFEASIBLE = "PodResizePending", "Infeasible"
MANAGED = "kueue.x-k8s.io/managed"  # a label of the pods that Kueue let in


P = TypeVar("P", bound=PodPlacement)


class Sizes(Protocol):
    """With how much memory the pods of one kind that a step starts begin, and what is learned from their end."""

    def sized(self, asked: P, count: int) -> P:
        """What each of `count` pods should ask for now, of what the recipe asks for. Called first, and once."""
        ...

    def ended(self, killed_bytes: int) -> None:
        """They ended well (0), or one was killed with so much memory.

        Raises:
            ConfigError: there may be no more.
        """
        ...


@dataclass(frozen=True)
class Refusal:
    """Why a pod has no more memory than before. is_for_now: later, or on another node, it might have."""

    words: str
    is_for_now: bool


def was_oom_killed(pods: Iterable[Mapping[str, Any]]) -> bool:
    """Whether one of these pods (manifests as the API server has them) ended because its memory was not enough.

    Eviction, preemption, a lost node and an exit code are none of it.
    """
    return killed_bytes(pods) > 0


def killed_bytes(pods: Iterable[Mapping[str, Any]]) -> int:
    """The most memory that one of them had and was killed for using up; 0: none was."""
    return max((_killed_bytes(pod) for pod in pods), default=0)


def memory_of(pod: Mapping[str, Any], container: str) -> int:
    """The memory that a container may use, bytes: what the kubelet gave it, else what its pod asks for; 0: no limit."""
    from kubernetes.utils import parse_quantity

    statuses, specs = pod.get("status", {}).get("containerStatuses") or (), pod["spec"]["containers"]
    for each in (*statuses, *specs):
        if each["name"] == container and (limit := (each.get("resources") or {}).get("limits", {}).get("memory")):
            return int(parse_quantity(limit))
    return 0


def earlier_tries(pod: OwnPod) -> list[Mapping[str, Any]]:
    """The pods in which this run tried this step before, the oldest first, as far as they are still there.

    Raises:
        ConfigError: this account may not list pods.
        RetryableError: the API server does not answer.
    """
    labels = pod.manifest["metadata"].get("labels", {})
    known = [f"{label}={labels[label]}" for label in (KUBEFLOW_RUN, STEP) if label in labels]
    if len(known) < 2:
        return []
    found = ask(f"/api/v1/namespaces/{pod.namespace}/pods", "pods of this run", query=[("labelSelector", ",".join(known))])
    others = (each for each in found["items"] if each["metadata"]["name"] != pod.name)
    return sorted(others, key=lambda each: each["metadata"].get("creationTimestamp", ""))


def is_queued(pod: OwnPod) -> bool:
    """Whether Kueue let it in."""
    return bool(pod.manifest["metadata"].get("labels", {}).get(MANAGED) == "true")


def resize(
    pod: OwnPod,
    to_bytes: int,
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> Refusal | None:
    """Give this pod's main container so much memory and wait until the kubelet has done it; None: it has.

    A pod that came through a queue is left alone: Kueue holds it against what it let in, and deletes one that differs.
    """
    if is_queued(pod):
        return Refusal("Kueue let it in with what it has, and would delete it", is_for_now=False)
    container, path = pod.container["name"], f"/api/v1/namespaces/{pod.namespace}/pods/{pod.name}"
    amount = {"memory": quantity(to_bytes)}
    wanted = {"spec": {"containers": [{"name": container, "resources": {"requests": amount, "limits": amount}}]}}
    what = f"pod {pod.name}"
    until = clock() + PATIENCE_SECONDS
    try:
        ask(f"{path}/resize", f"resize of {what}", method="PATCH", body=wanted)
        while True:
            found = ask(path, what)
            if _has(found, container, to_bytes):
                return None
            words, reason = _pending(found)
            if reason == INFEASIBLE or clock() >= until:
                return Refusal(words or f"the kubelet has not done it in {PATIENCE_SECONDS:.0f} s", is_for_now=True)
            sleep(LOOK_SECONDS)
    except (ConfigError, RetryableError) as error:
        return Refusal(str(error), error.is_retryable)


def _killed_bytes(pod: Mapping[str, Any]) -> int:
    status = pod.get("status", {})
    is_disrupted = any(
        each["type"] == "DisruptionTarget" and each["status"] == "True" for each in status.get("conditions") or ()
    )
    if status.get("reason") == "Evicted" or is_disrupted:
        return 0
    killed = [
        each["name"]
        for each in status.get("containerStatuses") or ()
        for state in (each.get("state") or {}, each.get("lastState") or {})
        if each["name"] != BESIDE and (state.get("terminated") or {}).get("reason") == OOM_KILLED
    ]
    return max((memory_of(pod, name) for name in killed), default=0)


def _has(pod: Mapping[str, Any], container: str, wanted_bytes: int) -> bool:
    statuses = pod.get("status", {}).get("containerStatuses") or ()
    is_reported = any(each["name"] == container and each.get("resources") for each in statuses)
    return is_reported and memory_of(pod, container) == wanted_bytes


def _pending(pod: Mapping[str, Any]) -> tuple[str, str]:
    """Why the kubelet has not done it yet: for people, and its own word for it."""
    for each in pod.get("status", {}).get("conditions") or ():
        if each["type"] == PENDING and each["status"] == "True":
            return f"{each.get('reason', '')}: {each.get('message', '')}", each.get("reason", "")
    return "", ""
