"""What a RayJob, its pods and its queue say, as one state."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.pods.pods import ray_pod
from tidewheel.pods.admission import is_above_limit
from tidewheel.pods.raystate import State, refusal_of, state_of

QUOTA = (
    'pods "ray-head" is forbidden: exceeded quota: runs, requested: limits.memory={asked},requests.memory={asked}, '
    "used: limits.memory=15Gi,requests.memory=15Gi, limited: limits.memory=16Gi,requests.memory=16Gi"
)


def job(deployment: str = "Running", job_status: str = "RUNNING", *, suspend: bool = False, **status: Any) -> dict[str, Any]:
    said = {"jobDeploymentStatus": deployment, "jobStatus": job_status} | status
    return {"metadata": {"name": "ray"}, "spec": {"suspend": suspend}, "status": said}


def workload(reason: str, message: str, status: str = "False") -> dict[str, Any]:
    condition = {"type": "QuotaReserved", "status": status, "reason": reason, "message": message}
    return {"spec": {"queueName": "retrain"}, "status": {"conditions": [condition]}}


def waiting_for(reason: str, message: str) -> dict[str, Any]:
    container = {"name": "ray-worker", "image": "trainer:1", "state": {"waiting": {"reason": reason, "message": message}}}
    return ray_pod(is_ready=False, containerStatuses=[container])


def test_a_driver_that_runs_in_pods_that_are_up_works() -> None:
    assert state_of(job(), [ray_pod("head"), ray_pod()]) == State("working")


@pytest.mark.parametrize(
    ("found", "want"),
    [
        ({"metadata": {}, "spec": {}}, State("waiting", "KubeRay starts Ray")),
        (job("Initializing", ""), State("waiting", "KubeRay starts Ray")),
        (job("Running", ""), State("waiting", "Ray starts its driver")),
        (job("Running", "PENDING"), State("waiting", "Ray starts its driver")),
        (job("Complete", "SUCCEEDED"), State("succeeded")),
        (job("Complete", "STOPPED", message="by hand"), State("died", "STOPPED: by hand")),
        (
            job("Failed", "FAILED", reason="AppFailed", message="exit code 1\n\nValueError: no"),
            State("died", "AppFailed: exit code 1 ValueError: no"),
        ),
        (
            job("Retrying", "", failed=2),
            State("waiting", "Ray is started again from the last checkpoint, after failure 2"),
        ),
    ],
    ids=lambda value: value.words or value.phase if isinstance(value, State) else "",
)
def test_what_kuberay_says_is_one_state(found: dict[str, Any], want: State) -> None:
    assert state_of(found) == want


def test_a_rayjob_that_kuberay_does_not_understand_is_hopeless() -> None:
    state = state_of(job("ValidationFailed", "", reason="ValidationFailed", message="the name is too long"))
    assert state.phase == "hopeless"
    assert "the name is too long" in state.words


def test_a_long_log_ends_with_what_happened() -> None:
    words = state_of(job("Failed", "FAILED", message="line of the log " * 100 + "OSError: the disk is full")).words
    assert words.endswith("OSError: the disk is full")
    assert len(words) <= 401


@pytest.mark.parametrize(
    ("message", "phase", "words"),
    [
        (
            "0/9 nodes are available: 9 Insufficient cpu.",
            "waiting",
            "pod ray-worker-1 is Unschedulable: 0/9 nodes are available",
        ),
        ("0/9 nodes match {tidewheel/pool: h100}", "waiting", "1 of 2 pods of Ray are up"),
    ],
)
def test_a_pod_that_fits_on_no_node_now_waits(message: str, phase: str, words: str) -> None:
    pod = ray_pod(is_ready=False)
    pod["status"]["conditions"][0] = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message}
    state = state_of(job("Initializing", ""), [ray_pod("head"), pod])
    assert state.phase == phase
    assert words in state.words


@pytest.mark.parametrize(
    ("reason", "message", "phase"),
    [
        ("ErrImagePull", "failed to resolve reference trainer:1: not found", "hopeless"),
        ("ImagePullBackOff", "Back-off pulling image: 401 unauthorized", "hopeless"),
        ("InvalidImageName", "", "hopeless"),
        ("CreateContainerConfigError", 'secret "tidewheel-store" not found', "hopeless"),
        ("ErrImagePull", "dial tcp: connection refused", "waiting"),
        ("ContainerCreating", "", "waiting"),
        ("PodInitializing", "", "waiting"),
    ],
)
def test_only_an_image_that_waiting_does_not_bring_is_hopeless(reason: str, message: str, phase: str) -> None:
    assert state_of(job("Initializing", ""), [waiting_for(reason, message)]).phase == phase


def test_a_missing_image_is_named_with_its_pod_and_the_remedy() -> None:
    words = state_of(job("Initializing", ""), [waiting_for("ErrImagePull", "trainer:1: not found")]).words
    assert words == (
        "pod ray-worker-1 cannot start trainer:1 (ErrImagePull: trainer:1: not found); its node must be able to pull what the "
        "step runs in"
    )


@pytest.mark.parametrize(
    ("workloads", "phase", "words"),
    [
        ([], "waiting", "waits in its queue"),
        ([workload("WaitingForQuota", "4 more needed")], "waiting", "waits in its queue (4 more needed)"),
        ([workload("QuotaReserved", "admitted", "True")], "waiting", "waits in its queue"),
        (
            [workload("Pending", "request (3Gi) > maximum capacity (1Gi)")],
            "hopeless",
            "queue retrain never admits it (request (3Gi)",
        ),
        (
            [
                workload(
                    "Pending", "request (3Gi) > maximum capacity (1Gi), insufficient unused quota for memory in flavor spot"
                )
            ],
            "waiting",
            "waits in its queue",
        ),
        (
            [workload("Pending", "resource ephemeral-storage unavailable in ClusterQueue")],
            "hopeless",
            "queue retrain never admits it (resource ephemeral-storage unavailable",
        ),
        ([workload("ExceedsMaxQuota", "cpu > 4")], "hopeless", "queue retrain never admits it (cpu > 4)"),
        (
            [workload("Misconfigured", "LocalQueue retrain doesn't exist")],
            "hopeless",
            "queue retrain never admits it (LocalQueue",
        ),
    ],
)
def test_a_suspended_rayjob_waits_in_its_queue_unless_that_never_admits_it(
    workloads: list[dict[str, Any]], phase: str, words: str
) -> None:
    state = state_of(job("Suspended", "", suspend=True), [], workloads)
    assert state.phase == phase
    assert words in state.words


@pytest.mark.parametrize(
    ("asked", "is_hopeless"), [("17Gi", True), ("16Gi", False), ("2Gi", False), ("17179869185", True), ("16384Mi", False)]
)
def test_a_quota_is_for_ever_where_it_is_smaller_than_the_one_pod(asked: str, is_hopeless: bool) -> None:
    message = QUOTA.format(asked=asked)
    assert is_above_limit(message) is is_hopeless
    assert (refusal_of(message).phase == "hopeless") is is_hopeless
    failing = [{"type": "ReplicaFailure", "status": "True", "message": f"FailedCreateHeadPod: {message}"}]
    state = state_of(job("Initializing", "", rayClusterStatus={"conditions": failing}))
    assert (state.phase == "hopeless") is is_hopeless
    assert "exceeded quota: runs" in state.words


def test_a_webhook_that_is_away_passes_and_a_policy_does_not() -> None:
    assert refusal_of('Internal error occurred: failed calling webhook "mpod.kb.io": connection refused').phase == "waiting"
    assert refusal_of('pods "ray-head" is forbidden: violates PodSecurity "restricted:latest"').phase == "hopeless"
