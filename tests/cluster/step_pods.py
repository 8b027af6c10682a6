"""A namespace in which steps run as pods of one volume and one bucket, as those of a submitted run do, without Kubeflow."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cluster.kubectl import eventually, get, kubectl, new_namespace
from tests.manifests.overlay import MANIFESTS
from tidewheel import __version__
from tidewheel.contracts.placement import HOME_MOUNT, PLACED_VARIABLE, POD_VARIABLE, Placed

ACCOUNT, CLAIM, RECIPE = "tidewheel-run", "home", "kuairand"
NOT_THERE = ("ErrImagePull", "ImagePullBackOff", "InvalidImageName")
PROGRAM = """
import json, sys
from importlib import import_module
asked = json.loads(sys.argv[1])
import_module("tidewheel.steps." + asked.pop("step")).main(**asked)
"""
STRICT = {
    "readOnlyRootFilesystem": True,
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
}


@dataclass(frozen=True)
class StepPods:
    namespace: str
    environment: Mapping[str, str]

    def start(self, name: str, image: str, placed: Placed, step: str, asked: Mapping[str, Any], **changes: str) -> None:
        """A pod in which one step runs. `changes`: of its environment."""
        arguments = ["python", "-c", PROGRAM, json.dumps({"step": step, **asked})]
        pod = self._pod(name, image, step, arguments, {**self.environment, **changes}, placed)
        kubectl("--namespace", self.namespace, "create", "--filename=-", text=json.dumps(pod))

    def run(self, name: str, *arguments: Any, **changes: str) -> str:
        """What a step that succeeds in its pod writes."""
        self.start(name, *arguments, **changes)
        phase = self.ended(name)
        log = self.log(name)
        assert phase == "Succeeded", log[-5000:]
        return log

    def ended(self, name: str, seconds: int = 400) -> str:
        """How a pod ended: its phase. Skips where the cluster cannot get the image."""

        def phase() -> str:
            status = get(self.namespace, "pod", name).get("status", {})
            for container in status.get("containerStatuses", ()):
                if (waits := container["state"].get("waiting", {})).get("reason") in NOT_THERE:
                    pytest.skip(f"the cluster has no such image ({waits['message']}); make images")
            return str(status.get("phase", ""))

        return str(eventually(phase, lambda found: found in ("Succeeded", "Failed"), seconds))

    def log(self, name: str) -> str:
        return kubectl("--namespace", self.namespace, "logs", name)

    def pods(self, selector: str) -> list[dict[str, Any]]:
        return list(get(self.namespace, "pods", f"--selector={selector}")["items"])

    def delete(self, name: str) -> None:
        kubectl("--namespace", self.namespace, "delete", "pod", name, "--wait=true", "--grace-period=2")

    def read(self, path: str, image: str) -> bytes:
        """A file on the volume."""
        return self._with_keeper(image, ["cat", f"{HOME_MOUNT}/{path}"], b"")

    def write(self, folder: Path, path: str, image: str) -> None:
        """A folder of this machine onto the volume."""
        packed = subprocess.run(["tar", "-C", str(folder), "-cf", "-", "."], capture_output=True, check=True).stdout
        target = f"{HOME_MOUNT}/{path}"
        self._with_keeper(image, ["sh", "-c", f"mkdir -p {target} && tar -C {target} --no-same-owner -xmf -"], packed)

    def _with_keeper(self, image: str, command: list[str], sent: bytes) -> bytes:
        pod = self._pod("keeper", image, "keep", ["sleep", "3600"], {}, None)
        kubectl("--namespace", self.namespace, "apply", "--filename=-", text=json.dumps(pod))
        eventually(lambda: get(self.namespace, "pod", "keeper")["status"]["phase"], lambda phase: phase == "Running", 300)
        into = ["kubectl", "--namespace", self.namespace, "exec", "--stdin", "keeper", "--", *command]
        done = subprocess.run(into, input=sent, capture_output=True, check=False, timeout=120)
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout

    def _pod(
        self, name: str, image: str, step: str, command: list[str], environment: Mapping[str, str], placed: Placed | None
    ) -> dict[str, Any]:
        memory = placed.step.memory if placed else "64Mi"
        fields = {POD_VARIABLE: "metadata.name", "TIDEWHEEL_NAMESPACE": "metadata.namespace"}
        queued = {"kueue.x-k8s.io/queue-name": placed.step.queue} if placed and placed.step.queue else {}
        told = {PLACED_VARIABLE: placed.to_json()} if placed else {}
        variables = {"TIDEWHEEL_HOME": HOME_MOUNT, **environment, **told}
        return {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name, "labels": {"tidewheel/step": step, "tidewheel/recipe": RECIPE, **queued}},
            "spec": {
                "restartPolicy": "Never",
                "serviceAccountName": ACCOUNT,
                "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}, "fsGroup": 10001},
                "terminationGracePeriodSeconds": 20,
                "containers": [
                    {
                        "name": "main",
                        "image": image,
                        "command": command,
                        "env": [{"name": key, "value": value} for key, value in variables.items()]
                        + [{"name": key, "valueFrom": {"fieldRef": {"fieldPath": path}}} for key, path in fields.items()],
                        "resources": {"requests": {"cpu": "100m", "memory": memory}, "limits": {"memory": memory}},
                        "securityContext": STRICT,
                        "volumeMounts": [{"name": "home", "mountPath": HOME_MOUNT}, {"name": "tmp", "mountPath": "/tmp"}],
                    }
                ],
                "volumes": [
                    {"name": "home", "persistentVolumeClaim": {"claimName": CLAIM}},
                    {"name": "tmp", "emptyDir": {}},
                ],
            },
        }


def image_of(name: str) -> str:
    return f"{os.environ.get('TIDEWHEEL_REGISTRY', 'registry.local')}/tidewheel/{name}:{__version__}"


@contextmanager
def step_pods(prefix: str, roles: tuple[str, ...], environment: Mapping[str, str]) -> Iterator[StepPods]:
    """The namespace, as strict as pod security gets, and an account with these roles of `manifests/runs`; gone afterwards."""
    namespace = new_namespace(prefix)
    try:
        kubectl("label", "namespace", namespace, "pod-security.kubernetes.io/enforce=restricted")
        claim = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "2Gi"}}}
        objects: list[dict[str, Any]] = [
            {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": ACCOUNT}},
            {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": CLAIM}, "spec": claim},
        ]
        for file in roles:
            for each in yaml.safe_load_all((MANIFESTS / "runs" / file).read_text(encoding="utf-8")):
                if each["kind"] == "RoleBinding":
                    each["subjects"] = [{"kind": "ServiceAccount", "name": ACCOUNT, "namespace": namespace}]
                objects.append(each)
        kubectl("--namespace", namespace, "create", "--filename=-", text=yaml.safe_dump_all(objects))
        yield StepPods(namespace, environment)
    finally:
        kubectl("delete", "namespace", namespace, "--wait=false")
