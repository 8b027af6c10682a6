"""What the API server says of a RayJob, its pods and its place in a queue, as one state. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from tidewheel.pods.admission import is_above_limit
from tidewheel.pods.waiting import waiting_for

LONGEST_WORDS = 400
QUEUE_FOR_EVER = ("ExceedsMaxQuota", "Misconfigured")  # why Kueue never admits
# What Kueue says of it where it gives no such reason; `UNUSED` where another flavor may still have room.
NEVER_ADMITTED, UNUSED = ("unavailable in ClusterQueue", "> maximum capacity"), "insufficient unused quota"
TROUBLE = ("failed calling webhook", "Internal error", "etcdserver", "timeout", "timed out", "connection refused", "conflict")


@dataclass(frozen=True)
class State:
    """How far a RayJob is.

    phase: `waiting` for what `words` say; `working`; `succeeded`; `died` of what `words` say, its retries included; `hopeless`:
    waiting helps nothing, and `words` say the object, the rule and the remedy.
    """

    phase: Literal["waiting", "working", "succeeded", "died", "hopeless"]
    words: str = ""


def state_of(
    job: Mapping[str, Any], pods: Sequence[Mapping[str, Any]] = (), workloads: Sequence[Mapping[str, Any]] = ()
) -> State:
    """The state of a RayJob.

    Args:
        pods: of its Ray cluster.
        workloads: what Kueue made of it, where it waits in a queue.
    """
    status = job.get("status", {})
    deployment = status.get("jobDeploymentStatus", "")
    said = _short(f"{status.get('reason', '')}: {status.get('message', '')}".strip(": "))
    if deployment == "ValidationFailed":
        return State("hopeless", f"KubeRay refuses it ({said}); is KubeRay older than manifests/versions.toml says?")
    if deployment == "Complete":
        outcome = status.get("jobStatus", "")
        return State("succeeded") if outcome == "SUCCEEDED" else State("died", f"{outcome}: {said}")
    if deployment == "Failed":
        return State("died", said)
    if deployment == "Retrying":
        return State("waiting", f"Ray is started again from the last checkpoint, after failure {status.get('failed', 1)}")
    if job["spec"].get("suspend"):
        return _queued(workloads)
    refused = _refused(status.get("rayClusterStatus", {}).get("conditions", ()))
    if refused is not None:
        return refused
    waiting = [state for pod in pods if (state := _waiting(pod)) is not None]
    hopeless = next((state for state in waiting if state.phase == "hopeless"), None)
    if hopeless is not None:
        return hopeless
    if waiting:
        return State("waiting", f"{len(pods) - len(waiting)} of {len(pods)} pods of Ray are up; {waiting[0].words}")
    if deployment == "Running" and status.get("jobStatus") == "RUNNING":
        return State("working")
    return State("waiting", "Ray starts its driver" if deployment == "Running" else "KubeRay starts Ray")


def refusal_of(message: str) -> State:
    """Of an object that the cluster would not make: only a quota that others use now, or trouble of its own, may pass."""
    if "exceeded quota" in message:
        words = _short(message[message.index("exceeded quota") :])
        if is_above_limit(message):
            return State("hopeless", f"{words}: it never fits; ask for less in placement.workers, or raise the quota")
        return State("waiting", f"waits for quota ({words})")
    words = _short(message)
    if any(sign in message for sign in TROUBLE):
        return State("waiting", f"is not made yet ({words})")
    return State("hopeless", f"the cluster refuses it ({words}); change what it asks for, or what the namespace admits")


def _queued(workloads: Sequence[Mapping[str, Any]]) -> State:
    for workload in workloads:
        for condition in workload.get("status", {}).get("conditions", ()):
            if condition["type"] != "QuotaReserved" or condition["status"] == "True":
                continue
            message = condition.get("message", "")
            why = _short(message)
            is_never = UNUSED not in message and any(sign in message for sign in NEVER_ADMITTED)
            if is_never or condition.get("reason") in QUEUE_FOR_EVER:
                queue = workload["spec"].get("queueName", "")
                return State(
                    "hopeless", f"queue {queue} never admits it ({why}); ask for less in placement.workers, or raise its quota"
                )
            return State("waiting", f"waits in its queue ({why})")
    return State("waiting", "waits in its queue")


def _refused(conditions: Iterable[Mapping[str, Any]]) -> State | None:
    """Of pods that KubeRay could not make."""
    for condition in conditions:
        if condition["type"] == "ReplicaFailure" and condition["status"] == "True":
            return refusal_of(condition.get("message", ""))
    return None


def _waiting(pod: Mapping[str, Any]) -> State | None:
    """What a pod waits for; None: it is up, or has ended and is replaced."""
    status = pod.get("status", {})
    is_ready = any(each["type"] == "Ready" and each["status"] == "True" for each in status.get("conditions", ()))
    if is_ready or status.get("phase") in ("Succeeded", "Failed"):
        return None
    found = list(waiting_for(pod))
    for each in found:
        if each.is_for_good:
            remedy = "its node must be able to pull what the step runs in"
            return State("hopeless", f"pod {each.pod} cannot start {each.image} ({each.words}); {remedy}")
    for each in found:
        if each.what == "image":
            return State("waiting", f"pod {each.pod} waits for its image ({each.words})")
        if each.what == "node":
            return State("waiting", f"pod {each.pod} is {each.words}")
    return State("waiting", f"pod {pod['metadata']['name']} starts")


def _short(text: str) -> str:
    """On one line; of a long one its end, where a log says what happened."""
    words = " ".join(text.split())
    return words if len(words) <= LONGEST_WORDS else f"…{words[-LONGEST_WORDS:]}"
