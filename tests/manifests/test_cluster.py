"""The local overlay on a real cluster, in a namespace of its own: what each account may do, which pods are let in."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.kubectl import eventually, get, kubectl, new_namespace, require_cluster
from tests.helm.chart import REQUIRED, manifest, merged, needs_helm
from tests.manifests.overlay import moved
from tests.manifests.rights import MAY_NOT, NOBODY_MAY, RIGHTS, each, rights_of
from tidewheel.contracts.placement import HOME_MOUNT, MOUNTED, PodPlacement
from tidewheel.pods.own import OwnPod, child_template, labels_of

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(900)]

ELSEWHERE = ("default", "kube-system")
# What the cluster itself gives every account: to ask what it may do.
ANYBODY = each(
    "create", "selfsubjectaccessreviews.authorization.k8s.io", "selfsubjectrulesreviews.authorization.k8s.io"
) | each("create", "selfsubjectreviews.authentication.k8s.io")
CLUSTER_WIDE = (
    "namespaces,clusterroles,clusterrolebindings,priorityclasses,customresourcedefinitions,persistentvolumes,"
    "validatingadmissionpolicies,validatingwebhookconfigurations,mutatingwebhookconfigurations"
)
ANSWERS = ("--output", "jsonpath={.status.allowed} ")
RESTRICTED = {
    "runAsNonRoot": True,
    "runAsUser": 10001,
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "seccompProfile": {"type": "RuntimeDefault"},
}


@pytest.fixture(scope="module")
def overlay(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """(namespace, overlay): applied, and deleted in the end."""
    require_cluster()
    name = new_name()
    folder = moved("local", name, tmp_path_factory.mktemp("overlay"))
    kubectl("apply", "--kustomize", str(folder))
    yield name, folder
    delete(folder, name)


@pytest.fixture
def namespace(overlay: tuple[str, Path]) -> str:
    return overlay[0]


def new_name() -> str:
    return f"tidewheel-{os.getpid()}-{time.monotonic_ns() % 1_000_000}"


def delete(folder: Path, name: str) -> None:
    """Delete an overlay, and see that its namespace is gone: with it everything that was in it."""
    kubectl("delete", "--kustomize", str(folder), "--wait=false")
    gone = eventually(lambda: asked("get", "namespace", name).stderr, lambda said: "NotFound" in said, 300)
    assert "NotFound" in gone


def user(namespace: str, account: str) -> str:
    return f"system:serviceaccount:{namespace}:{account}"


def asked(*arguments: str, text: str | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["kubectl", *arguments], input=text, capture_output=True, text=True, check=False, timeout=120)


def rights_in(place: str, who: str) -> frozenset[str]:
    """Everything that the API server says `who` may do in a namespace, or everywhere, through whatever binding."""
    review = {"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectRulesReview", "spec": {"namespace": place}}
    said = kubectl("create", "--validate=false", "--as", who, "--filename=-", "--output=json", text=json.dumps(review))
    return rights_of(json.loads(said)["status"]["resourceRules"])


def refused(place: str, who: str, rights: Sequence[str]) -> list[str]:
    """Those of the rights that `who` does not have in a namespace.

    What `kubectl auth can-i` asks, in one call, and of kinds that this cluster does not know: to those can-i always says no.
    """
    reviews = [
        {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SubjectAccessReview",
            "spec": {"user": who, "resourceAttributes": {"namespace": place, **attributes(right)}},
        }
        for right in rights
    ]
    wanted = {"apiVersion": "v1", "kind": "List", "items": reviews}
    said = kubectl("create", "--validate=false", "--filename=-", *ANSWERS, text=json.dumps(wanted))
    return [right for right, answer in zip(rights, said.split(), strict=True) if answer != "true"]


def attributes(right: str) -> dict[str, str]:
    """`patch rollouts.argoproj.io/status`, `get configmaps/kfp-launcher` -> the fields of a review."""
    verb, what = right.split(" ")
    kind, _, part = what.partition("/")
    resource, _, group = kind.partition(".")
    field = "subresource" if part in {"log", "exec", "ephemeralcontainers", "resize", "token", "status"} else "name"
    return {"verb": verb, "group": group, "resource": resource, field: part}


def pod(name: str, **more: Any) -> dict[str, Any]:
    """A pod that passes the restricted standard, and does nothing."""
    container = {"name": "step", "image": "registry.local/pause:3.10", "securityContext": RESTRICTED}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {"tidewheel/run-id": "turn"}},
        "spec": {"serviceAccountName": "tidewheel-step", "automountServiceAccountToken": False, "containers": [container]}
        | more,
    }


def created(namespace: str, wanted: dict[str, Any], *more: str) -> subprocess.CompletedProcess[str]:
    return asked("--namespace", namespace, "create", "--filename=-", *more, text=json.dumps(wanted))


@pytest.mark.parametrize("account", sorted(RIGHTS))
def test_the_api_server_grants_the_table_and_nothing_else(namespace: str, account: str) -> None:
    assert rights_in(namespace, user(namespace, account)) == RIGHTS[account] | ANYBODY


@pytest.mark.parametrize("account", sorted(RIGHTS))
def test_in_other_namespaces_an_account_may_do_nothing(namespace: str, account: str) -> None:
    for place in ELSEWHERE:
        assert rights_in(place, user(namespace, account)) == ANYBODY, place


@pytest.mark.parametrize("account", sorted(RIGHTS))
def test_asked_by_name_the_api_server_says_no_to_what_would_hurt(namespace: str, account: str) -> None:
    hurting = (*MAY_NOT[account], *NOBODY_MAY)

    assert refused(namespace, user(namespace, account), hurting) == list(hurting)


@pytest.mark.parametrize("account", sorted(account for account, rights in RIGHTS.items() if rights))
def test_asked_by_name_the_api_server_says_yes_to_what_a_step_needs(namespace: str, account: str) -> None:
    who = user(namespace, account)

    assert refused(namespace, who, sorted(RIGHTS[account])) == []
    for place in ELSEWHERE:
        assert refused(place, who, sorted(RIGHTS[account])) == sorted(RIGHTS[account]), place


def test_kubectl_auth_can_i_agrees(namespace: str) -> None:
    def can_i(account: str, *asking: str) -> str:
        return asked("auth", "can-i", *asking, "--namespace", namespace, "--as", user(namespace, account)).stdout.strip()

    assert can_i("tidewheel-ingest", "create", "pods") == "yes"
    assert can_i("tidewheel-step", "create", "pods") == "no"
    assert can_i("tidewheel-run", "get", "secrets") == "no"
    assert can_i("tidewheel-run", "delete", "nodes") == "no"


def test_executors_are_made_by_ingest_and_swept_by_conclude(namespace: str) -> None:
    ingest, conclude = (user(namespace, f"tidewheel-{name}") for name in ("ingest", "conclude"))

    for name in ("executor-1", "executor-2"):
        done = created(namespace, pod(name), "--as", ingest)
        assert done.returncode == 0, done.stderr
    refused = created(namespace, pod("executor-3"), "--as", conclude)
    assert "cannot create resource" in refused.stderr
    assert created(namespace, pod("executor-3"), "--as", user(namespace, "tidewheel-train")).returncode != 0
    kubectl("--namespace", namespace, "delete", "pods/executor-1", "--now", "--as", conclude, "--wait=false")
    # One call for all of a driver's pods, as Spark makes it when it stops.
    path = f"/api/v1/namespaces/{namespace}/pods?labelSelector=tidewheel/run-id%3Dturn&gracePeriodSeconds=0"
    kubectl("delete", "--raw", path, "--as", ingest)

    left = eventually(lambda: get(namespace, "pods", "--selector=tidewheel/run-id=turn")["items"], lambda seen: not seen, 60)
    assert left == []


@needs_helm
def test_deploy_may_patch_the_rollout_that_the_chart_gives_it_and_no_other(namespace: str) -> None:
    who = user(namespace, "tidewheel-deploy")
    values = merged(REQUIRED, {"deployer": {"serviceAccounts": [{"name": "tidewheel-deploy", "namespace": namespace}]}})
    serving = new_namespace("tidewheel-serving")
    try:
        role = manifest(values, "--show-only", "templates/deployer/role.yaml", "--namespace", serving)
        kubectl("--namespace", serving, "apply", "--filename=-", text=role)

        rollout = "rollouts.argoproj.io/feed-ranker-serving"
        patched = {f"patch {rollout}", "patch rollouts.argoproj.io/status/feed-ranker-serving"}
        assert rights_in(serving, who) == ANYBODY | each("get list watch", rollout) | patched
        assert refused(serving, who, [f"patch {rollout}", f"delete {rollout}", "patch rollouts.argoproj.io/another"]) == [
            f"delete {rollout}",
            "patch rollouts.argoproj.io/another",
        ]
        assert rights_in(serving, user(namespace, "tidewheel-run")) == ANYBODY
    finally:
        kubectl("delete", "namespace", serving, "--wait=false")


def test_a_secret_can_be_named_and_not_read(namespace: str) -> None:
    kubectl(
        "--namespace", namespace, "create", "secret", "generic", "tidewheel-store", "--from-literal=AWS_SECRET_ACCESS_KEY=x"
    )

    for account in RIGHTS:
        done = asked("--namespace", namespace, "get", "secret/tidewheel-store", "--as", user(namespace, account))
        assert "forbidden" in done.stderr.lower(), account


def test_the_namespace_lets_in_the_pods_that_steps_start(namespace: str) -> None:
    mounts = [
        {"name": name, "mountPath": path} for name, path in (("home", HOME_MOUNT), ("store", f"{MOUNTED}/tidewheel-store"))
    ]
    sources = [
        {"persistentVolumeClaim": {"claimName": "home"}},
        {"secret": {"secretName": "tidewheel-store", "optional": True}},
    ]
    step = pod("train", serviceAccountName="tidewheel-train")
    step["spec"]["containers"][0]["volumeMounts"] = mounts
    step["spec"]["volumes"] = [{"name": name, **source} for name, source in zip(("home", "store"), sources, strict=True)]
    own = OwnPod(namespace, "train", "uid", step)
    asked = PodPlacement(gpus=1, pool="h100", shm="64Mi")
    wanted = child_template(own, asked, labels_of(own, "turn"), "worker", {})
    wanted["metadata"]["name"] = "worker"

    done = created(namespace, {"apiVersion": "v1", "kind": "Pod"} | wanted, "--dry-run=server")

    assert done.returncode == 0, done.stderr
    assert "Warning" not in done.stderr


@pytest.mark.parametrize(
    ("what", "change"),
    [
        ("a root", {"runAsUser": 0, "runAsNonRoot": False}),
        ("a privileged container", {"privileged": True, "allowPrivilegeEscalation": True}),
        ("a container that may gain privileges", {"allowPrivilegeEscalation": True}),
        ("a container that keeps capabilities", {"capabilities": {}}),
        ("a container without a seccomp profile", {"seccompProfile": {"type": "Unconfined"}}),
    ],
)
def test_a_pod_that_is_not_restricted_is_refused(namespace: str, what: str, change: dict[str, Any]) -> None:
    wanted = pod("refused")
    wanted["spec"]["containers"][0]["securityContext"] = RESTRICTED | change

    done = created(namespace, wanted)

    assert done.returncode != 0, what
    assert 'violates PodSecurity "restricted' in done.stderr


def test_a_pod_that_mounts_the_node_is_refused_whoever_asks(namespace: str) -> None:
    wanted = pod("refused", volumes=[{"name": "node", "hostPath": {"path": "/"}}], hostNetwork=True)

    for more in ([], ["--as", user(namespace, "tidewheel-ingest")]):
        assert 'violates PodSecurity "restricted' in created(namespace, wanted, *more).stderr


def test_pods_that_say_no_size_get_one(namespace: str) -> None:
    done = created(namespace, pod("sizeless"), "--dry-run=server", "--output=json")

    assert done.returncode == 0, done.stderr
    resources = json.loads(done.stdout)["spec"]["containers"][0]["resources"]
    assert resources["requests"] == {"cpu": "50m", "memory": "128Mi", "ephemeral-storage": "64Mi"}
    assert resources["limits"] == {"memory": "512Mi"}


def test_the_quota_ends_what_a_run_may_take(namespace: str) -> None:
    greedy = pod("greedy")
    greedy["spec"]["containers"][0]["resources"] = {"requests": {"cpu": "1", "memory": "17Gi"}, "limits": {"memory": "17Gi"}}
    public = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "public"},
        "spec": {"type": "NodePort", "ports": [{"port": 80}]},
    }

    assert "exceeded quota: runs" in created(namespace, greedy, "--as", user(namespace, "tidewheel-ingest")).stderr
    assert "exceeded quota: runs" in created(namespace, public).stderr  # whoever asks


def task_of_214() -> dict[str, Any]:
    """The shape of a task's pod of Kubeflow Pipelines 2.14: no container has a security context."""
    wanted = pod(
        "task", initContainers=[{"name": name, "image": "registry.local/pause:3.10"} for name in ("init", "kfp-launcher")]
    )
    wanted["spec"]["containers"] = [{"name": name, "image": "registry.local/pause:3.10"} for name in ("wait", "main")]
    return wanted


def test_tasks_of_a_backend_of_214_need_its_component(namespace: str, tmp_path: Path) -> None:
    assert 'violates PodSecurity "restricted' in created(namespace, task_of_214(), "--dry-run=server").stderr

    other = new_name()
    folder = moved("local", other, tmp_path, "backend-2.14")
    kubectl("apply", "--kustomize", str(folder))
    try:
        done = created(other, task_of_214(), "--dry-run=server")
        assert done.returncode == 0, done.stderr
        privileged = pod("refused")
        privileged["spec"]["containers"][0]["securityContext"] = {"privileged": True}
        assert 'violates PodSecurity "baseline' in created(other, privileged).stderr
    finally:
        delete(folder, other)


def test_applying_again_changes_nothing_and_deleting_leaves_nothing(tmp_path: Path) -> None:
    require_cluster()
    before = cluster_wide()
    folder = moved("local", name := new_name(), tmp_path)

    kubectl("apply", "--kustomize", str(folder))
    again = kubectl("apply", "--kustomize", str(folder))
    delete(folder, name)

    assert {line.rsplit(" ", 1)[-1] for line in again.splitlines()} == {"unchanged"}
    assert {each for each in cluster_wide() if name in each} == {each for each in before if name in each} == set()


def cluster_wide() -> set[str]:
    return set(kubectl("get", CLUSTER_WIDE, "--output=name").split())
