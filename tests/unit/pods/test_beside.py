"""A second pod of a step, against an API server in memory."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.unit.pods.api_server import NAMESPACE, ApiServer, killed, pod, served
from tidewheel.contracts.placement import StepPlacement
from tidewheel.errors import ConfigError, RetryableError
from tidewheel.pods.api import LOOK_SECONDS, PATIENCE_SECONDS
from tidewheel.pods.beside import START_SECONDS, is_beside, pod_of, run_beside, words_of
from tidewheel.pods.own import OwnPod

MIB = 2**20
ASKED = StepPlacement(memory="1Gi", queue="retrain", priority="low", pool="cpu", timeout_seconds=600)
SETTINGS = {"name": "settings", "mountPath": "/etc/tidewheel/tidewheel"}
STATUS = {"name": "main", "image": "i", "imageID": "i", "ready": False, "restartCount": 0}


def own() -> OwnPod:
    manifest = pod("mine", "1Gi")
    manifest["spec"] |= {"serviceAccountName": "runner", "volumes": [{"name": "settings", "configMap": {"name": "tidewheel"}}]}
    manifest["spec"]["containers"][1] |= {
        "image": "tidewheel/python-core",
        "env": [
            {"name": "TIDEWHEEL_POD", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
            {"name": "AWS_REGION", "value": "here"},
            {"name": "ARGO_TEMPLATE", "value": "{}"},
            {"name": "KFP_POD_NAME", "value": "mine"},
        ],
        "volumeMounts": [SETTINGS, {"name": "argo", "mountPath": "/var/run/argo"}],
    }
    return OwnPod(NAMESPACE, "mine", "u1", manifest)


def wanted() -> dict[str, Any]:
    return pod_of(own(), ASKED, "run-1", 2048 * MIB, ["python", "-m", "work"])


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ApiServer]:
    made = ApiServer()
    with served(made, tmp_path) as path:
        monkeypatch.setenv("KUBECONFIG", str(path))
        yield made


class Time:
    """A clock that sleeping moves; `then` happens at the first sleep."""

    def __init__(self, then: Any = None, step: float = LOOK_SECONDS) -> None:
        self.now, self.then, self.step = 0.0, then, step

    def sleep(self, seconds: float) -> None:
        self.now += max(seconds, self.step)
        if self.then is not None:
            self.then()

    def clock(self) -> float:
        return self.now


def run(time: Time | None = None, said: list[str] | None = None) -> dict[str, Any]:
    time = time or Time()
    return run_beside(own(), wanted(), (said if said is not None else []).append, time.sleep, time.clock)


def test_it_is_the_steps_pod_with_other_memory_and_other_work() -> None:
    found = wanted()
    spec, (container,) = found["spec"], found["spec"]["containers"]

    assert container["resources"] == {"requests": {"cpu": "500m", "memory": "2048Mi"}, "limits": {"memory": "2048Mi"}}
    assert (container["image"], container["command"]) == ("tidewheel/python-core", ["python", "-m", "work"])
    assert (spec["serviceAccountName"], spec["automountServiceAccountToken"]) == ("runner", True)
    assert spec["nodeSelector"] == {"tidewheel/pool": "cpu"}
    assert spec["activeDeadlineSeconds"] == 600
    assert SETTINGS in container["volumeMounts"]
    assert [each["name"] for each in container["env"]] == ["TIDEWHEEL_POD", "AWS_REGION", "TIDEWHEEL_BESIDE"]
    labels = found["metadata"]["labels"]
    assert (labels["kueue.x-k8s.io/queue-name"], labels["kueue.x-k8s.io/priority-class"]) == ("retrain", "low")
    assert (labels["tidewheel/run-id"], labels["tidewheel/step"], labels["tidewheel/recipe"]) == ("run-1", "train", "shop")
    assert "pipeline/runid" not in labels, "it is no try of the step that others look at"
    assert found["metadata"]["ownerReferences"] == [own().owner]
    assert is_beside({each["name"]: each.get("value", "") for each in container["env"]})
    assert not is_beside({})


def test_its_end_is_waited_for(server: ApiServer) -> None:
    said: list[str] = []

    def end() -> None:
        server.pods["tidewheel-train-0"]["status"] = {"phase": "Succeeded"}

    found = run(Time(end), said)
    assert found["status"] == {"phase": "Succeeded"}
    assert said == ["goes on in pod tidewheel-train-0, beside this one"]
    assert server.removed == [], "what has ended can be looked at until the run ends"


def test_what_an_earlier_try_left_is_removed_first(server: ApiServer) -> None:
    server.starts = lambda made: {"phase": "Succeeded"}
    run()
    run()
    assert (server.made, server.removed) == (["tidewheel-train-0", "tidewheel-train-1"], ["tidewheel-train-0"])


def test_how_it_was_killed_is_seen(server: ApiServer) -> None:
    server.starts = lambda made: {"phase": "Failed", "containerStatuses": [STATUS | {"state": killed()}]}
    assert words_of(run()) == "tidewheel-train-0: OOMKilled, exit code 137"


def test_what_it_waits_for_is_said_once_and_not_for_ever(server: ApiServer) -> None:
    gated = {"type": "PodScheduled", "status": "False", "reason": "SchedulingGated", "message": "admission"}
    server.starts = lambda made: {"phase": "Pending", "conditions": [gated]}
    said: list[str] = []
    with pytest.raises(RetryableError, match=r"did not start within 30 minutes \(SchedulingGated: admission\)"):
        run(Time(step=START_SECONDS / 3), said)
    assert said[1:] == ["pod tidewheel-train-0 waits: SchedulingGated: admission"]
    assert server.removed == ["tidewheel-train-0"]


def test_an_image_that_is_not_there_ends_it(server: ApiServer) -> None:
    waits = {"waiting": {"reason": "ErrImagePull", "message": "tidewheel/python-core: not found"}}
    server.starts = lambda made: {"phase": "Pending", "containerStatuses": [STATUS | {"state": waits}]}
    with pytest.raises(ConfigError, match="ErrImagePull: tidewheel/python-core: not found"):
        run()
    assert server.removed == ["tidewheel-train-0"]


def test_one_that_somebody_removed_is_tried_again(server: ApiServer) -> None:
    with pytest.raises(RetryableError, match="removed by somebody else, or preempted"):
        run(Time(lambda: server.pods.pop("tidewheel-train-0", None)))


def test_a_step_that_is_interrupted_takes_it_along(server: ApiServer) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(Time(interrupt))
    assert server.removed == ["tidewheel-train-0"]


def test_a_cluster_that_is_away_for_a_while_stops_no_work(server: ApiServer, monkeypatch: pytest.MonkeyPatch) -> None:
    time = Time()

    def answer(path: str, selector: str) -> tuple[int, dict[str, Any]]:
        if time.now < PATIENCE_SECONDS / 2:
            return 503, {"message": "etcd starts"}
        return 200, server.pods["tidewheel-train-0"] | {"status": {"phase": "Succeeded"}}

    monkeypatch.setattr(
        server, "get", lambda path, selector: answer(path, selector) if path[-1] == "0" else (200, {"items": []})
    )
    said: list[str] = []
    assert run(time, said)["status"] == {"phase": "Succeeded"}
    assert len(said) == 2, "where it goes on, and once why it does not look"
    assert "the cluster answered 503 etcd starts" in said[1]

    monkeypatch.setattr(server, "get", lambda path, selector: (503, {}) if path[-1] == "1" else (200, {"items": []}))
    with pytest.raises(RetryableError, match="503"):
        run()


def test_an_account_that_may_make_no_pods_is_told_which_rights(server: ApiServer) -> None:
    server.denied = ("create", "delete")
    with pytest.raises(ConfigError, match="may not create, delete pods; expected the rights of manifests/runs"):
        run()
    assert server.made == []
