"""A run's pods as an API server tells of them, looked at while a clock runs that only the test moves."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.cluster.well import several
from tidewheel.cluster.api import Answer, RememberedApi, Unseen, Why
from tidewheel.cluster.backend import RunState
from tidewheel.cluster.finding import Finding
from tidewheel.cluster.following import follow
from tidewheel.cluster.reach import Reach
from tidewheel.cluster.starting import Starting, looking_at
from tidewheel.errors import TidewheelError

OF_RUN = "labelSelector=pipeline%2Frunid%3Drun-1"
AT_WORK = "fieldSelector=status.phase%21%3DSucceeded%2Cstatus.phase%21%3DFailed&limit=500"
PODS = f"/api/v1/pods?{OF_RUN}&{AT_WORK}"
PODS_OF_RUNS = f"/api/v1/namespaces/runs/pods?{OF_RUN}&{AT_WORK}"
PODS_OF_BACKEND = f"/api/v1/namespaces/kubeflow/pods?{OF_RUN}&{AT_WORK}"
EVENTS = "/api/v1/namespaces/runs/events?fieldSelector=involvedObject.kind%3DPod%2CinvolvedObject.name%3Dtrain&limit=500"
WORKFLOWS = f"/apis/argoproj.io/v1alpha1/workflows?{OF_RUN}&limit=500"
FORBIDDEN = Unseen(Why.FORBIDDEN, "no")


def pod(waits_for: str = "", words: str = "", **condition: str) -> dict[str, Any]:
    state = {"waiting": {"reason": waits_for, "message": words}} if waits_for else {"running": {}}
    container = {"name": "main", "image": "registry.local/nobody:1", "state": state}
    status = {"containerStatuses": [container], "conditions": [{"type": "PodScheduled", "status": "True", **condition}]}
    return {"metadata": {"name": "train", "namespace": "runs"}, "status": status}


def event(reason: str, message: str, at: str) -> dict[str, Any]:
    return {"reason": reason, "message": message, "lastTimestamp": f"2026-01-05T00:0{at}:00Z"}


class Watch:
    """`Starting` with what it said, at a time that is set by hand."""

    def __init__(self, answers: dict[str, Answer]) -> None:
        self.said: list[Finding] = []
        self.now = 0.0
        self.answers = answers
        self.within = Reach(RememberedApi(answers), ["runs", "kubeflow"])
        self.starting = Starting(self.within, "run-1", self.said.append, patience_seconds=300.0, clock=lambda: self.now)

    def until(self, seconds: float) -> list[str]:
        """Look every five seconds until then; what was said so far."""
        while self.now < seconds:
            self.starting.look()
            self.now += 5.0
        self.starting.look()
        return [finding.explain() for finding in self.said]


GONE = pod("ImagePullBackOff", 'Back-off pulling image "registry.local/nobody:1"')
UNSET = pod("CreateContainerConfigError", 'configmap "tidewheel" not found')
MAKING = pod("ContainerCreating")
NODES = {
    "a": {"id": "a", "type": "DAG", "phase": "Running"},
    "b": {
        "id": "b",
        "type": "Pod",
        "phase": "Pending",
        "displayName": "train-driver",
        "message": 'pods "train" is forbidden: exceeded quota: runs',
    },
}
NOT_MOUNTED = event("FailedMount", 'MountVolume.SetUp failed for volume "tidewheel" : configmap "tidewheel" not found', "2")


@pytest.mark.parametrize(
    ("answers", "want_object", "want_rule", "want_remedy"),
    [
        ({PODS: several(GONE)}, "pod train, container main: registry.local/nobody:1", "ImagePullBackOff", "push it"),
        ({PODS: several(UNSET)}, "pod train, container main", 'configmap "tidewheel" not found', "kubectl apply --kustomize"),
        (
            {PODS: several(MAKING), EVENTS: several(NOT_MOUNTED, event("Scheduled", "to node-1", "1"))},
            "pod train",
            'FailedMount: MountVolume.SetUp failed for volume "tidewheel" : configmap "tidewheel" not found',
            "kubectl apply --kustomize",
        ),
    ],
    ids=["image", "configuration", "volume"],
)
def test_what_does_not_mend_itself_is_said_once_and_given_up_after_its_time(
    answers: dict[str, Answer], want_object: str, want_rule: str, want_remedy: str
) -> None:
    watch = Watch(answers)

    (said,) = watch.until(290)

    for want in (want_object, want_rule, want_remedy):
        assert want in said
    with pytest.raises(
        TidewheelError, match=r"^run run-1: pod train.*waited for 300 s; the run goes on in the cluster"
    ) as raised:
        watch.until(305)
    assert raised.value.exit_code == 1
    assert len(watch.said) == 1


@pytest.mark.parametrize(
    ("answers", "want"),
    [
        (
            {PODS: several(pod(status="False", reason="Unschedulable", message="0/1 nodes: 1 Insufficient nvidia.com/gpu"))},
            "pod train is not scheduled: 0/1 nodes: 1 Insufficient nvidia.com/gpu; expected a node that takes it",
        ),
        (
            {PODS: several(pod(status="False", reason="SchedulingGated", message="Scheduling is blocked due to gates"))},
            "pod train is not scheduled: Scheduling is blocked",
        ),
        (
            {
                PODS: several(MAKING),
                EVENTS: several(event("FailedAttachVolume", "AttachVolume.Attach failed: timed out", "2")),
            },
            "pod train: FailedAttachVolume: AttachVolume.Attach failed: timed out",
        ),
        (
            {
                PODS: several(),
                WORKFLOWS: several({"status": {"nodes": NODES}}),
            },
            'the pod of train-driver is not made: pods "train" is forbidden: exceeded quota: runs',
        ),
    ],
    ids=["node", "queue", "slow volume", "quota"],
)
def test_what_may_come_by_itself_is_said_once_and_waited_for(answers: dict[str, Answer], want: str) -> None:
    (said,) = Watch(answers).until(86_400)

    assert said.startswith(want)


@pytest.mark.parametrize(
    "answers",
    [
        {PODS: several(pod())},
        {PODS: several(MAKING), EVENTS: several(event("Scheduled", "to node-1", "3"), NOT_MOUNTED)},
        {PODS: several(MAKING)},
        {PODS: several()},
    ],
    ids=["at work", "mended", "being made", "none"],
)
def test_nothing_is_said_of_pods_that_start(answers: dict[str, Answer]) -> None:
    assert Watch(answers).until(600) == []


def test_what_was_mended_in_time_is_not_counted_when_it_breaks_again() -> None:
    watch = Watch({PODS: several(GONE)})
    watch.until(250)
    watch.answers[PODS] = several(pod())
    watch.until(280)
    watch.answers[PODS] = several(GONE)

    assert len(watch.until(560)) == 1


def test_an_account_of_one_namespace_is_asked_about_that_one() -> None:
    watch = Watch({PODS: FORBIDDEN, PODS_OF_RUNS: several(GONE), PODS_OF_BACKEND: FORBIDDEN})

    assert len(watch.until(30)) == 1


@pytest.mark.parametrize("why", list(Why))
def test_a_cluster_that_cannot_be_seen_neither_says_nor_ends_anything(why: Why) -> None:
    unseen = Unseen(why, "not to be seen")

    assert Watch({PODS: unseen, PODS_OF_RUNS: unseen, PODS_OF_BACKEND: unseen}).until(3600) == []


def test_pods_are_not_looked_at_more_often_than_every_quarter_of_a_minute() -> None:
    asked: list[str] = []

    class Counted(RememberedApi):
        def ask(self, path: str, body: Any = None) -> Answer:
            asked.append(path)
            return super().ask(path, body)

    watch = Watch({})
    watch.within.api = Counted({PODS: several(pod())})
    watch.until(55)

    assert len(asked) == 4


def test_the_wait_for_a_run_ends_by_what_a_look_says() -> None:
    watch = Watch({PODS: several(GONE)})

    def pause(seconds: float) -> None:
        watch.now += seconds

    with pytest.raises(TidewheelError, match="waited for"):
        follow(lambda: RunState("run-1", "RUNNING", ()), lambda task: None, watch.starting.look, pause=pause)


def test_without_a_kubeconfig_there_is_nothing_to_look_at(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    said: list[Finding] = []

    looking_at("run-1", said.append, 0.0)()

    assert said == []
