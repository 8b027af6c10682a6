"""What a pod waits for, and whether waiting helps."""

from __future__ import annotations

from typing import Any

import pytest

from tidewheel.pods.waiting import Waiting, waiting_for

NO_NODE = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/1 nodes are\n available"}


def container(reason: str, message: str = "") -> dict[str, Any]:
    return {"name": "main", "image": "step:1", "state": {"waiting": {"reason": reason, "message": message}}}


def pod(**status: Any) -> dict[str, Any]:
    return {"metadata": {"name": "step"}, "status": status}


@pytest.mark.parametrize(
    ("reason", "message", "want_what", "want_for_good"),
    [
        ("ErrImagePull", "failed to resolve reference step:1: not found", "image", True),
        ("ImagePullBackOff", "Back-off pulling image: 401 unauthorized", "image", True),
        ("ErrImagePull", "dial tcp: connection refused", "image", False),
        ("InvalidImageName", "", "image", True),
        ("ErrImageNeverPull", "", "image", True),
        ("CreateContainerConfigError", 'configmap "tidewheel" not found', "settings", True),
        ("ContainerCreating", "", "start", False),
        ("CrashLoopBackOff", "back-off 10s: image not found in its own words", "start", False),
    ],
)
def test_a_container_waits_for_its_image_its_settings_or_its_start(
    reason: str, message: str, want_what: str, want_for_good: bool
) -> None:
    (found,) = waiting_for(pod(containerStatuses=[container(reason, message)]))

    assert found == Waiting("step", want_what, reason, message, "main", "step:1")  # type: ignore[arg-type]
    assert found.is_for_good == want_for_good


def test_a_pod_that_no_node_takes_says_the_schedulers_words_on_one_line() -> None:
    (found,) = waiting_for(pod(conditions=[NO_NODE]))

    assert (found.what, found.words, found.is_for_good) == ("node", "Unschedulable: 0/1 nodes are available", False)


def test_containers_that_initialize_are_said_first() -> None:
    both = pod(initContainerStatuses=[container("ErrImagePull")], containerStatuses=[container("PodInitializing")])

    assert [each.reason for each in waiting_for(both)] == ["ErrImagePull", "PodInitializing"]


@pytest.mark.parametrize(
    "found",
    [
        {"metadata": {"name": "new"}},
        pod(phase="Running", containerStatuses=[{"name": "main", "state": {"running": {}}}]),
        pod(conditions=[NO_NODE | {"status": "True"}], containerStatuses=None),
    ],
)
def test_a_pod_that_runs_or_has_no_state_yet_waits_for_nothing(found: dict[str, Any]) -> None:
    assert list(waiting_for(found)) == []


def test_an_image_by_its_digest_makes_a_message_so_long_that_only_its_end_says_what_is_wrong() -> None:
    image = f"registry.example/team/tidewheel/python-trainer@sha256:{'5' * 64}"
    message = f'Back-off pulling image "{image}": failed to pull and unpack "{image}": failed to resolve "{image}": not found'
    (found,) = waiting_for(pod(containerStatuses=[container("ImagePullBackOff", message)]))

    assert len(message) > 400
    assert found.is_for_good
    assert found.words.startswith("ImagePullBackOff: Back-off pulling image")
    assert found.words.endswith(": not found")
    assert len(found.words) < 330
