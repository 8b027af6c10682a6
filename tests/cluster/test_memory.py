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
from kfp import Client, compiler, dsl

from components.images import image_of
from pipelines.placement import place, placed
from tests.cluster.bucket import BUCKET, bucket
from tests.cluster.kubectl import eventually, get, kubectl, new_namespace, require_cluster
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
from tidewheel.steps.job import Result, run_step

kind, amount, run_id = sys.argv[1:]

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
    return Result(documents={}, summary=kind)

run_step("train", run_id, "2026-01-12T00:00:00+00:00", {}, {}, work, None)
"""
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


def allow(namespace: str, name: str, account: str) -> None:
    meta = {"name": name, "namespace": namespace}
    api = "rbac.authorization.k8s.io"
    role = {"apiVersion": f"{api}/v1", "kind": "Role", "metadata": meta, "rules": RULES}
    subject = {"kind": "ServiceAccount", "name": account, "namespace": namespace}
    binding = {
        "apiVersion": f"{api}/v1",
        "kind": "RoleBinding",
        "metadata": meta,
        "roleRef": {"apiGroup": api, "kind": "Role", "name": name},
        "subjects": [subject],
    }
    apply(role, binding)


def apply(*objects: dict[str, Any]) -> None:
    kubectl("apply", "--filename=-", text="\n---\n".join(json.dumps(each) for each in objects))


def test_the_rights_of_the_tests_are_those_of_every_step() -> None:
    assert rights_of(RULES) <= RIGHTS["tidewheel-step"]


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
    values = {**shelf.environment, "TIDEWHEEL_RECIPE": RECIPE, "TIDEWHEEL_PLACED": told}
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
            "volumes": [{"name": "scratch", "emptyDir": {"sizeLimit": "8Mi"}}],
            "containers": [
                {
                    "name": "main",
                    "image": image_of("evaluate"),
                    "command": [PYTHON, "-c", STEP, *work, run_id],
                    "env": environment,
                    "resources": {"requests": {"cpu": "10m", "memory": memory}, "limits": {"memory": memory}},
                    "volumeMounts": [{"name": "scratch", "mountPath": "/scratch"}],
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
    """A LocalQueue with so much memory, and the right to look behind it, as helm/gpu-node-pools gives it."""
    if "clusterqueues.kueue.x-k8s.io" not in kubectl("api-resources", "--api-group=kueue.x-k8s.io", "--output=name"):
        pytest.skip("Kueue is not installed")
    kueue, rbac = "kueue.x-k8s.io", "rbac.authorization.k8s.io"
    meta, version = {"name": namespace}, f"{kueue}/v1beta2"
    quotas = [{"name": "cpu", "nominalQuota": "1"}, {"name": "memory", "nominalQuota": request.param}]
    group = {"coveredResources": ["cpu", "memory"], "flavors": [{"name": namespace, "resources": quotas}]}
    rule = {"apiGroups": [kueue], "resources": ["clusterqueues"], "resourceNames": [namespace], "verbs": ["get"]}
    subject = {"kind": "Group", "apiGroup": rbac, "name": f"system:serviceaccounts:{namespace}"}
    role = {"apiGroup": rbac, "kind": "ClusterRole", "name": namespace}
    shared = [
        {"apiVersion": version, "kind": "ResourceFlavor", "metadata": meta},
        {
            "apiVersion": version,
            "kind": "ClusterQueue",
            "metadata": meta,
            "spec": {"namespaceSelector": {}, "resourceGroups": [group]},
        },
        {"apiVersion": f"{rbac}/v1", "kind": "ClusterRole", "metadata": meta, "rules": [rule]},
        {"apiVersion": f"{rbac}/v1", "kind": "ClusterRoleBinding", "metadata": meta, "roleRef": role, "subjects": [subject]},
    ]
    local = {"apiVersion": version, "kind": "LocalQueue", "metadata": {"name": "tight", "namespace": namespace}}
    apply(*shared, local | {"spec": {"clusterQueue": namespace}})
    yield "tight"
    kubectl("--namespace", namespace, "delete", "pods", "--all", "--wait=false")
    kubectl("--namespace", namespace, "delete", "localqueue", "tight")
    for each in reversed(shared):
        kubectl("delete", str(each["kind"]), namespace, "--wait=false")


@pytest.mark.parametrize(
    ("queue", "words"),
    [
        ("160Mi", "it may not have more than 160Mi: quota of queue tight (ClusterQueue {namespace}); raise it"),
        ("1Gi", "Kueue let it in with what it has, and would delete it); set placement.train.memory to 320Mi"),
    ],
    indirect=["queue"],
)
def test_what_came_through_a_queue_is_not_made_larger_and_says_why(
    namespace: str, shelf: Shelf, queue: str, words: str
) -> None:
    asked = Placement(train=ASKED.train.model_copy(update={"queue": queue}))
    first = tried(namespace, shelf, "queued", "hold", "200", asked=asked, labels=asked.train.queue_labels)
    second = tried(namespace, shelf, "queued", "hold", "200", asked=asked, labels=asked.train.queue_labels)

    assert (first[0], second[0]) == ("OOMKilled", "Error")
    assert words.format(namespace=namespace) in second[1]


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
    yield Client(host=os.environ["KFP_ENDPOINT"])
    kubectl("--namespace", home, "delete", "rolebinding,role", "ladder-test")
    if is_ours:
        kubectl("--namespace", home, "delete", "configmap", "tidewheel")


def submitted(client: Client, shelf: Shelf, folder: Path, amount: str) -> str:
    @dsl.container_component
    def hold(run_id: str) -> dsl.ContainerSpec:
        return dsl.ContainerSpec(image=image_of("evaluate"), command=[PYTHON, "-c", STEP, "hold", amount, run_id])

    @dsl.pipeline(name="tidewheel-ladder")
    def pipeline() -> None:
        task = hold(run_id=dsl.PIPELINE_JOB_ID_PLACEHOLDER)
        task.set_caching_options(False)
        place(task, "train", RECIPE, IN_KUBEFLOW)
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
