"""Runs whose pods are killed at random: each ends in a correct state, nothing is orphaned, ledger and aliases agree.

`TIDEWHEEL_KILL_RUNS` (default 1) runs, each with `TIDEWHEEL_KILLS` (default 5) kills; `TIDEWHEEL_KILL_SEED` (default 1)
decides what and when. Every `TIDEWHEEL_KILL_RAY`th run (default 5), from the first on, trains in a RayJob.
"""

from __future__ import annotations

import json
import os
import random
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.cluster.kubectl import eventually, get, kubectl, require_cluster
from tests.cluster.wheel import RUNS, Wheel, wheel
from tidewheel.cluster.checks.systems import LASTING
from tidewheel.cluster.following import ENDED
from tidewheel.cluster.kubeflow import Kubeflow
from tidewheel.errors import RetryableError

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(3 * 3600)]
RUN_COUNT, KILLS, SEED, RAY_EVERY = (
    int(os.environ.get(f"TIDEWHEEL_KILL{name}", usual)) for name, usual in (("_RUNS", 1), ("S", 5), ("_SEED", 1), ("_RAY", 5))
)
RUN_SECONDS = 1800
BETWEEN_SECONDS = (8.0, 45.0)
OF_A_RUN = ("step", "ray head", "ray worker", "executor")
RUN_WEIGHT = 3  # how much more often each of these is drawn than any other kind that runs
RAY = {"train": {"engine": "ray", "num_workers": 2}, "placement": {"workers": {"cpu": "50m", "memory": "1500Mi"}}}
CONTROLLERS = {
    "workflow-controller": (RUNS, "app=workflow-controller"),
    "rollouts controller": ("argo-rollouts", "app.kubernetes.io/name=argo-rollouts"),
    "ray operator": ("ray-system", "app.kubernetes.io/name=kuberay"),
    "kueue": ("kueue-system", "control-plane=controller-manager"),
}


RAYJOBS = "rayjobs.ray.io"
CHILDREN = (RAYJOBS, "rayclusters.ray.io", "pods", "jobs.batch", "services", "configmaps", "secrets")
TURNED = ("bootstrap", "promoted", "rejected", "rolled_back")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Wheel]:
    require_cluster()
    controller = get(RUNS, "deployment/workflow-controller")
    if missing := [each.wanted for each in LASTING if not each.is_set(controller)]:
        pytest.skip(f"workflow-controller lacks {', '.join(missing)} (docs/operations/placement.md)")
    with wheel(tmp_path_factory.mktemp("wheel")) as found:
        yield found


@dataclass
class Killer:
    """Deletes one pod at a time, of a kind drawn among those that run now; its processes get a second."""

    place: Wheel
    drawn: random.Random
    killed: list[str] = field(default_factory=list)

    def kill(self, run_id: str) -> bool:
        """False where nothing that may be killed runs."""
        alive = {kind: pods for kind, pods in self._alive(run_id).items() if pods}
        if not alive:
            return False
        kinds = sorted(alive)
        (kind,) = self.drawn.choices(kinds, [RUN_WEIGHT if kind in OF_A_RUN else 1 for kind in kinds])
        pod = self.drawn.choice(alive[kind])
        namespace, name = pod["metadata"]["namespace"], pod["metadata"]["name"]
        kubectl("--namespace", namespace, "delete", "pod", name, "--grace-period=1", "--ignore-not-found", "--wait=false")
        step = pod["metadata"].get("labels", {}).get("tidewheel/step", "")
        self.killed.append(f"{kind} {step}".strip())
        return True

    def _alive(self, run_id: str) -> dict[str, list[dict[str, Any]]]:
        kinds = {kind: _running(*where) for kind, where in CONTROLLERS.items()}
        kinds["step"] = _running(RUNS, f"pipeline/runid={run_id},tidewheel/step")
        for kind, role in (("ray head", "head"), ("ray worker", "worker")):
            kinds[kind] = _running(RUNS, f"tidewheel/run-id={run_id},ray.io/node-type={role}")
        kinds["executor"] = _running(RUNS, f"tidewheel/run-id={run_id},spark-role=executor")
        kinds["server"] = _running(self.place.serving, "app.kubernetes.io/component=server")
        return kinds


def _running(namespace: str, selector: str) -> list[dict[str, Any]]:
    arguments = ["--namespace", namespace, "get", "pods", "--selector", selector, "--field-selector=status.phase=Running"]
    pods = json.loads(kubectl(*arguments, "--output=json"))["items"]
    return sorted(pods, key=lambda pod: pod["metadata"]["name"])


def test_runs_whose_pods_are_killed_end_in_a_correct_state(place: Wheel) -> None:
    killer = Killer(place, random.Random(SEED))
    outcomes: list[str] = []
    for number in range(RUN_COUNT):
        before = len(killer.killed)
        report = _run_with_kills(place, killer, number)
        outcomes.append(report["outcome"])
        killed = ", ".join(killer.killed[before:])
        print(f"run {number}: {report['outcome']} ({report['reason'][:200]}); killed: {killed}", flush=True)
        _expect_a_correct_state(place, report)
    print(f"{len(killer.killed)} kills over {RUN_COUNT} runs, seed {SEED}: {', '.join(outcomes)}")
    assert len(killer.killed) == RUN_COUNT * KILLS


def _run_with_kills(place: Wheel, killer: Killer, number: int) -> dict[str, Any]:
    """What a run says of itself in the end. Each samples other rows, so that none finds its work done."""
    in_ray = RAY if number % RAY_EVERY == 0 and _has(RAYJOBS) else {}
    recipe = place.recipe({"sample": {"salt": number + 1}} | in_ray)
    run_id = place.submit(recipe, "2022-05-04" if number == 0 else "2022-05-05")
    backend, left, deadline = Kubeflow.from_environment(), KILLS, time.monotonic() + RUN_SECONDS
    while (state := _state(backend, run_id)) not in ENDED and time.monotonic() < deadline:
        time.sleep(killer.drawn.uniform(*BETWEEN_SECONDS))
        if left and killer.kill(run_id):
            left -= 1
    assert state in ENDED, f"run {run_id} has not ended after {RUN_SECONDS} s: {state}"
    return place.tidewheel("explain", run_id)


def _state(backend: Kubeflow, run_id: str) -> str:
    """The backend's own pods are killed too."""
    with suppress(RetryableError):
        return backend.run(run_id).state
    return "UNKNOWN"


def _expect_a_correct_state(place: Wheel, report: dict[str, Any]) -> None:
    entries = place.tidewheel("history", "--name", place.name)
    assert report["outcome"] in TURNED, report["reason"]
    assert report["production"] == entries[-1]["production"]
    assert place.tidewheel("reconcile", "--name", place.name)["repaired"] == [], "registry or state said something else"
    assert eventually(place.bundles, lambda found: found == {report["production"]}, 180) == {report["production"]}
    assert eventually(lambda: _left(report["run_id"]), lambda found: not found, 120) == []


def _left(run_id: str) -> list[str]:
    """Objects that steps of a run made, and pods of it that have not ended."""
    kinds = [kind for kind in CHILDREN if _has(kind)]
    made = kubectl(
        "--namespace", RUNS, "get", ",".join(kinds), f"--selector=tidewheel/run-id={run_id}", "--output=name"
    ).split()
    running = [
        "get",
        "pods",
        f"--selector=pipeline/runid={run_id}",
        "--field-selector=status.phase!=Succeeded,status.phase!=Failed",
    ]
    return made + kubectl("--namespace", RUNS, *running, "--output=name").split()


def _has(kind: str) -> bool:
    return kind in kubectl("api-resources", "--output=name").split()
