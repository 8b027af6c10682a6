"""Everything a retrain needs on a real cluster, as its users set it up, and `tidewheel submit` against it.

Accounts and settings of the overlay, a real log on a volume, an MLflow server, the chart of the served model."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cluster.bucket import BUCKET, bucket, own_address
from tests.cluster.kubectl import NAME, get, has_rollouts, kubectl, new_namespace, require_cluster
from tests.e2e.command import PROGRAM, ROOT
from tests.helm.chart import CHART, HELM, helm, merged
from tests.mlflow_server import mlflow_server
from tidewheel import __version__

RUNS = os.environ.get("KFP_NAMESPACE", "kubeflow")  # where runs of a backend for one user are
ACCOUNT = "tidewheel-run"
LOG = ROOT.parent / "shared" / "data" / "kuairand_pure_std"
HOME = "/var/lib/tidewheel"
WEEK_SECONDS = 604_800  # of the log's time, which is that of the requests that a canary replays
SMALL = {"cpu": "50m", "retries": 6}


@dataclass(frozen=True)
class Wheel:
    """One installation: its runs are in the backend's namespace, its servers in one of their own."""

    name: str
    serving: str
    folder: Path
    variables: Mapping[str, str]
    tracking: str  # of the MLflow server, as pods and this machine reach it

    @property
    def store(self) -> str:
        return f"s3://{BUCKET}/{self.name}"

    @property
    def claim(self) -> str:
        return self.name

    @property
    def placement(self) -> dict[str, Any]:
        """Small pods, one home."""
        memory = {
            "ingest": "1500Mi",
            "sample": "1Gi",
            "validate_data": "2Gi",
            "train": "2Gi",
            "distill": "2Gi",
            "deploy": "1500Mi",
        }
        placement = {step: SMALL | {"memory": memory.get(step, "1Gi")} for step in (*memory, "evaluate", "conclude")}
        return {**placement, "volume": self.claim}

    def recipe(self, changes: Mapping[str, Any] | None = None) -> Path:
        """The recipe of the real log, of this installation's name; `changes` are laid over it."""
        recipe = yaml.safe_load((ROOT / "recipes" / "kuairand.yaml").read_text(encoding="utf-8"))
        recipe["name"] = self.name
        recipe["placement"] = self.placement
        recipe["deploy"]["target"] = {"kind": "argo", "namespace": self.serving, "name": NAME, "start_seconds": 300}
        return self._written(self.name, merged(recipe, dict(changes or {})))

    def world(self) -> Path:
        """The recipe of the built-in world, whose canary is embedded; its own name, for its own ledger."""
        recipe = yaml.safe_load((ROOT / "recipes" / "quickstart.yaml").read_text(encoding="utf-8"))
        name = f"{self.name}-world"
        return self._written(name, recipe | {"name": name, "placement": self.placement})

    def _written(self, name: str, recipe: Mapping[str, Any]) -> Path:
        path = self.folder / f"{name}.yaml"
        path.write_text(yaml.safe_dump(dict(recipe)), encoding="utf-8")
        return path

    def submit(self, recipe: Path, window_end: str) -> str:
        """A run's id, by `tidewheel submit` as somebody beside the cluster runs it."""
        return self.tidewheel("submit", *self._order(recipe, window_end))["run_id"]

    def turn(self, recipe: Path, window_end: str) -> dict[str, Any]:
        """The same with `--wait`: what it says in the end."""
        return self.tidewheel("submit", *self._order(recipe, window_end), "--wait", seconds=1500)

    def _order(self, recipe: Path, window_end: str) -> list[str]:
        arguments = ["--recipe", str(recipe), "--window-end", window_end, "--service-account", ACCOUNT]
        return arguments if recipe.stem.endswith("-world") else [*arguments, "--data", f"{HOME}/log"]

    @property
    def environment(self) -> dict[str, str]:
        there = {
            "TIDEWHEEL_STORE": self.store,
            "TIDEWHEEL_HOME": str(self.folder / "home"),
            "MLFLOW_TRACKING_URI": self.tracking,
        }
        return {**os.environ, **self.variables, **there}

    def tidewheel(self, *arguments: str, seconds: float = 120) -> Any:
        """What a verb with `--json` says, from beside the cluster."""
        done = subprocess.run(
            [*PROGRAM, *arguments, "--json"],
            env=self.environment,
            stdout=subprocess.PIPE,
            text=True,
            check=False,
            timeout=seconds,
        )
        assert done.returncode == 0, done.stdout
        return json.loads(done.stdout)

    def served(self) -> str:
        """The bundle behind the Rollout's service, asked through the API server."""
        path = f"/api/v1/namespaces/{self.serving}/services/{NAME}:80/proxy/v2/models/ranker"
        return json.loads(kubectl("get", "--raw", path))["versions"][0]

    def bundles(self) -> set[str]:
        """What all pods of the served model serve."""
        pods = get(self.serving, "pods", "--selector=app.kubernetes.io/component=server")["items"]
        return {pod["spec"]["containers"][0]["env"][0]["value"] for pod in pods}


@contextmanager
def wheel(folder: Path) -> Iterator[Wheel]:
    """Set it up; afterwards nothing of it is left but what Kubeflow Pipelines remembers of its runs."""
    require_cluster()
    if not os.environ.get("KFP_ENDPOINT"):
        pytest.skip("KFP_ENDPOINT names no Kubeflow Pipelines")
    if not HELM or not has_rollouts():
        pytest.skip("no helm, or no Argo Rollouts in the cluster")
    serving = new_namespace("tidewheel-wheel")
    with ExitStack() as stack:
        stack.callback(kubectl, "delete", "namespace", serving, "--wait=false")
        variables = stack.enter_context(bucket())
        found = Wheel(serving, serving, folder, variables, stack.enter_context(mlflow_server(own_address())))
        (folder / "home").mkdir()
        stack.enter_context(_accounts(found))
        stack.enter_context(_log(found))
        stack.enter_context(_servers(found))
        yield found


@contextmanager
def _accounts(place: Wheel) -> Iterator[None]:
    """The overlay for a backend without users, with this installation's settings."""
    objects = [
        each for each in yaml.safe_load_all(kubectl("kustomize", str(ROOT / "manifests" / "overlays" / "standalone"))) if each
    ]
    for each in objects:
        each["metadata"]["namespace"] = RUNS
        if each["kind"] == "ConfigMap":
            each["data"] = {
                "TIDEWHEEL_STORE": place.store,
                "MLFLOW_TRACKING_URI": place.tracking,
                **{name: value for name, value in place.variables.items() if "KEY" not in name},
            }
    secret = {name: value for name, value in place.variables.items() if "KEY" in name}
    objects.append(
        {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "tidewheel-store", "namespace": RUNS}, "stringData": secret}
    )
    objects += _launchers_secret()
    text = yaml.safe_dump_all(objects)
    kubectl("apply", "--kustomize", str(ROOT / "manifests" / "crds"))
    kubectl("apply", "--filename", "-", text=text)
    try:
        yield
    finally:
        kubectl("delete", "--ignore-not-found", "--filename", "-", text=text)


def _launchers_secret() -> list[dict[str, Any]]:
    """The add-on's pipeline root names its Secret, so its launchers read it (docs/operations/manifests.md)."""
    name = {"name": "tidewheel-launcher", "namespace": RUNS}
    rule = {"apiGroups": [""], "resources": ["secrets"], "resourceNames": ["mlpipeline-minio-artifact"], "verbs": ["get"]}
    kind = "rbac.authorization.k8s.io"
    return [
        {"apiVersion": f"{kind}/v1", "kind": "Role", "metadata": name, "rules": [rule]},
        {
            "apiVersion": f"{kind}/v1",
            "kind": "RoleBinding",
            "metadata": name,
            "roleRef": {"apiGroup": kind, "kind": "Role", "name": name["name"]},
            "subjects": [{"kind": "ServiceAccount", "name": ACCOUNT, "namespace": RUNS}],
        },
    ]


@contextmanager
def _log(place: Wheel) -> Iterator[None]:
    """The real log on a volume that all pods of a run have as their home."""
    image = f"{os.environ.get('TIDEWHEEL_REGISTRY', 'registry.local')}/tidewheel/python-data:{__version__}"
    mount = {"name": "home", "mountPath": HOME}
    claim = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": place.claim, "namespace": RUNS},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "5Gi"}}},
    }
    container = {"name": "copy", "image": image, "command": ["sleep", "600"], "volumeMounts": [mount]}
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": place.name, "namespace": RUNS},
        "spec": {
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": 0,
            "containers": [container],
            "volumes": [{"name": "home", "persistentVolumeClaim": {"claimName": place.claim}}],
        },
    }
    kubectl("apply", "--filename", "-", text=yaml.safe_dump_all([claim, pod]))
    try:
        kubectl("--namespace", RUNS, "wait", "--for=condition=Ready", f"pod/{place.name}", "--timeout=110s")
        kubectl("--namespace", RUNS, "cp", str(LOG), f"{place.name}:{HOME}/log")
        kubectl("--namespace", RUNS, "delete", "pod", place.name)
        yield
    finally:
        # Pods that ended hold the volume too.
        of_runs = ["--selector", f"tidewheel/recipe={place.name}", "--wait=false"]
        kubectl("--namespace", RUNS, "delete", "pods,retrains", *of_runs)
        kubectl("--namespace", RUNS, "delete", "--ignore-not-found", "--wait=false", "pod,pvc", place.name)


@contextmanager
def _servers(place: Wheel) -> Iterator[None]:
    """The chart, without a bundle yet."""
    secrets = [f"--from-literal={name}={value}" for name, value in place.variables.items()]
    kubectl("--namespace", place.serving, "create", "secret", "generic", "store", *secrets)
    small = {"requests": {"cpu": "10m", "memory": "128Mi"}}
    deploy = yaml.safe_load(place.recipe().read_text(encoding="utf-8"))["deploy"]
    values = {
        "recipe": place.name,
        "image": {
            "repository": f"{os.environ.get('TIDEWHEEL_REGISTRY', 'registry.local')}/tidewheel/python-serving",
            "tag": __version__,
        },
        "store": {"url": place.store, "secretName": "store"},
        "replicas": 3,
        "resources": small,
        "rollout": {
            "steps": [{"share": step["share"], "maxSeconds": WEEK_SECONDS} for step in deploy["steps"]],
            "analysis": {"resources": small},
        },
        "deployer": {"serviceAccounts": [{"name": ACCOUNT, "namespace": RUNS}]},
        "networkPolicy": {"enabled": False},
    }
    done = helm("install", "feed", CHART, "--namespace", place.serving, values=values)
    assert done.returncode == 0, done.stderr
    try:
        yield
    finally:
        helm("uninstall", "feed", "--namespace", place.serving, "--wait")
