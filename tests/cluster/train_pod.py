"""The step `train` in pods of a namespace as the manifests make it, with a volume that they share and a bucket as the store."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from tests.cluster.bucket import BUCKET, bucket
from tests.cluster.kubectl import eventually, get, kubectl
from tests.manifests.overlay import moved
from tidewheel import __version__
from tidewheel.contracts.base import canonical_json
from tidewheel.contracts.dataset import DATASETS, DatasetManifest
from tidewheel.contracts.evidence import Baseline
from tidewheel.contracts.placement import HOME_MOUNT, MOUNTED, PLACED_VARIABLE, POD_VARIABLE, Placed
from tidewheel.contracts.recipe import Recipe
from tidewheel.contracts.steps import parts
from tidewheel.contracts.teacher import TeacherChoice
from tidewheel.contracts.training import TrainingReport
from tidewheel.contracts.window import Window, parse_time
from tidewheel.steps.records import document
from tidewheel.store import Store

IMAGE = f"{os.environ.get('TIDEWHEEL_REGISTRY', 'registry.local')}/tidewheel/python-trainer:{__version__}"
VOLUME = "tidewheel-home"
END = "2026-01-12T00:00:00+00:00"
STEP = f"""
import sys
from pathlib import Path
from tidewheel.steps.train import main

inputs = {{name: f"/inputs/{{name}}" for name in ("train", "baseline")}}
outputs = {{name: f"/tmp/outputs/{{name}}" for name in ("ranker", "training")}}
main(Path("/inputs/config").read_text(), sys.argv[1], "{END}", inputs, outputs)
"""
KILL = """
import psutil, sys
(step,) = [each for each in psutil.process_iter() if each.ppid() == 1]  # of the shell; this one has no parent here
step.send_signal(int(sys.argv[1]))
"""
USER = {
    "runAsNonRoot": True,
    "runAsUser": 10001,
    "runAsGroup": 10001,
    "fsGroup": 10001,
    "seccompProfile": {"type": "RuntimeDefault"},
}
RESTRICTED = {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}}


@dataclass(frozen=True)
class Place:
    """Where steps run: a namespace of the cluster, and the store that they share with this process."""

    namespace: str
    store: Store

    def start(self, name: str, run_id: str, recipe: Recipe, placed: Placed, claim: str = VOLUME) -> None:
        """The pod of a step, as Kubeflow makes one of a compiled pipeline. Its shell outlives a step that is killed."""
        config = canonical_json(parts(recipe)["train"].model_dump(mode="json"))
        told = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}}
        told |= {"data": get(self.namespace, "configmap/inputs")["data"] | {"config": config}}
        for wanted in (told, step_pod(name, run_id, placed, claim)):
            kubectl("--namespace", self.namespace, "create", "--filename=-", text=json.dumps(wanted))

    def ends(self, name: str, seconds: int = 600) -> str:
        """`Succeeded` or `Failed`; what the pod said is printed."""

        def phase() -> str:
            return get(self.namespace, f"pod/{name}")["status"]["phase"]

        ended = eventually(phase, lambda seen: seen in ("Succeeded", "Failed"), seconds)
        print(kubectl("--namespace", self.namespace, "logs", f"pod/{name}", "--tail=40"))
        return ended

    def kill(self, name: str, signal: int) -> None:
        """Send the step's process a signal; its pod then ends."""
        kubectl("--namespace", self.namespace, "exec", name, "--", "python", "-c", KILL, str(signal))

    def rayjobs(self, run_id: str) -> list[dict[str, Any]]:
        return get(self.namespace, "rayjobs", f"--selector=tidewheel/run-id={run_id}")["items"]

    def pods(self, run_id: str, node_type: str = "head,worker") -> list[dict[str, Any]]:
        """Ray's pods of a run."""
        selector = f"--selector=tidewheel/run-id={run_id},ray.io/node-type in ({node_type})"
        return get(self.namespace, "pods", selector)["items"]

    def left(self, run_id: str) -> list[str]:
        """Whatever of a run is still there, once nothing is, or after two minutes."""
        kinds = "rayjobs,rayclusters,pods,services,jobs,configmaps,secrets"
        arguments = ("get", kinds, f"--selector=tidewheel/run-id={run_id}", "--output=name")
        return eventually(lambda: kubectl("--namespace", self.namespace, *arguments).split(), lambda seen: not seen, 120)

    def training(self, run_id: str) -> TrainingReport:
        """How the training of a run went, as its step wrote it."""
        text = document(self.store, run_id, "train", "training")
        assert text is not None
        return TrainingReport.parse(text, run_id)


def step_pod(name: str, run_id: str, placed: Placed, claim: str) -> dict[str, Any]:
    def of_the_pod(path: str) -> dict[str, Any]:
        return {"valueFrom": {"fieldRef": {"fieldPath": path}}}

    variables: dict[str, dict[str, Any]] = {
        POD_VARIABLE: of_the_pod("metadata.name"),
        "TIDEWHEEL_NAMESPACE": of_the_pod("metadata.namespace"),
        "TIDEWHEEL_HOME": {"value": HOME_MOUNT},
        PLACED_VARIABLE: {"value": canonical_json(placed.model_dump(mode="json"))},
    }
    mounts = {
        "home": (HOME_MOUNT, {"persistentVolumeClaim": {"claimName": claim}}),
        "settings": (f"{MOUNTED}/tidewheel", {"configMap": {"name": "tidewheel"}}),
        "store": (f"{MOUNTED}/tidewheel-store", {"secret": {"secretName": "tidewheel-store", "optional": True}}),
        "inputs": ("/inputs", {"configMap": {"name": name}}),
        "tmp": ("/tmp", {"emptyDir": {}}),
    }
    container = {
        "name": "main",
        "image": IMAGE,
        "command": ["sh", "-c", 'python -c "$0" "$@"; exit $?', STEP, run_id],
        "env": [{"name": variable, **source} for variable, source in variables.items()],
        "resources": {"requests": {"cpu": "50m", "memory": "1Gi"}, "limits": {"memory": "1536Mi"}},
        "securityContext": RESTRICTED,
        "volumeMounts": [{"name": volume, "mountPath": path} for volume, (path, _) in mounts.items()],
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {"tidewheel/step": "train", "tidewheel/recipe": "quickstart"}},
        "spec": {
            "serviceAccountName": "tidewheel-train",
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": 5,
            "securityContext": USER,
            "containers": [container],
            "volumes": [{"name": volume, **source} for volume, (_, source) in mounts.items()],
        },
    }


@contextmanager
def queue(namespace: str, cpu: str, memory: str) -> Iterator[str]:
    """A queue of Kueue with so much for everybody in it; its name."""
    name = f"{namespace}-{memory.lower()}"
    amounts = {"cpu": cpu, "memory": memory, "ephemeral-storage": "10Gi"}  # which the namespace's LimitRange gives every pod
    resources = [{"name": what, "nominalQuota": amount} for what, amount in amounts.items()]
    group = {"coveredResources": [*amounts], "flavors": [{"name": name, "resources": resources}]}
    kueue = {"apiVersion": "kueue.x-k8s.io/v1beta2", "metadata": {"name": name}}
    objects = (
        kueue | {"kind": "ResourceFlavor", "spec": {}},
        kueue | {"kind": "ClusterQueue", "spec": {"namespaceSelector": {}, "resourceGroups": [group]}},
        kueue | {"kind": "LocalQueue", "metadata": {"name": name, "namespace": namespace}, "spec": {"clusterQueue": name}},
    )
    for wanted in objects:
        kubectl("create", "--filename=-", text=json.dumps(wanted))
    try:
        yield name
    finally:
        kubectl("--namespace", namespace, "delete", f"localqueue/{name}")
        kubectl("delete", f"clusterqueue/{name}", f"resourceflavor/{name}", "--wait=false")


@contextmanager
def on_every_node(namespace: str) -> Iterator[str]:
    """A claim of the same files that no node's affinity holds: pods of fake nodes, which open none of them, may have it too."""
    volume = json.loads(kubectl("get", "pv", _bound(namespace), "--output=json"))["spec"]
    path = volume.get("hostPath", volume.get("local", {})).get("path")
    if not path:  # it is on every node already
        yield VOLUME
        return
    name = f"{namespace}-everywhere"
    more = json.dumps({"spec": {"hard": {"persistentvolumeclaims": "2"}}})
    kubectl("--namespace", namespace, "patch", "resourcequota/runs", "--type=merge", "--patch", more)
    shared = {"accessModes": ["ReadWriteMany"], "storageClassName": ""}
    files = shared | {
        "capacity": {"storage": "1Gi"},
        "hostPath": {"path": path},
        "persistentVolumeReclaimPolicy": "Retain",
        "claimRef": {"namespace": namespace, "name": name},
    }
    asked = shared | {"resources": {"requests": {"storage": "1Gi"}}, "volumeName": name}
    for kind, spec in (("PersistentVolume", files), ("PersistentVolumeClaim", asked)):
        wanted = {"apiVersion": "v1", "kind": kind, "metadata": {"name": name}, "spec": spec}
        kubectl("--namespace", namespace, "create", "--filename=-", text=json.dumps(wanted))
    try:
        yield name
    finally:
        kubectl("--namespace", namespace, "delete", f"pvc/{name}", f"pv/{name}", "--wait=false")


def _bound(namespace: str) -> str:
    """The name of the volume behind the claim, which may wait for a first pod."""
    container = {
        "name": "first",
        "image": IMAGE,
        "command": ["true"],
        "securityContext": RESTRICTED,
        "volumeMounts": [{"name": "home", "mountPath": HOME_MOUNT}],
    }
    spec = {
        "restartPolicy": "Never",
        "securityContext": USER,
        "containers": [container],
        "volumes": [{"name": "home", "persistentVolumeClaim": {"claimName": VOLUME}}],
    }
    wanted = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "first"}, "spec": spec}
    kubectl("--namespace", namespace, "create", "--filename=-", text=json.dumps(wanted))
    name = eventually(lambda: get(namespace, f"pvc/{VOLUME}")["spec"].get("volumeName", ""), bool, 120)
    kubectl("--namespace", namespace, "wait", "pod/first", "--for=jsonpath={.status.phase}=Succeeded", "--timeout=110s")
    kubectl("--namespace", namespace, "delete", "pod/first")
    return name


def has_kuberay() -> bool:
    return "rayjobs.ray.io" in kubectl("api-resources", "--api-group=ray.io", "--output=name")


@contextmanager
def place(name: str, recipe: Recipe, train_dir: Path, folder: Path) -> Iterator[Place]:
    """A namespace with a training dataset in its store; in the end nothing of it is left."""
    overlay = moved("local", name, folder)
    kubectl("apply", "--kustomize", str(overlay))
    try:
        with bucket() as variables:
            store = Store.open(f"s3://{BUCKET}/rayjob", folder / "cache")
            settings(name, store, variables)
            inputs(name, store, recipe, train_dir)
            yield Place(name, store)
    finally:
        if has_kuberay():
            kubectl("--namespace", name, "delete", "rayjobs", "--all", "--wait=false")
        kubectl("delete", "--kustomize", str(overlay), "--wait=false")


def settings(namespace: str, store: Store, variables: Mapping[str, str]) -> None:
    secrets = {key: value for key, value in variables.items() if "KEY" in key}
    values = {key: value for key, value in variables.items() if key not in secrets} | {"TIDEWHEEL_STORE": store.url}
    patch = json.dumps({"data": values})
    kubectl("--namespace", namespace, "patch", "configmap/tidewheel", "--type=merge", "--patch", patch)
    literals = [f"--from-literal={key}={value}" for key, value in secrets.items()]
    kubectl("--namespace", namespace, "create", "secret", "generic", "tidewheel-store", *literals)
    claim = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": VOLUME},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
    }
    kubectl("--namespace", namespace, "create", "--filename=-", text=json.dumps(claim))


def inputs(namespace: str, store: Store, recipe: Recipe, train_dir: Path) -> None:
    staging = store.staging("train")
    rows = pq.read_table(train_dir)
    pq.write_table(rows, staging / "part-0.parquet")
    made = DatasetManifest(
        kind="train",
        window=Window.ending(parse_time(END), 7),
        rows=rows.num_rows,
        weight_sum=float(rows["weight"].to_numpy().sum()),
        features=recipe.features,
        labels=recipe.label_names,
    )
    _, made = store.publish(DATASETS, staging, made)
    baseline = Baseline(production=None, teaching=TeacherChoice(reason="nothing was released yet"), ledger_number=0)
    literals = [f"--from-literal=train={made.to_json()}", f"--from-literal=baseline={baseline.to_json()}"]
    kubectl("--namespace", namespace, "create", "configmap", "inputs", *literals)
