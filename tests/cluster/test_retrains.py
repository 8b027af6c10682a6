"""A run as kubectl shows it, written by its steps to a real API server."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.kubectl import get, kubectl, new_namespace, require_cluster
from tests.e2e.command import PROGRAM

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]

ROOT = Path(__file__).parents[2]
DEFINITION = ROOT / "manifests" / "crds"
PAGE = ROOT / "docs" / "operations" / "kubectl.md"
# A step in a process of its own, as a pod runs it: what it works on is not what is tested here.
STEP = """
import sys
from tidewheel.contracts.base import canonical_json
from tidewheel.contracts.verdict import Phase, Reason, combine
from tidewheel.errors import RejectedError
from tidewheel.steps.job import Result, run_step

name, run_id, says = sys.argv[1:]

def work(job):
    verdict = combine([Reason(check="volume", phase=Phase(says), message="12 rows, expected 100 to 200")])
    job.keep("verdict", verdict)
    if not verdict.is_successful:
        raise RejectedError(verdict.explain())
    return Result(documents={"verdict": verdict.to_json()}, summary="all of it")

run_step(name, run_id, "2026-01-12T00:00:00+00:00", {}, {}, work, None)
"""
CONCLUDE = """
import sys
from pathlib import Path
from tidewheel.cli.recipes import load_recipe
from tidewheel.contracts.base import canonical_json
from tidewheel.contracts.steps import parts
from tidewheel.steps import conclude

part = parts(load_recipe(Path("recipes/quickstart.yaml")))["conclude"]
conclude.main(canonical_json(part.model_dump(mode="json")), sys.argv[1], "2026-01-12T00:00:00+00:00", False)
"""


@pytest.fixture(scope="module")
def definition() -> Iterator[None]:
    require_cluster()
    was_there = "retrains.tidewheel.dev" in kubectl("get", "customresourcedefinitions", "--output=name")
    kubectl("apply", "--server-side", "--kustomize", str(DEFINITION))
    kubectl("wait", "--for=condition=Established", "customresourcedefinition/retrains.tidewheel.dev", "--timeout=60s")
    yield
    if not was_there:
        kubectl("delete", "--kustomize", str(DEFINITION))


@pytest.fixture
def namespace() -> Iterator[str]:
    require_cluster()
    name = new_namespace("retrains")
    yield name
    kubectl("delete", "namespace", name, "--wait=false")


def in_a_pod(
    code: str, arguments: tuple[str, ...], namespace: str, store: Path, **more: str
) -> subprocess.CompletedProcess[str]:
    """Each process has a home of its own, as each pod has."""
    environment = os.environ | {"TIDEWHEEL_STORE": str(store), "TIDEWHEEL_HOME": str(store.parent / f"home-{arguments[0]}")}
    environment |= {"TIDEWHEEL_NAMESPACE": namespace, "TIDEWHEEL_RECIPE": "quickstart"} | more
    environment.pop("TIDEWHEEL_RUN_ID", None)
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, check=False, timeout=300)


def conditions(namespace: str, run_id: str) -> dict[str, tuple[str, str]]:
    found: dict[str, Any] = get(namespace, "retrain", run_id)
    return {one["type"]: (one["status"], one["reason"]) for one in found["status"]["conditions"]}


def events(namespace: str, run_id: str) -> list[tuple[str, str, str]]:
    found = get(namespace, "events", f"--field-selector=involvedObject.name={run_id}")["items"]
    return sorted((one["type"], one["reason"], one["message"]) for one in found)


@pytest.mark.usefixtures("definition")
def test_kubectl_follows_a_run_that_ends_with_rejected_data(namespace: str, tmp_path: Path) -> None:
    run_id, store = "quickstart-20260112-1", tmp_path / "store"
    assert in_a_pod(STEP, ("ingest", run_id, "Successful"), namespace, store).returncode == 0
    assert conditions(namespace, run_id) == {"Ingested": ("True", "Succeeded")}

    assert in_a_pod(STEP, ("validate_data", run_id, "Failed"), namespace, store).returncode != 0
    assert conditions(namespace, run_id)["DataValidated"] == ("False", "RejectedError")
    ended = in_a_pod(CONCLUDE, (run_id,), namespace, store)
    assert ended.returncode == 0, ended.stderr

    assert conditions(namespace, run_id)["Ended"] == ("True", "DataRejected")
    (header, row) = kubectl("--namespace", namespace, "get", "retrains").splitlines()
    assert header.split()[:5] == ["NAME", "RECIPE", "WINDOW", "END", "STEP"]
    assert row.split()[:3] == [run_id, "quickstart", "2026-01-12T00:00:00Z"]
    assert "validate_data: Failed" in row
    assert "data_rejected" in row
    words = "12 rows, expected 100 to 200"
    assert events(namespace, run_id) == [("Warning", "DataRejected", words), ("Warning", "DataValidatedFailed", words)]
    described = kubectl("--namespace", namespace, "describe", "retrain", run_id)
    assert words in described
    assert "DataValidatedFailed" in described
    labelled = kubectl("--namespace", namespace, "get", "retrains", f"--selector=tidewheel/run-id={run_id}", "--output=name")
    assert labelled.strip() == f"retrain.tidewheel.dev/{run_id}"


@pytest.mark.usefixtures("definition")
def test_a_step_that_is_tried_again_changes_nothing_that_was_said(namespace: str, tmp_path: Path) -> None:
    run_id, store = "quickstart-20260112-2", tmp_path / "store"
    for _ in range(2):
        in_a_pod(STEP, ("validate_data", run_id, "Failed"), namespace, store)

    assert conditions(namespace, run_id) == {"DataValidated": ("False", "RejectedError")}
    assert len(events(namespace, run_id)) == 1


@pytest.mark.usefixtures("definition")
def test_what_a_run_is_about_cannot_be_changed(namespace: str, tmp_path: Path) -> None:
    in_a_pod(STEP, ("ingest", "a-run", "Successful"), namespace, tmp_path / "store")
    patch = json.dumps({"spec": {"recipe": "another"}})

    with pytest.raises(AssertionError, match="a run is what it was when it began"):
        kubectl("--namespace", namespace, "patch", "retrain", "a-run", "--type=merge", "--patch", patch)


@pytest.mark.usefixtures("definition")
def test_a_step_without_the_right_works_on_and_says_so(namespace: str, tmp_path: Path) -> None:
    kubectl("--namespace", namespace, "create", "serviceaccount", "nobody")
    config = json.loads(kubectl("config", "view", "--raw", "--flatten", "--output=json"))
    token = kubectl("--namespace", namespace, "create", "token", "nobody").strip()
    config["users"] = [{"name": one["name"], "user": {"token": token}} for one in config["users"]]
    (tmp_path / "kubeconfig").write_text(json.dumps(config))

    done = in_a_pod(
        STEP, ("ingest", "a-run", "Successful"), namespace, tmp_path / "store", KUBECONFIG=str(tmp_path / "kubeconfig")
    )

    assert done.returncode == 0
    assert "kubectl shows nothing new of run a-run: 403 Forbidden" in done.stderr


def test_a_cluster_that_does_not_answer_does_not_stop_a_step(tmp_path: Path) -> None:
    nowhere = {"name": "x", "cluster": {"server": "https://127.0.0.1:1"}}
    context = {"name": "x", "context": {"cluster": "x", "user": "x"}}
    user = {"name": "x", "user": {"token": "t"}}
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [nowhere],
        "contexts": [context],
        "users": [user],
        "current-context": "x",
    }
    (tmp_path / "kubeconfig").write_text(json.dumps(config))

    done = in_a_pod(
        STEP, ("ingest", "a-run", "Successful"), "ranking", tmp_path / "store", KUBECONFIG=str(tmp_path / "kubeconfig")
    )

    assert done.returncode == 0
    assert "kubectl shows nothing new of run a-run: MaxRetryError" in done.stderr


@pytest.mark.usefixtures("definition")
def test_the_commands_of_the_page_work(namespace: str, tmp_path: Path) -> None:
    run_id = "quickstart-20260112-3"
    in_a_pod(STEP, ("ingest", run_id, "Successful"), namespace, tmp_path / "store")
    blocks = re.findall(r"```sh\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL)
    commands = [shlex.split(line.replace("RUN", run_id)) for block in blocks for line in block.splitlines()]

    said = [kubectl("--namespace", namespace, *words) for program, *words in commands if program == "kubectl"]

    assert len(said) == 5
    assert "unchanged" in said[0] or "serverside-applied" in said[0]
    assert all(run_id in text for text in said[1:4])
    environment = {**os.environ, "TIDEWHEEL_STORE": str(tmp_path / "store"), "TIDEWHEEL_HOME": str(tmp_path / "home")}
    (tmp_path / "home").mkdir()
    views = [
        subprocess.run([*PROGRAM, *words], capture_output=True, text=True, check=True, env=environment, timeout=120).stdout
        for program, *words in commands
        if program == "tidewheel"
    ]
    assert len(views) == 2
    retrain = {"kind": "Retrain", "namespace": namespace, "name": run_id, "state": "running, ingest"}
    assert json.loads(views[1])["cluster"]["runs"][run_id] == [retrain]
    assert list(json.loads(views[1])["at_work"]) == [run_id]
    assert f"{run_id}\n  Retrain {run_id}: running, ingest\n" in views[0]
