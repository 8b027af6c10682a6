"""The images in a cluster, as strictly as one may ask: no root, nothing writable but /tmp and $TIDEWHEEL_HOME."""

from __future__ import annotations

import json
import os
import time
import tomllib
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tidewheel import __version__

ROOT = Path(__file__).parents[2]
IMAGES = tomllib.loads((ROOT / "images" / "images.toml").read_text(encoding="utf-8"))
PULL_SECONDS = 1200  # the trainer's gigabytes, on a busy node
pytestmark = [pytest.mark.cluster, pytest.mark.timeout(2 * PULL_SECONDS)]
NOT_THERE = ("ErrImagePull", "ImagePullBackOff", "InvalidImageName")

# What a pod finds out about itself, as one JSON document.
INSIDE = """
import hashlib, importlib.util, json, os, pathlib, shutil, subprocess, sys, time
def is_writable(folder):
    try:
        (pathlib.Path(folder) / "probe").write_text("")
        return True
    except OSError:
        return False
began = time.monotonic()
broken = {}
for name in sys.argv[1].split(","):
    done = subprocess.run([sys.executable, "-c", "import " + name], capture_output=True, text=True)
    if done.returncode:
        broken[name] = done.stderr.strip().splitlines()[-1]
sbom = json.loads(pathlib.Path("/opt/tidewheel/sbom.cdx.json").read_text())
executor = subprocess.run(
    [sys.executable, "-m", "kfp.dsl.executor_main", "--help"], capture_output=True, env={**os.environ, "_KFP_RUNTIME": "true"}
)
print(json.dumps({
    "broken": broken,
    "seconds": round(time.monotonic() - began, 1),
    "uid": os.getuid(),
    "writable": [name for name in ("/", "/opt/tidewheel", "/etc", "/tmp", os.environ["TIDEWHEEL_HOME"]) if is_writable(name)],
    "absent": [name for name in ("torch", "mlflow", "kfp", "pyspark", "pip") if importlib.util.find_spec(name) is None],
    "compilers": [name for name in ("cc", "gcc", "g++", "clang", "ld", "make", "nvcc") if shutil.which(name)],
    "java": shutil.which("java") is not None,
    "executor": executor.returncode == 0,
    "components": sorted(component["name"] for component in sbom["components"]),
    "command": subprocess.run(["tidewheel", "--version"], capture_output=True, text=True).stdout.strip(),
}))
"""


@pytest.fixture(scope="module")
def core() -> Any:
    """The API of the cluster of $KUBECONFIG."""
    if not os.environ.get("KUBECONFIG"):
        pytest.skip("needs a cluster: $KUBECONFIG is not set")
    from kubernetes import client, config

    config.load_kube_config()
    return client.CoreV1Api()


@pytest.fixture(scope="module")
def namespace(core: Any) -> Iterator[str]:
    name = f"tidewheel-images-{uuid.uuid4().hex[:6]}"
    core.create_namespace({"metadata": {"name": name, "labels": {"pod-security.kubernetes.io/enforce": "restricted"}}})
    yield name
    core.delete_namespace(name)


def pod_of(image: str, code: str, *arguments: str) -> dict:
    """A pod that the `restricted` pod security standard admits."""
    registry = os.environ.get("TIDEWHEEL_REGISTRY", "registry.local")
    strict = {
        "readOnlyRootFilesystem": True,
        "allowPrivilegeEscalation": False,
        "runAsNonRoot": True,
        "capabilities": {"drop": ["ALL"]},
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    return {
        "metadata": {"generateName": f"{image}-"},
        "spec": {
            "restartPolicy": "Never",
            "automountServiceAccountToken": False,
            "containers": [
                {
                    "name": "main",
                    "image": f"{registry}/tidewheel/{image}:{__version__}",
                    "imagePullPolicy": "Always",
                    "command": ["python", "-c", code, *arguments],
                    "securityContext": strict,
                    "volumeMounts": [
                        {"name": "scratch", "mountPath": "/tmp"},
                        {"name": "home", "mountPath": "/var/lib/tidewheel"},
                    ],
                }
            ],
            "volumes": [{"name": "scratch", "emptyDir": {}}, {"name": "home", "emptyDir": {}}],
        },
    }


def run(core: Any, namespace: str, image: str, code: str, *arguments: str) -> str:
    """What the pod printed.

    Skips where the cluster cannot get the image.
    """
    pod = core.create_namespaced_pod(namespace, pod_of(image, code, *arguments)).metadata.name
    end = time.monotonic() + PULL_SECONDS
    while time.monotonic() < end:
        status = core.read_namespaced_pod(pod, namespace).status
        for container in status.container_statuses or []:
            if container.state.waiting and container.state.waiting.reason in NOT_THERE:
                pytest.skip(f"{image}: the cluster has no such image ({container.state.waiting.message}); make images")
        if status.phase in ("Succeeded", "Failed"):
            # As it is: the client turns what looks like JSON into the text of a Python dict.
            log: str = core.read_namespaced_pod_log(pod, namespace, _preload_content=False).data.decode()
            assert status.phase == "Succeeded", log
            return log
        time.sleep(0.5)
    raise AssertionError(f"{image}: still {status.phase} after {PULL_SECONDS} s")


@pytest.fixture(scope="module")
def found(core: Any, namespace: str, image: str) -> dict:
    """What an image's pod said of itself."""
    row = IMAGES[image]
    names = [f"tidewheel.steps.{step}" for step in row["steps"]] + row.get("modules", []) + ["onnxruntime"]
    document: dict = json.loads(run(core, namespace, image, INSIDE, ",".join(names)).splitlines()[-1])
    print(f"{image}: imports {len(names)} modules in {document['seconds']} s, {len(document['components'])} distributions")
    return document


@pytest.fixture(scope="module", params=list(IMAGES))
def image(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_what_runs_in_it_imports_there(found: dict) -> None:
    assert found["broken"] == {}
    assert found["command"] == __version__


def test_it_is_not_root_and_writes_in_two_places_only(found: dict) -> None:
    assert found["uid"] == 10001
    assert found["writable"] == ["/tmp", "/var/lib/tidewheel"]


def test_it_has_no_compiler_and_nothing_that_others_need(found: dict, image: str) -> None:
    absent = {
        "python-serving": {"torch", "mlflow", "kfp", "pyspark", "pip"},
        "python-core": {"torch", "pyspark", "pip"},
        "python-data": {"torch", "mlflow", "pip"},
        "python-trainer": {"mlflow", "pyspark", "pip"},
    }[image]

    assert found["compilers"] == []
    assert absent <= set(found["absent"])
    assert found["java"] == IMAGES[image].get("java", False)


def test_kubeflow_can_run_a_component_in_it(found: dict, image: str) -> None:
    assert found["executor"] == bool(IMAGES[image]["steps"])


def test_its_inventory_lists_what_it_has(found: dict, image: str) -> None:
    assert {"tidewheel", "numpy", "s3fs"} <= set(found["components"])
    assert ("torch" in found["components"]) == (image == "python-trainer")


BOTH_ENGINES = """
from tidewheel.logs.session import embedded_session, spark_session
counts = []
for opened in (embedded_session(), spark_session("local[1]")):
    with opened as spark:
        counts.append(spark.range(7).count())
print("counted", counts)
"""


def test_tables_are_read_with_and_without_java(core: Any, namespace: str) -> None:
    assert "counted [7, 7]" in run(core, namespace, "python-data", BOTH_ENGINES)
