"""What the API says of a Rollout or Deployment, and the change that puts a bundle into it."""

from __future__ import annotations

from typing import Any

import pytest
from kubernetes.client import ApiException

from tidewheel.errors import ConfigError, RetryableError, TidewheelError
from tidewheel.rollout.workload import BUNDLE_VARIABLE, CANARY_ANNOTATION, UNRELEASED_LABEL, _explained, change_of, standing_of

OLD, NEW = "a" * 64, "b" * 64
WHERE = "rollout feed in namespace serving"


def rollout(bundle: str = OLD, paused: bool = False, **status: Any) -> dict[str, Any]:
    """A Rollout with two steps; healthy on `bundle` unless `status` says otherwise."""
    said = {
        "observedGeneration": "7",
        "phase": "Healthy",
        "stableRS": "11",
        "currentPodHash": "11",
        "currentStepIndex": 4,
    } | status
    env = [{"name": BUNDLE_VARIABLE, "value": bundle}, {"name": "TIDEWHEEL_STORE", "value": "/store"}]
    return {
        "kind": "Rollout",
        "metadata": {"generation": 7, "resourceVersion": "90", "annotations": {CANARY_ANNOTATION: "feed/1"}},
        "spec": {
            "paused": paused,
            "template": {"spec": {"containers": [{"name": "side"}, {"name": "server", "image": "x", "env": env}]}},
            "strategy": {"canary": {"steps": [{"setWeight": 10}, {"analysis": {}}, {"setWeight": 50}, {"analysis": {}}]}},
        },
        "status": said,
    }


def deployment(**status: Any) -> dict[str, Any]:
    live = rollout()
    counts = {"updatedReplicas": 2, "availableReplicas": 2, "replicas": 2}
    live |= {"kind": "Deployment", "status": {"observedGeneration": 7} | counts | status}
    live["spec"]["replicas"] = 2
    return live


def test_a_healthy_rollout_has_settled() -> None:
    said = standing_of(rollout(), WHERE)
    assert (said.bundle, said.canary, said.revision) == (OLD, "feed/1", "11")
    assert said.is_settled
    assert not said.is_aborted
    assert said.shares == (0.1, 0.5)


def test_a_rollout_in_its_steps_has_not_settled_and_says_which() -> None:
    said = standing_of(rollout(NEW, phase="Progressing", currentPodHash="12", currentStepIndex=3, message="waiting"), WHERE)
    assert not said.is_settled
    assert said.words == "Progressing, step 2 of 2: waiting"
    assert said.revision == "12"
    assert said.has_steps
    skipped = standing_of(rollout(NEW, phase="Progressing", currentPodHash="12", promoteFull=True), WHERE)
    assert not skipped.has_steps


def test_an_aborted_rollout_has_settled_on_the_pods_before() -> None:
    said = standing_of(rollout(NEW, phase="Degraded", currentPodHash="12", abort=True, message="RolloutAborted"), WHERE)
    assert said.is_settled
    assert said.is_aborted


@pytest.mark.parametrize(
    "status",
    [
        {"observedGeneration": "6"},
        {"observedGeneration": ""},
        {"phase": "Progressing"},
        {"currentPodHash": "12"},
        {"phase": ""},
    ],
    ids=lambda status: str(status),
)
def test_what_was_not_seen_or_is_under_way_has_not_settled(status: dict[str, str]) -> None:
    assert not standing_of(rollout(**status), WHERE).is_settled


def test_an_abort_that_was_seen_before_the_newest_change_says_nothing_about_it() -> None:
    assert not standing_of(rollout(abort=True, observedGeneration="6"), WHERE).is_settled


@pytest.mark.parametrize(
    ("status", "is_settled"),
    [
        ({}, True),
        ({"observedGeneration": 6}, False),
        ({"updatedReplicas": 1}, False),
        ({"availableReplicas": 1}, False),
        ({"replicas": 3}, False),
    ],
    ids=["healthy", "unseen", "old pods", "not available", "old pods leave"],
)
def test_a_deployment_has_settled_when_all_its_pods_are_new(status: dict[str, int], is_settled: bool) -> None:
    assert standing_of(deployment(**status), WHERE).is_settled is is_settled


def test_a_deployment_past_its_deadline_is_aborted() -> None:
    late = [{"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded"}]
    said = standing_of(deployment(updatedReplicas=1, conditions=late), WHERE)
    assert said.is_settled
    assert said.is_aborted


def test_a_change_keeps_everything_else_and_names_the_version_that_it_changes() -> None:
    live = rollout(paused=True)
    change = change_of(live, WHERE, NEW, {CANARY_ANNOTATION: "feed/2"})
    assert change is not None
    assert change["metadata"] == {"resourceVersion": "90", "annotations": {CANARY_ANNOTATION: "feed/2"}, "labels": {}}
    assert change["spec"]["paused"] is False
    side, server = change["spec"]["template"]["spec"]["containers"]
    assert side == {"name": "side"}
    assert server["image"] == "x"
    assert [each["value"] for each in server["env"]] == [NEW, "/store"]
    assert live == rollout(paused=True)  # what was read is left alone


def test_the_first_bundle_takes_the_label_away_that_keeps_the_controller_out() -> None:
    live = rollout("", paused=True)
    live["metadata"]["labels"] = {UNRELEASED_LABEL: "unreleased", "tidewheel/recipe": "feed"}
    change = change_of(live, WHERE, NEW, {})
    assert change is not None
    assert change["metadata"]["labels"] == {UNRELEASED_LABEL: None}  # a merge patch removes what is null


def test_nothing_is_changed_twice() -> None:
    assert change_of(rollout(), WHERE, OLD, {CANARY_ANNOTATION: "feed/1"}) is None
    assert change_of(rollout(), WHERE, OLD, {}) is None
    assert change_of(rollout(), WHERE, OLD, {CANARY_ANNOTATION: "feed/2"}) is not None
    assert change_of(rollout(paused=True), WHERE, OLD, {}) is not None


def test_a_workload_of_somebody_else_is_refused() -> None:
    live = rollout()
    live["spec"]["template"]["spec"]["containers"].pop()
    for look in (lambda: standing_of(live, WHERE), lambda: change_of(live, WHERE, NEW, {})):
        with pytest.raises(ConfigError, match="no container server"):
            look()


@pytest.mark.parametrize(
    ("status", "kind", "words"),
    [
        (404, ConfigError, "is not there; install the chart"),
        (403, ConfigError, "may not patch it"),
        (401, ConfigError, "credentials"),
        (422, ConfigError, "refused"),
        (409, RetryableError, "conflict"),
        (429, RetryableError, "conflict"),
        (503, RetryableError, "503"),
    ],
)
def test_an_answer_of_the_api_is_one_clear_error(status: int, kind: type[TidewheelError], words: str) -> None:
    error = _explained(ApiException(status=status, reason="conflict"), WHERE, "patch_namespaced_custom_object")
    assert type(error) is kind
    assert words in str(error)
    assert str(error).startswith(WHERE)
