"""What a run says of itself is found from any machine that shares its store."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from tidewheel.cli.inspect import explain
from tidewheel.cli.recipes import load_recipe
from tidewheel.cli.status import status
from tidewheel.contracts.base import canonical_json
from tidewheel.contracts.report import Outcome, RunReport
from tidewheel.contracts.steps import parts
from tidewheel.errors import ContractError
from tidewheel.steps import conclude
from tidewheel.steps.job import Job, Result, run_step
from tidewheel.steps.records import end_of, records_of, report_of
from tidewheel.store import Home

RECIPE = load_recipe(Path(__file__).parents[3] / "recipes" / "quickstart.yaml")
END = "2026-01-12T00:00:00+00:00"


@pytest.fixture
def machines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path, Path]:
    """Three machines that share nothing but the store."""
    monkeypatch.setenv("TIDEWHEEL_STORE", str(tmp_path / "store"))
    monkeypatch.delenv("TIDEWHEEL_RUN_ID", raising=False)
    return tmp_path / "one", tmp_path / "two", tmp_path / "three"


def work_on(machine: Path, step: str, run_id: str, monkeypatch: pytest.MonkeyPatch, fault: str = "") -> None:
    monkeypatch.setenv("TIDEWHEEL_HOME", str(machine))

    def work(job: Job) -> Result:
        if fault:
            raise ContractError(fault)
        return Result(documents={}, summary="all of it")

    run_step(step, run_id, END, {}, {}, work, reuse_key=None)


def conclude_on(machine: Path, run_id: str, monkeypatch: pytest.MonkeyPatch) -> RunReport:
    monkeypatch.setenv("TIDEWHEEL_HOME", str(machine))
    conclude.main(canonical_json(parts(RECIPE)["conclude"].model_dump(mode="json")), run_id, END, False)
    return RunReport.read(machine / "runs" / run_id / "run.json")


def test_the_exit_handler_knows_the_steps_that_ran_on_other_machines(
    machines: tuple[Path, Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two, three = machines
    work_on(one, "ingest", "a-run", monkeypatch)
    with pytest.raises(ContractError):
        work_on(two, "sample", "a-run", monkeypatch, fault="no rows of 2026-01-11")

    report = conclude_on(three, "a-run", monkeypatch)

    assert [(step.name, step.status) for step in report.steps] == [("ingest", "succeeded"), ("sample", "failed")]
    assert (report.outcome, report.reason) == (Outcome.DATA_REJECTED, "no rows of 2026-01-11")
    assert report_of(Home.resolve(three).store(), "a-run") == report
    assert end_of(report) >= max(step.started for step in report.steps)


def test_status_and_explain_know_runs_of_other_machines(
    machines: tuple[Path, Path, Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    one, two, three = machines
    work_on(one, "ingest", "ended", monkeypatch)
    conclude_on(two, "ended", monkeypatch)
    work_on(two, "ingest", "working", monkeypatch)

    status(20, False, "", str(three), as_json=False)
    shown = capsys.readouterr().out
    assert "ended" in shown
    assert "at work" in shown
    assert not (three / "runs").exists(), "looking changes nothing"

    explain("ended", str(three), as_json=True)
    assert RunReport.parse(capsys.readouterr().out, "explain").run_id == "ended"


def test_a_step_that_was_killed_stays_at_work_in_its_record(
    machines: tuple[Path, Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two, _ = machines
    work_on(one, "ingest", "a-run", monkeypatch)
    store = Home.resolve(one).store()
    (record,) = records_of(store, "a-run")
    killed = record.model_copy(update={"name": "train", "status": "running", "started": datetime.now(UTC)})
    store.put("documents/a-run/train.record.json", killed.to_json())

    report = conclude_on(two, "a-run", monkeypatch)
    assert (report.outcome, report.reason) == (Outcome.FAILED, "train was killed before it ended")
