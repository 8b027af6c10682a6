"""Who was killed for want of memory, and how a pod is given more, against an API server in memory."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.unit.pods.api_server import NAMESPACE, ApiServer, killed, pod, served
from tidewheel.pods.memory import earlier_tries, killed_bytes, memory_of, resize, was_oom_killed
from tidewheel.pods.own import OwnPod, own_pod

MIB = 2**20


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ApiServer]:
    made = ApiServer({"mine": pod("mine", "1Gi")})
    with served(made, tmp_path) as path:
        monkeypatch.setenv("KUBECONFIG", str(path))
        yield made


@pytest.fixture
def own(server: ApiServer) -> OwnPod:
    found = own_pod({"TIDEWHEEL_POD": "mine", "TIDEWHEEL_NAMESPACE": NAMESPACE})
    assert found is not None
    return found


def ticking() -> Any:
    """A clock that is a second later whenever somebody looks."""
    seconds = itertools.count()
    return lambda: float(next(seconds))


DISRUPTED = [{"type": "DisruptionTarget", "status": "True"}]


@pytest.mark.parametrize(
    ("ended", "want"),
    [
        (pod("a", "1Gi", killed()), 1024),
        (pod("a", "1Gi", killed("Error")), 0),
        (pod("a", "1Gi", {"terminated": {"exitCode": 1, "reason": "Error"}}), 0),
        (pod("a", "1Gi", killed(), reason="Evicted"), 0),
        (pod("a", "1Gi", killed(), conditions=DISRUPTED), 0),
        (pod("a", "1Gi", killed(), conditions=[{"type": "DisruptionTarget", "status": "False"}]), 1024),
        (pod("a", "1Gi"), 0),
        ({"metadata": {}, "spec": {"containers": []}, "status": {}}, 0),
    ],
)
def test_only_the_kernels_kill_is_a_want_of_memory(ended: dict[str, Any], want: int) -> None:
    assert killed_bytes([ended]) == want * MIB
    assert was_oom_killed([ended]) is (want > 0)


def test_argos_own_container_is_not_the_step() -> None:
    ended = pod("a", "1Gi")
    ended["status"]["containerStatuses"][0]["state"] = killed()

    assert not was_oom_killed([ended])


def test_a_container_that_was_started_again_was_killed_all_the_same() -> None:
    running = pod("worker", "2Gi", {"running": {}})
    running["status"]["containerStatuses"][1]["lastState"] = killed()

    assert killed_bytes([running, pod("other", "1Gi", killed())]) == 2048 * MIB


def test_what_the_kubelet_gave_counts_not_what_was_asked_for() -> None:
    found = pod("a", "1Gi")
    found["spec"]["containers"][1]["resources"] = {"limits": {"memory": "4Gi"}}

    assert memory_of(found, "main") == 1024 * MIB
    found["status"] = {}
    assert memory_of(found, "main") == 4096 * MIB
    assert memory_of(found, "wait") == 0


def test_earlier_tries_are_of_this_step_of_this_run(server: ApiServer, own: OwnPod) -> None:
    server.pods |= {name: pod(name, "1Gi", killed()) for name in ("before", "other-step", "other-run")}
    server.pods["other-step"]["metadata"]["labels"]["tidewheel/step"] = "distill"
    server.pods["other-run"]["metadata"]["labels"]["pipeline/runid"] = "run-2"

    assert [each["metadata"]["name"] for each in earlier_tries(own)] == ["before"]


def test_a_pod_gets_what_it_asks_for(server: ApiServer, own: OwnPod) -> None:
    assert resize(own, 2048 * MIB, clock=ticking()) is None
    assert server.resizes == ["2048Mi"]


@pytest.mark.parametrize(
    ("status", "message", "is_for_now"),
    [
        (404, "the server could not find the requested resource", False),
        (403, "exceeded quota: runs", False),
        (422, "Pod is not valid", False),
        (409, "the object has been modified", True),
        (500, "etcd is slow", True),
    ],
)
def test_a_refusal_says_what_the_cluster_said(
    server: ApiServer, own: OwnPod, status: int, message: str, is_for_now: bool
) -> None:
    server.refuses = (status, message)
    refusal = resize(own, 2048 * MIB, clock=ticking())

    assert refusal is not None
    assert f"{status}" in refusal.words
    assert message in refusal.words
    assert refusal.is_for_now is is_for_now


def test_what_no_node_like_this_has_is_not_waited_for(server: ApiServer, own: OwnPod) -> None:
    server.kubelet = {"reason": "Infeasible", "message": "Node didn't have enough capacity"}
    waited: list[float] = []
    refusal = resize(own, 2048 * MIB, waited.append, ticking())

    assert refusal is not None
    assert refusal.words == "Infeasible: Node didn't have enough capacity"
    assert waited == []


def test_what_others_on_the_node_use_is_waited_for_a_minute(server: ApiServer, own: OwnPod) -> None:
    server.kubelet = {"reason": "Deferred", "message": "Node didn't have enough resource"}
    waited: list[float] = []
    refusal = resize(own, 2048 * MIB, waited.append, ticking())

    assert refusal is not None
    assert refusal.is_for_now
    assert refusal.words.startswith("Deferred")
    assert len(waited) == 59


def test_a_pod_that_came_through_a_queue_is_left_alone(server: ApiServer, own: OwnPod) -> None:
    own.manifest["metadata"]["labels"]["kueue.x-k8s.io/managed"] = "true"  # Kueue deletes what it finds changed
    refusal = resize(own, 2048 * MIB, clock=ticking())

    assert refusal is not None
    assert (refusal.words, refusal.is_for_now) == ("Kueue let it in with what it has, and would delete it", False)
    assert server.resizes == []
