"""A step whose work goes on in a second pod: the API server is in memory, what its pod runs is a real process."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from tests.unit.pods.api_server import NAMESPACE, ApiServer, killed, pod, served
from tests.unit.steps import beside_step
from tidewheel.contracts.base import canonical_json
from tidewheel.contracts.memory import Learned
from tidewheel.contracts.placement import Placed, StepPlacement
from tidewheel.contracts.report import StepRecord
from tidewheel.errors import ContractError, RetryableError
from tidewheel.steps.records import record_of
from tidewheel.store import Store

GIB = 2**30
ROOT = Path(__file__).parents[3]
STATUS = {"name": "main", "image": "i", "imageID": "i", "ready": False, "restartCount": 0}
PLACED = Placed(step=StepPlacement(memory="1Gi", queue="q"))


class Second:
    """Runs what a second pod would, at once; `ends`: its status instead, where it is given."""

    def __init__(self) -> None:
        self.ends: dict[str, Any] | None = None
        self.memory: list[str] = []

    def __call__(self, made: dict[str, Any]) -> dict[str, Any]:
        (container,) = made["spec"]["containers"]
        self.memory.append(container["resources"]["limits"]["memory"])
        if self.ends is not None:
            return self.ends
        known = {each["name"]: each["value"] for each in container["env"] if "value" in each}
        ended = subprocess.run(
            container["command"], env=os.environ | known | {"PYTHONPATH": f"{ROOT / 'src'}:{ROOT}"}, capture_output=True
        )
        return {"phase": "Failed" if ended.returncode else "Succeeded"}


@pytest.fixture
def second(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Second]:
    """This process is the pod of a step in a queue, whose recipe has learned that it needs 2Gi."""
    nothing: dict[str, Any] = {"items": []}
    core = f"/api/v1/namespaces/{NAMESPACE}"
    found = Second()
    mine = pod("mine", "1Gi")
    mine["metadata"]["labels"]["kueue.x-k8s.io/managed"] = "true"
    mine["spec"]["containers"][1]["image"] = "i"
    server = ApiServer({"mine": mine}, {f"{core}/resourcequotas": nothing, f"{core}/limitranges": nothing}, starts=found)
    environment = {
        "TIDEWHEEL_POD": "mine",
        "TIDEWHEEL_NAMESPACE": NAMESPACE,
        "TIDEWHEEL_RECIPE": "shop",
        "TIDEWHEEL_PLACED": canonical_json(PLACED.model_dump(mode="json")),
        "TIDEWHEEL_HOME": str(tmp_path / "home"),
        "TIDEWHEEL_STORE": str(tmp_path / "store"),
    }
    with served(server, tmp_path) as path:
        for name, value in (environment | {"KUBECONFIG": str(path)}).items():
            monkeypatch.setenv(name, value)
        known = Learned(rung_bytes=2 * GIB, killed_bytes=GIB, kills=1, at=datetime.now(UTC))
        store_of(tmp_path).put("memory/shop/train.json", known.to_json())
        yield found


def store_of(folder: Path) -> Store:
    return Store.open(str(folder / "store"))


def run(folder: Path, kind: str) -> str:
    handed = folder / "handed"
    handed.write_text("what came before", encoding="utf-8")
    outputs = {"made": str(folder / "outputs" / "made")}
    beside_step.main("r1", "2026-01-12T00:00:00+00:00", {"found": str(handed)}, outputs, kind, True)
    return Path(outputs["made"]).read_text(encoding="utf-8")


def record(folder: Path) -> StepRecord:
    found = record_of(store_of(folder), "r1", "train")
    assert found is not None
    return found


def test_its_inputs_go_there_and_its_outputs_and_its_record_come_back(second: Second, tmp_path: Path) -> None:
    assert run(tmp_path, "work") == "work True what came before"
    assert second.memory == ["2048Mi"]
    assert (record(tmp_path).status, record(tmp_path).summary) == ("succeeded", "work in a second pod")


def test_what_it_fails_of_is_what_the_step_fails_of(second: Second, tmp_path: Path) -> None:
    with pytest.raises(ContractError, match="the data is not what it should be"):
        run(tmp_path, "fail")
    failure = record(tmp_path).failure
    assert failure is not None
    assert (failure.kind, failure.message) == ("ContractError", "the data is not what it should be")


def test_one_that_was_killed_teaches_a_rung_for_the_next_try(second: Second, tmp_path: Path) -> None:
    mine = STATUS | {"state": killed(), "resources": {"limits": {"memory": "2Gi"}}}
    second.ends = {"phase": "Failed", "containerStatuses": [mine]}
    with pytest.raises(RetryableError, match="2Gi of memory was not enough; the next try gives more"):
        run(tmp_path, "work")
    second.ends = None
    assert run(tmp_path, "work") == "work True what came before"
    assert second.memory == ["2048Mi", "4096Mi"]


@pytest.mark.parametrize(
    ("kind", "ends", "words"),
    [
        ("vanish", None, "the pod of the step's work was lost: tidewheel-train-0: ended"),
        ("work", {"phase": "Failed", "reason": "Evicted", "message": "disk"}, "was lost: tidewheel-train-0: Evicted"),
    ],
)
def test_one_that_is_lost_is_worth_another_try(
    second: Second, tmp_path: Path, kind: str, ends: dict[str, Any] | None, words: str
) -> None:
    second.ends = ends
    with pytest.raises(RetryableError, match=words):
        run(tmp_path, kind)
    second.ends = None
    assert run(tmp_path, "work") == "work True what came before"
    assert second.memory == ["2048Mi", "2048Mi"]
