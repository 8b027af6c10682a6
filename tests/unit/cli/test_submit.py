"""The end of a submitted run that was waited for."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.unit.cli.test_gc import report
from tidewheel.cli.submit import _wait, ending
from tidewheel.cluster.backend import RunState, TaskState
from tidewheel.contracts.report import Outcome
from tidewheel.steps.records import put_report
from tidewheel.store import Home

DOCUMENT = {"run_id": "a-run", "address": "http://backend/#/runs/details/a-run"}


def ended(state: str = "SUCCEEDED", *failed: str) -> RunState:
    tasks = (TaskState("ingest", "SUCCEEDED", 3.0), *(TaskState(name, "FAILED", 1.0) for name in failed))
    return RunState("a-run", state, tasks)


def test_a_run_whose_store_is_known_ends_with_its_outcome(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TIDEWHEEL_STORE", str(tmp_path / "store"))
    monkeypatch.setenv("TIDEWHEEL_HOME", str(tmp_path / "home"))
    put_report(Home.resolve(None).store(), report("a-run", outcome=Outcome.DATA_REJECTED), {})

    assert _wait(DOCUMENT, lambda: ended("FAILED", "ingest-2"), 300.0, as_json=True) == 3, (
        "what the run says, not the names of tasks"
    )
    said = json.loads(capsys.readouterr().out)
    assert (said["report"]["outcome"], said["state"]) == ("data_rejected", "FAILED")
    assert _wait(DOCUMENT, lambda: ended("FAILED"), 300.0, as_json=False) == 3
    assert "run a-run data_rejected: why" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("state", "failed", "code"), [("SUCCEEDED", (), 0), ("FAILED", ("validate-data",), 3), ("FAILED", ("train",), 1)]
)
def test_without_the_store_it_ends_with_what_the_backend_says(
    state: str, failed: tuple[str, ...], code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TIDEWHEEL_STORE", raising=False)

    assert ending("a-run") is None
    assert _wait(DOCUMENT, lambda: ended(state, *failed), 300.0, as_json=False) == code
