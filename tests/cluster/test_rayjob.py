"""`train` in a pod whose workers are a RayJob's: it trains, whoever is killed, and leaves nothing behind."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.gpu_pool import gpu_pool
from tests.cluster.kubectl import eventually, get, kubectl, require_cluster
from tests.cluster.train_pod import IMAGE, VOLUME, Place, has_kuberay, on_every_node, place, queue
from tests.unit.training.networks import SMALL_NETWORK
from tidewheel.contracts.learning import OptimizerConfig, TrainConfig
from tidewheel.contracts.placement import Placed, PodPlacement, StepPlacement
from tidewheel.contracts.recipe import Recipe
from tidewheel.contracts.report import StepFailure
from tidewheel.pods.sweep import sweep
from tidewheel.ranker.bundle import MODELS, NETWORK, WEIGHTS
from tidewheel.ranker.model import load_ranker
from tidewheel.steps.records import record_of
from tidewheel.training.checkpoint import KIND
from tidewheel.training.train import train

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(1800)]

PLACED = Placed(
    step=StepPlacement(memory="1Gi", timeout_seconds=1200), workers=PodPlacement(cpu="100m", memory="1536Mi", shm="256Mi")
)
TRAIN = TrainConfig(
    engine="ray",
    num_workers=2,
    network=SMALL_NETWORK,
    optimizer=OptimizerConfig(epochs=2, batch_size=256, learning_rate=0.001),
    checkpoint_every_steps=20,
)
STEPS_AN_EPOCH = 8  # of 2,000 rows
LONG = 200  # epochs: enough to kill somebody meanwhile


HEAD_ALONE = {
    "headGroupSpec": {"rayStartParams": {}, "template": {"spec": {"containers": [{"name": "ray-head", "image": IMAGE}]}}}
}


def trained(recipe: Recipe, epochs: int) -> Recipe:
    """No two tests train for as many epochs: one would reuse what another made."""
    config = TRAIN.model_copy(update={"optimizer": TRAIN.optimizer.model_copy(update={"epochs": epochs})})
    return recipe.model_copy(update={"train": config})


@pytest.fixture(scope="module")
def anywhere(tiny_run, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    require_cluster()
    name = f"ray-{os.getpid()}-{time.monotonic_ns() % 1_000_000}"
    with place(name, tiny_run.recipe, tiny_run.train_dir, tmp_path_factory.mktemp("place")) as found:
        yield found


@pytest.fixture
def here(anywhere: Place) -> Place:
    if not has_kuberay():
        pytest.skip("the cluster has no KubeRay")
    return anywhere


@pytest.fixture(scope="module")
def pool() -> Iterator[tuple[str, str]]:
    with gpu_pool() as found:
        yield found


def begin(here: Place, name: str, run_id: str, recipe: Recipe, placed: Placed = PLACED, claim: str = VOLUME) -> None:
    here.start(name, run_id, recipe, placed, claim)

    def phase() -> str:
        status = get(here.namespace, f"pod/{name}")["status"]
        waiting = [each["state"].get("waiting", {}).get("reason", "") for each in status.get("containerStatuses", ())]
        return next((reason for reason in waiting if "Image" in reason), status["phase"])

    if "Image" in eventually(phase, lambda seen: seen != "Pending", 120):
        pytest.skip(f"the cluster has no image {IMAGE}")


def wait_for_a_checkpoint(here: Place, count: int = 1) -> None:
    assert eventually(lambda: here.store.folders(KIND), lambda seen: len(seen) >= count, 600)


def test_without_kuberay_the_step_says_what_to_install(anywhere: Place, tiny_run) -> None:
    if has_kuberay():
        pytest.skip("the cluster has KubeRay")
    begin(anywhere, "nowhere", "run-nowhere", trained(tiny_run.recipe, 6))

    assert anywhere.ends("nowhere", 60) == "Failed"
    failure = failure_of(anywhere, "run-nowhere")
    assert failure.kind == "ConfigError"
    assert "the cluster has no rayjobs.ray.io, so KubeRay is not installed; install the version in" in failure.message


def test_a_rayjob_trains_what_one_process_trains(here: Place, tiny_run, tmp_path: Path) -> None:
    recipe, others = trained(tiny_run.recipe, 2), set(here.store.folders(MODELS))
    begin(here, "whole", "run-whole", recipe)
    (job,) = eventually(lambda: here.rayjobs("run-whole"), lambda seen: len(seen) == 1, 120)
    pods = eventually(lambda: here.pods("run-whole"), lambda seen: len(seen) == 3, 120)
    (cluster,) = get(here.namespace, "rayclusters", "--selector=tidewheel/run-id=run-whole")["items"]

    assert here.ends("whole") == "Succeeded"

    step = get(here.namespace, "pod/whole")
    assert [(each["kind"], each["uid"]) for each in job["metadata"]["ownerReferences"]] == [("Pod", step["metadata"]["uid"])]
    for each in (job, cluster, *pods):
        labels = each["metadata"]["labels"]
        assert (labels["tidewheel/step"], labels["tidewheel/recipe"]) == ("train", "quickstart")
        assert labels["app.kubernetes.io/part-of"] == "tidewheel"
    limits = sorted(pod["spec"]["containers"][0]["resources"]["limits"]["memory"] for pod in pods)
    assert limits == ["1536Mi", "1536Mi", "3Gi"]
    assert here.left("run-whole") == []

    alone = tmp_path / "alone"
    alone.mkdir()
    in_process = recipe.train.model_copy(update={"engine": "in_process"})
    train(tiny_run.train_dir, recipe.features, recipe.labels, in_process, None, alone)
    (made,) = set(here.store.folders(MODELS)) - others
    together = here.store.fetch(MODELS, made)
    one, other = (load_ranker(folder / WEIGHTS, folder / NETWORK) for folder in (together, alone))
    for name, value in one.state_dict().items():
        assert (value - other.state_dict()[name]).abs().max() <= 0.01, name


@pytest.mark.parametrize(("victim", "epochs"), [("worker", LONG), ("head", LONG + 4)])
def test_whoever_of_ray_is_killed_training_goes_on(here: Place, tiny_run, victim: str, epochs: int) -> None:
    run_id = f"run-{victim}"
    begin(here, victim, run_id, trained(tiny_run.recipe, epochs))
    wait_for_a_checkpoint(here)
    before = {pod["metadata"]["uid"] for pod in here.pods(run_id, victim)}
    name = here.pods(run_id, victim)[0]["metadata"]["name"]
    kubectl("--namespace", here.namespace, "delete", f"pod/{name}", "--grace-period=0", "--force")
    assert eventually(
        lambda: {pod["metadata"]["uid"] for pod in here.pods(run_id, victim)} - before, lambda seen: len(seen) > 0, 120
    )

    assert here.ends(victim) == "Succeeded"

    report = here.training(run_id)
    assert report.resumed_at >= TRAIN.checkpoint_every_steps
    assert report.resumed_at + report.steps == epochs * STEPS_AN_EPOCH
    assert here.left(run_id) == []


def test_a_step_that_was_killed_finds_its_rayjob_again(here: Place, tiny_run) -> None:
    recipe = trained(tiny_run.recipe, LONG + 1)
    begin(here, "first-try", "run-again", recipe)
    wait_for_a_checkpoint(here)
    (job,) = here.rayjobs("run-again")
    pods = {pod["metadata"]["uid"] for pod in here.pods("run-again")}
    here.kill("first-try", signal.SIGKILL)
    assert here.ends("first-try") == "Failed"

    begin(here, "second-try", "run-again", recipe)
    uid = get(here.namespace, "pod/second-try")["metadata"]["uid"]

    def owners() -> list[tuple[str, str]]:
        return [
            (each["metadata"]["uid"], owner["uid"])
            for each in here.rayjobs("run-again")
            for owner in each["metadata"]["ownerReferences"]
        ]

    assert eventually(owners, lambda seen: seen == [(job["metadata"]["uid"], uid)], 60) == [(job["metadata"]["uid"], uid)]
    kubectl("--namespace", here.namespace, "delete", "pod/first-try", "--now")  # what it no longer owns stays
    assert {pod["metadata"]["uid"] for pod in here.pods("run-again")} == pods
    assert here.ends("second-try") == "Succeeded"
    assert here.training("run-again").resumed_at == 0  # nobody stopped it
    assert here.left("run-again") == []


def test_a_step_that_is_told_to_stop_takes_its_rayjob_along(here: Place, tiny_run) -> None:
    begin(here, "stopped", "run-stopped", trained(tiny_run.recipe, LONG + 2))
    eventually(lambda: here.pods("run-stopped"), lambda seen: len(seen) == 3, 120)
    here.kill("stopped", signal.SIGTERM)

    assert here.ends("stopped") == "Failed"
    assert here.left("run-stopped") == []
    record = record_of(here.store, "run-stopped", "train")
    assert record is not None
    assert record.status == "interrupted"


def test_a_step_that_is_deleted_for_good_leaves_nothing(here: Place, tiny_run) -> None:
    begin(here, "deleted", "run-deleted", trained(tiny_run.recipe, LONG + 3))
    eventually(lambda: here.pods("run-deleted"), lambda seen: len(seen) == 3, 120)

    kubectl("--namespace", here.namespace, "delete", "pod/deleted", "--grace-period=0", "--force")

    assert here.left("run-deleted") == []


def test_workers_with_gpus_land_on_their_pool_and_nobody_else_does(here: Place, tiny_run, pool: tuple[str, str]) -> None:
    name, node = pool
    placed = PLACED.model_copy(update={"workers": PodPlacement(cpu="100m", memory="1536Mi", gpus=1, pool=name)})

    def found() -> list[tuple[str, str, str]]:
        return sorted(
            (
                pod["metadata"]["labels"]["ray.io/node-type"],
                "the pool" if pod["spec"].get("nodeName") == node else pod["spec"].get("nodeName", ""),
                pod["spec"]["containers"][0]["resources"]["limits"].get("nvidia.com/gpu", "0"),
            )
            for pod in here.pods("run-gpus")
        )

    with on_every_node(here.namespace) as claim:
        begin(here, "with-gpus", "run-gpus", trained(tiny_run.recipe, LONG + 5), placed, claim)
        step_node = get(here.namespace, "pod/with-gpus")["spec"]["nodeName"]
        want = [("head", step_node, "0"), ("worker", "the pool", "1"), ("worker", "the pool", "1")]
        assert eventually(found, lambda seen: seen == want, 180) == want

        kubectl("--namespace", here.namespace, "delete", "pod/with-gpus", "--grace-period=0", "--force")

        assert here.left("run-gpus") == []


def test_workers_that_no_quota_ever_admits_end_the_step_with_one_error(here: Place, tiny_run) -> None:
    placed = PLACED.model_copy(update={"workers": PodPlacement(cpu="200m", memory="900Gi")})
    begin(here, "greedy", "run-greedy", trained(tiny_run.recipe, 3), placed)

    assert here.ends("greedy", 120) == "Failed"
    failure = failure_of(here, "run-greedy")
    assert failure.kind == "ConfigError"
    assert "exceeded quota: runs" in failure.message
    assert "it never fits; ask for less in placement.workers, or raise the quota" in failure.message
    assert here.left("run-greedy") == []


def require_kueue() -> None:
    if "localqueues.kueue.x-k8s.io" not in kubectl("api-resources", "--api-group=kueue.x-k8s.io", "--output=name"):
        pytest.skip("the cluster has no Kueue")


def test_a_rayjob_waits_in_the_queue_of_its_step_and_its_pods_in_none(here: Place, tiny_run) -> None:
    require_kueue()
    with queue(here.namespace, "4", "8Gi") as name:
        placed = PLACED.model_copy(update={"step": PLACED.step.model_copy(update={"queue": name})})
        begin(here, "queued", "run-queued", trained(tiny_run.recipe, 4), placed)
        pods = eventually(lambda: here.pods("run-queued"), lambda seen: len(seen) == 3, 120)

        assert here.ends("queued") == "Succeeded"

        assert [pod for pod in pods if "kueue.x-k8s.io/queue-name" in pod["metadata"]["labels"]] == []
        assert here.left("run-queued") == []


def test_a_queue_that_is_too_small_for_ever_ends_the_step_with_one_error(here: Place, tiny_run) -> None:
    require_kueue()
    with queue(here.namespace, "4", "1Gi") as name:
        placed = PLACED.model_copy(update={"step": PLACED.step.model_copy(update={"queue": name})})
        begin(here, "unqueued", "run-unqueued", trained(tiny_run.recipe, 5), placed)

        assert here.ends("unqueued", 180) == "Failed"

        failure = failure_of(here, "run-unqueued")
        assert failure.kind == "ConfigError"
        assert f"queue {name} never admits it" in failure.message
        assert "raise its quota" in failure.message
        assert here.left("run-unqueued") == []


def failure_of(here: Place, run_id: str) -> StepFailure:
    record = record_of(here.store, run_id, "train")
    assert record is not None
    assert record.failure is not None
    return record.failure


def test_conclude_removes_what_a_run_left_and_nothing_else(here: Place) -> None:
    labels = {"tidewheel/run-id": "run-left"}
    body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "left", "labels": labels}}
    service = {"apiVersion": "v1", "kind": "Service", "metadata": body["metadata"], "spec": {"ports": [{"port": 80}]}}
    job = {
        "apiVersion": "ray.io/v1",
        "kind": "RayJob",
        "metadata": body["metadata"],
        "spec": {"suspend": True, "shutdownAfterJobFinishes": True, "rayClusterSpec": HEAD_ALONE},
    }
    other = body | {"metadata": {"name": "other", "labels": {"tidewheel/run-id": "run-other"}}}
    for wanted in (body, service, job, other):
        kubectl("--namespace", here.namespace, "create", "--filename=-", text=json.dumps(wanted))

    said = sweep({"TIDEWHEEL_NAMESPACE": here.namespace}, "run-left")

    assert said == "removed what was left: rayjob left, service left, configmap left"
    assert here.left("run-left") == []
    assert sweep({"TIDEWHEEL_NAMESPACE": here.namespace}, "run-left") == ""
    assert get(here.namespace, "configmap/other")
