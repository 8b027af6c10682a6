"""`tidewheel doctor --cluster` on a real cluster: every bad case within a minute, with its object, rule and remedy."""

from __future__ import annotations

import json
import os
import shlex
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cluster.kubectl import eventually, get, has_rollouts, kubectl, new_namespace, require_cluster
from tests.e2e.command import QUICKSTART, ROOT
from tests.e2e.test_doctor_without_cluster import doctor, silent_server
from tests.e2e.test_new_project import fenced_commands
from tests.manifests.overlay import moved
from tidewheel.cluster.checks import findings
from tidewheel.cluster.connection import connect
from tidewheel.cluster.facts import first_contact, look
from tidewheel.cluster.needs import ACCOUNTS, systems
from tidewheel.contracts.placement import Placement

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]

PAUSE = "registry.local/pause:3.10"
MISSING_IMAGE = "nobody.invalid/tidewheel/python-core:0.0.0"


@pytest.fixture(scope="module")
def namespace() -> Iterator[str]:
    """An empty one, where each test makes what is bad."""
    require_cluster()
    name = new_namespace("doctor")
    yield name
    kubectl("delete", "namespace", name, "--wait=false")


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A namespace of the overlay `local`, with what a backend of 2.14 needs."""
    require_cluster()
    name = f"doctor-{os.getpid()}-{time.monotonic_ns() % 1_000_000}"
    folder = moved("local", name, tmp_path_factory.mktemp("overlay"), "backend-2.14")
    kubectl("apply", "--kustomize", str(folder))
    yield name
    kubectl("delete", "--kustomize", str(folder), "--wait=false")


@pytest.fixture
def admin() -> Path:
    require_cluster()
    return Path(os.environ["KUBECONFIG"])


def checks(config: Path, *more: str) -> dict[str, dict[str, Any]]:
    """By name; of several of one name the first."""
    code, document = doctor(config, *more)
    needed = [check for check in document["checks"] if not check["is_well"] and check["severity"] == "needed"]
    assert code == (1 if needed else 0)
    found: dict[str, dict[str, Any]] = {}
    for check in document["checks"]:
        found.setdefault(check["name"], check)
    return found


def as_user(folder: Path, user: dict[str, Any], server: str = "", context: str = "") -> Path:
    """A copy of the kubeconfig at hand, for another user, server or current context."""
    document = yaml.safe_load(kubectl("config", "view", "--raw", "--minify", "--flatten", "--output=yaml"))
    document["users"][0]["user"] = user
    if server:
        document["clusters"][0]["cluster"] = {"server": server}
    if context:
        document["current-context"] = context
    path = folder / "kubeconfig"
    path.write_text(yaml.safe_dump(document), encoding="utf-8")
    return path


def create(namespace: str, **wanted: Any) -> None:
    kubectl("--namespace", namespace, "create", "--filename=-", text=json.dumps(wanted))


def quota(namespace: str, name: str, **hard: str) -> None:
    create(namespace, apiVersion="v1", kind="ResourceQuota", metadata={"name": name}, spec={"hard": hard})


def pod(namespace: str, name: str, image: str) -> None:
    containers = [{"name": "main", "image": image}]
    create(namespace, apiVersion="v1", kind="Pod", metadata={"name": name}, spec={"containers": containers})


# --- an account and an address ----------------------------------------------------------------------------------------


def test_an_account_without_rights_is_told_the_verbs_and_the_rule(namespace: str, tmp_path: Path) -> None:
    kubectl("--namespace", namespace, "create", "serviceaccount", "stranger")
    token = kubectl("--namespace", namespace, "create", "token", "stranger", "--duration=10m").strip()
    recipe = yaml.safe_load(QUICKSTART.read_text(encoding="utf-8"))
    recipe["deploy"]["target"] = {"kind": "argo", "namespace": namespace, "name": "feed"}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe), encoding="utf-8")

    config = as_user(tmp_path, {"token": token})
    found = checks(config, "--namespace", namespace, "--recipe", str(tmp_path / "recipe.yaml"))

    assert f"system:serviceaccount:{namespace}:stranger" in found["account"]["found"]
    status = found["rights of status"]
    assert (status["is_well"], status["severity"]) == (False, "needed")
    assert "list pods; get pods/log; list events" in status["found"]
    assert f"may not in namespace {namespace}" in status["found"]
    assert '{apiGroups: [""], resources: [pods], verbs: [list]}' in status["remedy"]
    assert "deployer.serviceAccounts" in found["rights of rollback"]["remedy"]
    for name in ("namespace", "quotas", "limits", "volumes", "images", "service accounts"):
        assert found[name]["severity"] == "optional", found[name]
        assert "could not be looked at" in found[name]["found"]


def test_the_rule_that_it_names_is_the_one_that_was_missing(namespace: str, tmp_path: Path) -> None:
    kubectl("--namespace", namespace, "create", "serviceaccount", "helped")
    token = kubectl("--namespace", namespace, "create", "token", "helped", "--duration=10m").strip()
    config = as_user(tmp_path, {"token": token})
    remedy = checks(config, "--namespace", namespace)["rights of status"]["remedy"]

    rules = yaml.safe_load(f"[{remedy.partition('Role there with ')[2].replace('} {', '}, {')}]")
    role = {"name": "helped"}
    create(namespace, apiVersion="rbac.authorization.k8s.io/v1", kind="Role", metadata=role, rules=rules)
    kubectl(
        "--namespace", namespace, "create", "rolebinding", "helped", "--role=helped", f"--serviceaccount={namespace}:helped"
    )

    found = eventually(lambda: checks(config, "--namespace", namespace), lambda seen: seen["rights of status"]["is_well"], 5)
    assert found["rights of status"]["is_well"]
    assert found["images"]["is_well"]  # it may list pods now


@pytest.mark.parametrize("kind", ["garbage", "revoked"])
def test_a_token_that_is_not_good(namespace: str, tmp_path: Path, kind: str) -> None:
    token = "garbage"
    if kind == "revoked":  # no API server gives a token for less than ten minutes; this one ends with its account
        kubectl("--namespace", namespace, "create", "serviceaccount", "left")
        token = kubectl("--namespace", namespace, "create", "token", "left", "--duration=10m").strip()
        assert checks(as_user(tmp_path, {"token": token}), "--namespace", namespace)["account"]["is_well"]
        kubectl("--namespace", namespace, "delete", "serviceaccount", "left")

    config = as_user(tmp_path, {"token": token})
    found = eventually(
        lambda: checks(config, "--namespace", namespace), lambda seen: not seen["account"]["is_well"], 15
    )  # a token that was good is remembered for some seconds

    assert set(found) - {"api server"} == {"account", "store", "mlflow", "kfp"}
    assert "refused the credentials" in found["account"]["found"]
    assert "Unauthorized" in found["account"]["found"]
    assert "log in again" in found["account"]["remedy"]


def test_nobody_at_all(namespace: str, tmp_path: Path) -> None:
    found = checks(as_user(tmp_path, {}), "--namespace", namespace)

    assert not found["account"]["is_well"]
    assert "renew the user's token" in found["account"]["remedy"]


def test_a_context_that_is_not_there(namespace: str, tmp_path: Path) -> None:
    found = checks(as_user(tmp_path, {}, context="moon"))

    assert "moon" in found["api server"]["found"]
    assert "kubectl config use-context" in found["api server"]["remedy"]


def test_an_address_where_nothing_listens_and_one_that_never_answers(namespace: str, tmp_path: Path) -> None:
    nobody = checks(as_user(tmp_path, {}, server="https://127.0.0.1:1"))
    with silent_server() as address:
        silent = checks(as_user(tmp_path, {}, server=f"https://{address}"))

    assert "does not answer" in nobody["api server"]["found"]
    assert f"{address} " in silent["api server"]["found"]
    assert "timed out" in silent["api server"]["found"]


def test_a_certificate_that_is_not_the_clusters(namespace: str, tmp_path: Path) -> None:
    own = json.loads(kubectl("config", "view", "--minify", "--output=json"))["clusters"][0]["cluster"]["server"]

    found = checks(as_user(tmp_path, {}, server=own))  # no certificate authority is named

    assert "cannot be trusted" in found["api server"]["found"]
    assert "certificate-authority-data" in found["api server"]["remedy"]


# --- a namespace ------------------------------------------------------------------------------------------------------


def test_a_namespace_that_is_not_there(admin: Path) -> None:
    found = checks(admin, "--namespace", "nowhere-at-all")

    assert found["namespace"]["found"] == "namespace nowhere-at-all is not there"
    assert "kubectl apply --kustomize" in found["namespace"]["remedy"]


def test_a_namespace_without_our_manifests(namespace: str, admin: Path) -> None:
    found = checks(admin, "--namespace", namespace)

    assert all(name in found["service accounts"]["found"] for name in ACCOUNTS)
    assert "ConfigMap tidewheel" in found["settings"]["found"]
    assert found["pod security"]["found"] == "nothing is enforced"


def test_a_namespace_of_our_manifests_is_well(prepared: str, admin: Path) -> None:
    found = checks(admin, "--namespace", prepared)

    names = ("api server", "account", "kubernetes", "namespace", "pod security", "service accounts", "settings", "quota runs")
    for name in (*names, "limits runs", "rights of status", "volumes", "images"):
        assert found[name]["is_well"], found[name]
    assert found["pod security"]["found"] == "enforces baseline"


def test_nothing_is_in_the_way_of_runs_where_everything_is_installed(prepared: str, admin: Path) -> None:
    if not kubectl("get", "deployments", "--all-namespaces", "--field-selector=metadata.name=ml-pipeline", "--output=name"):
        pytest.skip("Kubeflow Pipelines is not installed")

    code, document = doctor(admin, "--namespace", prepared, "--recipe", str(QUICKSTART))

    assert (code, [check for check in document["checks"] if not check["is_well"] and check["severity"] == "needed"]) == (0, [])


def test_a_quota_that_is_too_small_for_ever(namespace: str, admin: Path) -> None:
    quota(namespace, "tiny", **{"requests.memory": "100Mi", "pods": "40"})
    eventually(lambda: get(namespace, "resourcequota/tiny"), lambda seen: "used" in seen.get("status", {}), 20)
    try:
        found = checks(admin, "--namespace", namespace)["quota tiny"]
    finally:
        kubectl("--namespace", namespace, "delete", "resourcequota/tiny")

    assert "requests.memory is 100Mi < 4Gi of train: it will never fit" in found["found"]
    assert f"kubectl --namespace {namespace} edit resourcequota tiny" in found["remedy"]


def test_a_volume_that_nobody_binds(namespace: str, admin: Path) -> None:
    spec = {
        "storageClassName": "gold",
        "accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": "1Gi"}},
    }
    create(namespace, apiVersion="v1", kind="PersistentVolumeClaim", metadata={"name": "home"}, spec=spec)

    def look() -> dict[str, Any]:
        return checks(admin, "--namespace", namespace)["volume claim home"]

    found = eventually(look, lambda seen: "gold" in seen["found"] and "no event" not in seen["found"], 30)

    assert "is Pending with StorageClass gold: ProvisioningFailed" in found["found"]
    assert 'storageclass.storage.k8s.io "gold" not found' in found["found"]
    assert "kubectl get storageclass" in found["remedy"]


def test_a_pod_whose_image_is_not_there(namespace: str, admin: Path) -> None:
    pod(namespace, "lost", MISSING_IMAGE)
    try:
        found = eventually(lambda: checks(admin, "--namespace", namespace)["images"], lambda seen: not seen["is_well"], 60)
    finally:
        kubectl("--namespace", namespace, "delete", "pod/lost", "--now", "--wait=false")

    assert f"pod lost, container main: {MISSING_IMAGE}" in found["found"]
    assert "make images" in found["remedy"]


# --- what others install ----------------------------------------------------------------------------------------------


def test_every_system_is_judged_as_the_cluster_has_it(prepared: str, admin: Path) -> None:
    found = checks(admin, "--namespace", prepared)
    there = set(kubectl("get", "customresourcedefinitions", "--output=jsonpath={.items[*].metadata.name}").split())

    for system in systems(None):
        crd = f"{system.resource}.{system.group}"
        if system.group and crd not in there:
            assert f"the CRD {crd} in version {system.version} is not there: {system.without}" in found[system.name]["found"]
            assert found[system.name]["remedy"].startswith(system.install or f"install {system.name}")
    if has_rollouts():
        assert "Deployment argo-rollouts in namespace" in found["argo-rollouts"]["found"]


@pytest.mark.parametrize("where", ["/apis/nobody.example/v1", "/apis/apps/v9"])
def test_a_crd_that_is_not_there_and_one_that_serves_another_version(prepared: str, where: str) -> None:
    """As the API server answers for them; no CRD of the cluster is taken away for it."""
    _, api = connect(time.monotonic() + 60)
    facts = look(api, prepared, None, Placement(), *first_contact(api))

    without = replace(facts, resources={**facts.resources, "kuberay": api.ask(where)})

    (found,) = [finding for finding in findings(without) if finding.name == "kuberay"]
    assert found.found == "the CRD rayjobs.ray.io in version v1 is not there: train has no workers of its own"
    assert found.remedy.startswith("install kuberay")


def test_a_queue_that_leads_nowhere_is_well_as_soon_as_it_leads_somewhere(namespace: str, admin: Path) -> None:
    if "localqueues" not in kubectl("api-resources", "--api-group=kueue.x-k8s.io", "--output=name"):
        pytest.skip("Kueue is not installed")
    kind = {"apiVersion": "kueue.x-k8s.io/v1beta2", "kind": "LocalQueue"}
    create(namespace, **kind, metadata={"name": "gpus"}, spec={"clusterQueue": namespace})

    def queue() -> dict[str, Any]:
        return checks(admin, "--namespace", namespace)["queue gpus"]

    assert queue()["found"] == f"its ClusterQueue {namespace} is not there: nothing is ever admitted"
    of_cluster = {"apiVersion": "kueue.x-k8s.io/v1beta2", "kind": "ClusterQueue", "metadata": {"name": namespace}}
    create(namespace, **of_cluster, spec={"namespaceSelector": {}, "stopPolicy": "Hold"})
    try:
        stopped = queue()
        kubectl("patch", "clusterqueue", namespace, "--type=merge", "--patch", '{"spec": {"stopPolicy": "None"}}')
        found = eventually(queue, lambda seen: seen["is_well"], 10)
    finally:
        kubectl("delete", "clusterqueue", namespace, "--wait=false")

    assert "its stopPolicy is Hold" in stopped["found"]
    assert found["found"] == f"active, of {namespace}; 0 waiting"


# --- the page ---------------------------------------------------------------------------------------------------------


def test_the_commands_of_the_page(prepared: str, admin: Path) -> None:
    commands = [shlex.split(command) for command in fenced_commands(ROOT / "docs" / "operations" / "doctor.md")]
    assert commands

    for program, verb, *arguments in commands:
        assert (program, verb, arguments[0]) == ("tidewheel", "doctor", "--cluster")
        here = [prepared if each == "tidewheel" else str(QUICKSTART) if each == "recipe.yaml" else each for each in arguments]
        _, document = doctor(admin, *(each for each in here if each not in ("--cluster", "--json")))
        assert document["namespace"] == prepared
