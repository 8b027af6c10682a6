from __future__ import annotations

from typing import Any

import pytest

from tidewheel.pods.fates import fate_of, never_starts


def pod(name: str = "exec-1", **status: Any) -> dict[str, Any]:
    return {"metadata": {"name": name}, "status": status}


def ended(reason: str, code: int, message: str = "") -> dict[str, Any]:
    state = {"terminated": {"reason": reason, "exitCode": code, "message": message}}
    return pod(phase="Failed", containerStatuses=[{"name": "executor", "state": state}])


def waiting(reason: str, message: str = "") -> dict[str, Any]:
    return pod(containerStatuses=[{"name": "executor", "state": {"waiting": {"reason": reason, "message": message}}}])


@pytest.mark.parametrize(
    ("found", "is_out_of_memory"),
    [
        (ended("OOMKilled", 137), True),
        (ended("Error", 52), True),  # Spark's own code of a full heap
        (ended("Error", 137), False),  # killed, by whomever
        (ended("Completed", 0), False),
    ],
)
def test_too_little_memory_is_told_from_other_ends(found: dict[str, Any], is_out_of_memory: bool) -> None:
    fate = fate_of(found)

    assert fate is not None
    assert fate.is_out_of_memory == is_out_of_memory


def test_an_end_says_its_pod_reason_code_and_last_words() -> None:
    assert str(fate_of(ended("Error", 1, "started\nno java\n"))) == "exec-1: Error, exit code 1 (no java)"
    assert str(fate_of(pod(phase="Failed", reason="Evicted", message="disk"))) == "exec-1: Evicted (disk)"


def test_a_pod_that_runs_or_waits_has_no_end() -> None:
    assert fate_of(pod(phase="Running", containerStatuses=[{"state": {"running": {}}}])) is None
    assert fate_of(waiting("ContainerCreating")) is None
    assert fate_of({"metadata": {"name": "new"}}) is None


@pytest.mark.parametrize(
    ("reason", "waited", "never"),
    [
        ("InvalidImageName", 0.0, True),
        ("CreateContainerConfigError", 0.0, True),
        ("ImagePullBackOff", 10.0, False),
        ("ImagePullBackOff", 50.0, True),
        ("ContainerCreating", 10_000.0, False),
    ],
)
def test_what_never_starts_is_said_at_once_and_what_may_is_waited_for(reason: str, waited: float, never: bool) -> None:
    found = never_starts([pod(phase="Running"), waiting(reason, "why")], waited)

    assert found == (f"pod exec-1: {reason}: why" if never else None)
