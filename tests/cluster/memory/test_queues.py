"""The memory ladder behind a queue of Kueue: the work goes on in a second pod, which asks the queue for the rung."""

from collections.abc import Iterator
from typing import Any

import pytest

from tests.cluster.kubectl import eventually, kubectl
from tests.cluster.memory.ladder import ASKED, MIB, SECOND, Shelf, allow, tried, try_once
from tests.cluster.queues import QUEUE, queue_of, second_pods
from tidewheel.contracts.placement import Placement

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(1800)]


@pytest.fixture
def queue(namespace: str, request: pytest.FixtureRequest) -> Iterator[str]:
    with queue_of(namespace, request.param) as name:
        yield name


QUEUED = Placement(train=ASKED.train.model_copy(update={"queue": QUEUE}))


def queued(namespace: str, shelf: Shelf, run_id: str, *work: str, **more: Any) -> tuple[str, str]:
    return tried(namespace, shelf, run_id, *work, asked=QUEUED, labels=QUEUED.train.queue_labels, **more)


@pytest.fixture
def second(namespace: str) -> None:
    """The account of a whole run may make pods."""
    allow(namespace, "second-test", "climber", SECOND)


@pytest.mark.usefixtures("second")
@pytest.mark.parametrize("queue", ["160Mi"], indirect=True)
def test_a_queue_without_room_beside_the_step_is_named(namespace: str, shelf: Shelf, queue: str) -> None:
    first = queued(namespace, shelf, "full", "hold", "200")
    second = queued(namespace, shelf, "full", "hold", "200")

    assert (first[0], second[0]) == ("OOMKilled", "Error")
    words = f"it may not have more than 0Mi: quota of queue {queue} (ClusterQueue {namespace}), less the 160Mi of this pod"
    assert words in second[1]


@pytest.mark.usefixtures("second", "queue")
@pytest.mark.parametrize("queue", ["1Gi"], indirect=True)
def test_a_step_in_a_queue_climbs_in_a_second_pod_of_the_queue_and_the_next_run_starts_there(
    namespace: str, shelf: Shelf
) -> None:
    first = queued(namespace, shelf, "one", "hold", "200")
    second = queued(namespace, shelf, "one", "hold", "200")
    (pod,) = second_pods(namespace)
    third = queued(namespace, shelf, "two", "hold", "200")

    assert (first[0], second[0], third[0]) == ("OOMKilled", "Completed", "Completed")
    assert "320Mi in a second pod; Kueue let this one in with what it has" in second[1]
    assert "hold handed over" in second[1], "its inputs went there, and its outputs came back"
    assert pod["status"]["phase"] == "Succeeded"
    assert pod["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == QUEUE
    assert pod["metadata"]["labels"]["kueue.x-k8s.io/managed"] == "true"
    (container,) = pod["spec"]["containers"]
    assert container["resources"]["limits"] == {"memory": "320Mi"}
    assert shelf.learned is not None
    assert (shelf.learned.rung_bytes, shelf.learned.killed_bytes) == (320 * MIB, 160 * MIB)
    for run_id in ("one", "two"):
        record = shelf.record(run_id)
        assert (record.status, record.memory_bytes) == ("succeeded", 320 * MIB)
        assert 200 * MIB < (record.peak_memory_bytes or 0) < 320 * MIB


@pytest.mark.usefixtures("second", "queue")
@pytest.mark.parametrize("queue", ["1Gi"], indirect=True)
def test_a_second_pod_that_is_killed_is_a_rung_too_and_one_that_fails_says_why(namespace: str, shelf: Shelf) -> None:
    said = [queued(namespace, shelf, "top", "hold", "400") for _ in range(3)]
    failed = queued(namespace, shelf, "bad", "fail", "0")

    assert [why for why, _ in said] == ["OOMKilled", "Error", "Completed"]
    assert "320Mi of memory was not enough; the next try gives more" in said[1][1]
    assert shelf.record("top").memory_bytes == 640 * MIB
    assert failed[0] == "Error"
    assert "ContractError: the data is not what it should be" in failed[1]


@pytest.mark.usefixtures("second", "queue")
@pytest.mark.parametrize("queue", ["1Gi"], indirect=True)
def test_the_second_pod_goes_with_the_first(namespace: str, shelf: Shelf) -> None:
    shelf.teach(rung=320, killed=160)
    asked = {"asked": QUEUED, "labels": QUEUED.train.queue_labels}
    deleted = try_once(namespace, shelf, "deleted", ("wait", "0"), **asked)
    eventually(lambda: second_pods(namespace), lambda found: bool(found and found[0]["status"]["phase"] == "Running"), 120)
    kubectl("--namespace", namespace, "delete", "pod", deleted)
    assert eventually(lambda: second_pods(namespace), lambda found: not found, 60) == []


@pytest.mark.usefixtures("queue")
@pytest.mark.parametrize("queue", ["1Gi"], indirect=True)
def test_an_account_that_may_make_no_pods_says_so(namespace: str, shelf: Shelf) -> None:
    kubectl("--namespace", namespace, "delete", "rolebinding", "second-test", "--ignore-not-found")
    said = [queued(namespace, shelf, "poor", "hold", "200") for _ in range(2)]

    assert [why for why, _ in said] == ["OOMKilled", "Error"]
    assert "this account may not create, delete, deletecollection pods; expected the rights of manifests/runs" in said[1][1]
