"""The memory ladder on a real cluster: real pods that the kernel kills, and the next try that gives itself more."""

import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

import pytest
from kfp import Client, compiler, dsl, kubernetes

from components.images import image_of
from pipelines.placement import place, placed
from tests.cluster.bucket import BUCKET, bucket
from tests.cluster.kubectl import apply, eventually, get, kubectl, new_namespace, require_cluster
from tests.cluster.queues import QUEUE, queue_of, second_pods
from tests.manifests.rights import RIGHTS, rights_of
from tidewheel.contracts.base import canonical_json
from tidewheel.contracts.memory import Learned
from tidewheel.contracts.placement import Placement, StepPlacement
from tidewheel.contracts.report import StepRecord
from tidewheel.steps.records import record_of
from tidewheel.store import Store

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(1800)]

MIB = 2**20
RECIPE = "ladder"
# What a step does here: hold so many MiB, or fill a disk, or wait to be taken away. All else is the step's own.
STEP = """
import sys, time
from pathlib import Path
from tidewheel.steps.beside import Again
from tidewheel.steps.job import Result, run_step

def main(run_id, window_end, inputs, outputs, kind, amount):
    def work(job):
        if kind == "hold":
            held = bytearray(int(amount) * 2**20)
            held[::4096] = b"x" * len(held[::4096])
            time.sleep(1)
        elif kind == "fill":
            Path("/scratch/full").write_bytes(bytes(int(amount) * 2**20))
            time.sleep(300)
        elif kind == "wait":
            time.sleep(300)
        elif kind == "fail":
            raise ContractError("the data is not what it should be")
        documents = {name: kind + " " + Path(path).read_text() for name, path in inputs.items()}
        return Result(documents=documents, summary=kind)

    again = Again(entry="ladder_step:main", arguments={"kind": kind, "amount": amount})
    run_step("train", run_id, window_end, inputs, outputs, work, None, again=again)

if __name__ == "__main__":
    kind, amount, run_id = sys.argv[1:]
    Path("/tmp/in").write_text("handed over")
    main(run_id, "2026-01-12T00:00:00+00:00", {"found": "/tmp/in"}, {"found": "/tmp/out/found"}, kind, amount)
    print(Path("/tmp/out/found").read_text())
""".replace("from tidewheel.steps.beside", "from tidewheel.errors import ContractError\nfrom tidewheel.steps.beside")
# Where every pod of a step finds what it runs: settings are mounted there, and a second pod mounts them too.
STEPS, MODULE = "/etc/tidewheel/ladder", "ladder_step"
PYTHON = "/opt/tidewheel/bin/python"
ASKED = Placement(train=StepPlacement(cpu="10m", memory="160Mi", retries=2, timeout_seconds=600))
# Argo's executor and Kubeflow's launcher are in the same container.
IN_KUBEFLOW = Placement(train=ASKED.train.model_copy(update={"memory": "256Mi"}))
RULES = [
    {"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list"]},
    {"apiGroups": [""], "resources": ["pods/resize"], "verbs": ["patch"]},
    {"apiGroups": [""], "resources": ["resourcequotas", "limitranges"], "verbs": ["list"]},
    {"apiGroups": ["kueue.x-k8s.io"], "resources": ["localqueues"], "verbs": ["get"]},
]
SECOND = [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list", "watch", "create", "delete", "deletecollection"]}]
ENDED = ("Succeeded", "Failed")


@dataclass(frozen=True)
class Shelf:
    """The store of a recipe that only one test uses, and what finds it in a pod."""

    store: Store
    environment: Mapping[str, str]

    @classmethod
    def of(cls, name: str, variables: Mapping[str, str], folder: Path) -> Self:
        url = f"s3://{BUCKET}/{name}"
        return cls(Store.open(url, folder), {**variables, "TIDEWHEEL_STORE": url, "TIDEWHEEL_HOME": "/tmp/home"})

    @property
    def learned(self) -> Learned | None:
        text = self.store.get(f"memory/{RECIPE}/train.json")
        return None if text is None else Learned.parse(text, "learned")

    def teach(self, rung: int, killed: int) -> None:
        known = Learned(rung_bytes=rung * MIB, killed_bytes=killed * MIB, kills=1, at=datetime.now(UTC))
        self.store.put(f"memory/{RECIPE}/train.json", known.to_json())

    def record(self, run_id: str) -> StepRecord:
        found = record_of(self.store, run_id, "train")
        assert found is not None
        return found


@pytest.fixture(scope="module")
def variables() -> Iterator[Mapping[str, str]]:
    require_cluster()
    with bucket() as found:
        yield found


@pytest.fixture
def shelf(variables: Mapping[str, str], tmp_path: Path, request: pytest.FixtureRequest) -> Shelf:
    return Shelf.of(request.node.name.replace("_", "-"), variables, tmp_path / "cache")


@pytest.fixture(scope="module")
def namespace(variables: Mapping[str, str]) -> Iterator[str]:
    """With an account that has the rights of a run's, and one that has none."""
    name = new_namespace("ladder")
    for account in ("climber", "nobody"):
        kubectl("--namespace", name, "create", "serviceaccount", account)
    allow(name, "ladder-test", "climber")
    yield name
    kubectl("delete", "namespace", name, "--wait=false")


def allow(namespace: str, name: str, account: str, rules: Sequence[Mapping[str, Any]] = RULES) -> None:
    """An account's rights, and what every pod of a step runs."""
    program = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "ladder", "namespace": namespace}}
    apply(program | {"data": {f"{MODULE}.py": STEP}})
    meta = {"name": name, "namespace": namespace}
    api = "rbac.authorization.k8s.io"
    role = {"apiVersion": f"{api}/v1", "kind": "Role", "metadata": meta, "rules": rules}
    subject = {"kind": "ServiceAccount", "name": account, "namespace": namespace}
    binding = {
        "apiVersion": f"{api}/v1",
        "kind": "RoleBinding",
        "metadata": meta,
        "roleRef": {"apiGroup": api, "kind": "Role", "name": name},
        "subjects": [subject],
    }
    apply(role, binding)


def test_the_rights_of_the_tests_are_those_of_every_step() -> None:
    assert rights_of(RULES) <= RIGHTS["tidewheel-step"]
    assert rights_of(SECOND) <= RIGHTS["tidewheel-run"]


# --- one try after another, as the pods of one step of one run ---


def try_once(
    namespace: str,
    shelf: Shelf,
    run_id: str,
    work: Sequence[str],
    asked: Placement = ASKED,
    account: str = "climber",
    labels: Mapping[str, str] | None = None,
) -> str:
    """Start the pod of a try, as Kubeflow Pipelines would; its name."""
    name = f"{run_id}-{time.monotonic_ns() % 10**9}"
    fields = {"TIDEWHEEL_POD": "metadata.name", "TIDEWHEEL_NAMESPACE": "metadata.namespace"}
    told = canonical_json(placed("train", asked).model_dump(mode="json"))
    values = {**shelf.environment, "TIDEWHEEL_RECIPE": RECIPE, "TIDEWHEEL_PLACED": told, "PYTHONPATH": STEPS}
    environment = [{"name": key, "value": value} for key, value in values.items()]
    environment += [{"name": key, "valueFrom": {"fieldRef": {"fieldPath": path}}} for key, path in fields.items()]
    memory = asked.train.memory
    known = {"pipeline/runid": run_id, "tidewheel/step": "train", "tidewheel/recipe": RECIPE, **(labels or {})}
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": namespace, "labels": known},
        "spec": {
            "restartPolicy": "Never",
            "serviceAccountName": account,
            "terminationGracePeriodSeconds": 5,
            "volumes": [
                {"name": "scratch", "emptyDir": {"sizeLimit": "8Mi"}},
                {"name": "ladder", "configMap": {"name": "ladder"}},
            ],
            "containers": [
                {
                    "name": "main",
                    "image": image_of("evaluate"),
                    "command": [PYTHON, "-m", MODULE, *work, run_id],
                    "env": environment,
                    "resources": {"requests": {"cpu": "10m", "memory": memory}, "limits": {"memory": memory}},
                    "volumeMounts": [
                        {"name": "scratch", "mountPath": "/scratch"},
                        {"name": "ladder", "mountPath": STEPS},
                    ],
                }
            ],
        },
    }
    apply(pod)
    return name


def ended(namespace: str, pod: str) -> dict[str, Any]:
    found = eventually(lambda: get(namespace, f"pod/{pod}"), lambda one: one["status"]["phase"] in ENDED, 300)
    assert found["status"]["phase"] in ENDED, found["status"]
    return found


def tried(namespace: str, shelf: Shelf, run_id: str, *work: str, **more: Any) -> tuple[str, str]:
    """One try, waited for: why its container ended, and what it said."""
    pod = try_once(namespace, shelf, run_id, work, **more)
    (state,) = ended(namespace, pod)["status"]["containerStatuses"]
    return state["state"]["terminated"]["reason"], kubectl("--namespace", namespace, "logs", pod)


def test_a_step_that_was_killed_climbs_and_the_next_run_starts_there(namespace: str, shelf: Shelf) -> None:
    first = tried(namespace, shelf, "one", "hold", "200")
    second = tried(namespace, shelf, "one", "hold", "200")
    third = tried(namespace, shelf, "two", "hold", "200")

    assert (first[0], second[0], third[0]) == ("OOMKilled", "Completed", "Completed")
    assert "memory: 320Mi, 160Mi before" in second[1]
    assert shelf.learned is not None
    assert (shelf.learned.rung_bytes, shelf.learned.killed_bytes, shelf.learned.kills) == (320 * MIB, 160 * MIB, 1)
    for run_id in ("one", "two"):
        record = shelf.record(run_id)
        assert record.status == "succeeded"
        assert record.memory_bytes == 320 * MIB
        assert 200 * MIB < (record.peak_memory_bytes or 0) < 320 * MIB
        print(f"in a plain pod: {record.memory}")


def test_two_kills_are_two_rungs_and_the_highest_is_the_recipes(namespace: str, shelf: Shelf) -> None:
    asked = Placement(train=ASKED.train.model_copy(update={"max_memory": "400Mi"}))
    said = [tried(namespace, shelf, "top", "hold", "500", asked=asked) for _ in range(4)]

    assert [why for why, _ in said] == ["OOMKilled", "OOMKilled", "OOMKilled", "Error"]
    assert "memory: 400Mi, 160Mi before" in said[2][1]
    assert "400Mi of memory was not enough" in said[3][1]
    assert "max_memory of placement.train; raise placement.train.max_memory" in said[3][1]
    failed = shelf.record("top")
    assert failed.failure is not None
    assert failed.failure.kind == "ConfigError"


def test_a_pod_that_was_deleted_leaves_the_rung_as_it_is(namespace: str, shelf: Shelf) -> None:
    pod = try_once(namespace, shelf, "deleted", ("wait", "0"))
    eventually(lambda: record_of(shelf.store, "deleted", "train"), lambda found: found is not None, 60)
    kubectl("--namespace", namespace, "delete", "pod", pod)
    why, _ = tried(namespace, shelf, "deleted", "hold", "1")

    assert why == "Completed"
    assert shelf.record("deleted").memory_bytes == 160 * MIB
    assert shelf.learned is None


def test_a_pod_that_was_evicted_leaves_the_rung_as_it_is(namespace: str, shelf: Shelf) -> None:
    pod = ended(namespace, try_once(namespace, shelf, "evicted", ("fill", "64")))
    assert pod["status"]["reason"] == "Evicted"
    why, _ = tried(namespace, shelf, "evicted", "hold", "1")

    assert why == "Completed"
    assert shelf.record("evicted").memory_bytes == 160 * MIB
    assert shelf.learned is None


def test_more_than_any_node_has_is_said_and_the_step_goes_on(namespace: str, shelf: Shelf) -> None:
    shelf.teach(rung=1024 * 1024, killed=512 * 1024)
    asked = Placement(train=ASKED.train.model_copy(update={"max_memory": "2Ti"}))
    why, said = tried(namespace, shelf, "huge", "hold", "1", asked=asked)

    assert why == "Completed"
    assert "was not given 1024Gi of memory while it runs (Infeasible" in said
    assert shelf.record("huge").memory_bytes == 160 * MIB


def test_an_account_without_the_right_runs_as_before(namespace: str, shelf: Shelf) -> None:
    why, said = tried(namespace, shelf, "nobody", "hold", "1", account="nobody")

    assert why == "Completed"
    assert "memory does not climb: pod nobody-" in said


def test_a_quota_in_the_way_is_named(shelf: Shelf) -> None:
    tight = new_namespace("ladder")
    try:
        kubectl("--namespace", tight, "create", "serviceaccount", "climber")
        allow(tight, "ladder-test", "climber")
        first = tried(tight, shelf, "quota", "hold", "200")
        kubectl("--namespace", tight, "create", "quota", "runs", "--hard=limits.memory=160Mi")
        eventually(lambda: get(tight, "quota/runs"), lambda quota: "used" in quota.get("status", {}), 30)
        second = tried(tight, shelf, "quota", "hold", "200")
    finally:
        kubectl("delete", "namespace", tight, "--wait=false")

    assert (first[0], second[0]) == ("OOMKilled", "Error")
    assert (
        "placement.train: 160Mi of memory was not enough, and it may not have more than 160Mi: ResourceQuota runs" in second[1]
    )


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


# --- a whole run of a real Kubeflow Pipelines ---


@pytest.fixture
def client(shelf: Shelf) -> Iterator[Client]:
    if not os.environ.get("KFP_ENDPOINT"):
        pytest.skip("KFP_ENDPOINT names no Kubeflow Pipelines")
    home, account = os.environ.get("KFP_NAMESPACE", "kubeflow"), os.environ.get("KFP_ACCOUNT", "pipeline-runner")
    is_ours = "configmap/tidewheel" not in kubectl("--namespace", home, "get", "configmaps", "--output=name").split()
    if is_ours:
        kubectl("--namespace", home, "create", "configmap", "tidewheel")
    allow(home, "ladder-test", account)
    allow(home, "second-test", account, SECOND)
    yield Client(host=os.environ["KFP_ENDPOINT"])
    kubectl("--namespace", home, "delete", "rolebinding,role", "ladder-test", "second-test")
    kubectl("--namespace", home, "delete", "configmap", "ladder")
    if is_ours:
        kubectl("--namespace", home, "delete", "configmap", "tidewheel")


@pytest.fixture
def home_queue(client: Client) -> Iterator[str]:
    with queue_of(os.environ.get("KFP_NAMESPACE", "kubeflow"), "1Gi") as name:
        yield name


def submitted(client: Client, shelf: Shelf, folder: Path, amount: str, placement: Placement = IN_KUBEFLOW) -> str:
    @dsl.container_component
    def hold(run_id: str) -> dsl.ContainerSpec:
        return dsl.ContainerSpec(image=image_of("evaluate"), command=[PYTHON, "-c", STEP, "hold", amount, run_id])

    @dsl.pipeline(name="tidewheel-ladder")
    def pipeline() -> None:
        task = hold(run_id=dsl.PIPELINE_JOB_ID_PLACEHOLDER)
        task.set_caching_options(False)
        place(task, "train", RECIPE, placement)
        kubernetes.use_config_map_as_volume(task, "ladder", STEPS)
        task.set_env_variable("PYTHONPATH", STEPS)
        for name, value in shelf.environment.items():
            task.set_env_variable(name, value)

    compiler.Compiler().compile(pipeline, str(folder / "ladder.yaml"))
    run = client.create_run_from_pipeline_package(str(folder / "ladder.yaml"), arguments={}, enable_caching=False)
    assert client.wait_for_run_completion(run.run_id, timeout=400, sleep_duration=2).state == "SUCCEEDED"
    return run.run_id


def pods_of(run_id: str) -> list[dict[str, Any]]:
    selector = f"--selector=pipeline/runid={run_id},tidewheel/step=train"
    found = json.loads(kubectl("get", "pods", "--all-namespaces", selector, "--output=json"))["items"]
    return sorted(found, key=lambda pod: pod["metadata"]["creationTimestamp"])


def main_of(pod: dict[str, Any]) -> tuple[str, str]:
    (main,) = [one for one in pod["status"]["containerStatuses"] if one["name"] == "main"]
    return main["state"]["terminated"]["reason"], main["resources"]["limits"]["memory"]


def test_kubeflow_tries_again_and_the_run_ends_well(client: Client, shelf: Shelf, tmp_path: Path) -> None:
    first = submitted(client, shelf, tmp_path, "200")
    second = submitted(client, shelf, tmp_path, "200")

    print(f"in Kubeflow: {shelf.record(first).memory}, then {shelf.record(second).memory}")
    assert [main_of(pod) for pod in pods_of(first)] == [("OOMKilled", "256Mi"), ("Completed", "512Mi")]
    assert [main_of(pod) for pod in pods_of(second)] == [("Completed", "512Mi")]
    for run_id in (first, second):
        assert shelf.record(run_id).memory_bytes == 512 * MIB
        assert 256 * MIB < (shelf.record(run_id).peak_memory_bytes or 0) < 512 * MIB
    assert shelf.learned is not None
    assert (shelf.learned.rung_bytes, shelf.learned.killed_bytes) == (512 * MIB, 256 * MIB)


def test_a_step_in_a_queue_of_kubeflow_goes_on_in_a_second_pod(
    client: Client, shelf: Shelf, home_queue: str, tmp_path: Path
) -> None:
    asked = Placement(train=IN_KUBEFLOW.train.model_copy(update={"queue": home_queue}))
    first = submitted(client, shelf, tmp_path, "200", asked)
    second = submitted(client, shelf, tmp_path, "200", asked)

    assert [main_of(pod) for pod in pods_of(first)] == [("OOMKilled", "256Mi"), ("Completed", "256Mi")]
    assert [main_of(pod) for pod in pods_of(second)] == [("Completed", "256Mi")]
    for run_id in (first, second):
        (pod,) = [
            each
            for each in second_pods(os.environ.get("KFP_NAMESPACE", "kubeflow"))
            if each["metadata"]["labels"]["tidewheel/run-id"] == run_id
        ]
        assert main_of(pod) == ("Completed", "512Mi")
        assert shelf.record(run_id).memory_bytes == 512 * MIB
