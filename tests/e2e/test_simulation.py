"""The main job: three weekly turns of the quickstart, as `make run` does them, and what a person does next."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.e2e.command import QUICKSTART, Ended, tidewheel
from tidewheel.contracts.report import Outcome, RunReport

pytestmark = pytest.mark.slow


@dataclass(frozen=True)
class Simulation:
    home: Path
    ended: Ended
    reports: tuple[RunReport, ...]


@pytest.fixture(scope="module")
def simulation(tmp_path_factory: pytest.TempPathFactory) -> Simulation:
    home = tmp_path_factory.mktemp("simulation") / "home"
    ended = tidewheel("simulate", "--recipe", QUICKSTART, "--turns", "3", "--home", home, "--json")
    assert ended.code == 0, ended.err
    reports = tuple(RunReport.parse(json.dumps(document), "simulate") for document in ended.document)
    return Simulation(home, ended, reports)


def test_the_first_is_released_the_second_promoted_the_harmful_one_rolled_back(simulation: Simulation) -> None:
    assert [report.outcome for report in simulation.reports] == [Outcome.BOOTSTRAP, Outcome.PROMOTED, Outcome.ROLLED_BACK]


def test_the_second_learned_from_the_first_and_the_third_from_the_second(simulation: Simulation) -> None:
    first, second, third = simulation.reports

    assert [report.teacher for report in simulation.reports] == [None, first.bundle, second.bundle]
    assert [report.production for report in simulation.reports] == [first.bundle, second.bundle, second.bundle]
    assert third.bundle not in (first.bundle, second.bundle)


def test_the_fault_was_invisible_offline_and_seen_by_the_canary(simulation: Simulation) -> None:
    third = simulation.reports[2]

    assert third.verdicts["validate_data"].is_successful
    assert third.verdicts["evaluate"].is_successful
    assert not third.verdicts["deploy"].is_successful
    assert re.search(r"engagement|calibration", third.reason)


def test_retraining_paid_on_the_world_whose_tastes_turn(simulation: Simulation) -> None:
    second = simulation.reports[1]
    auc = {model: second.metrics[model]["click"]["auc"].value for model in ("student", "production")}

    assert auc["student"] is not None
    assert auc["production"] is not None
    assert auc["student"] > auc["production"]


def test_every_step_is_in_the_report_with_its_time(simulation: Simulation) -> None:
    steps = ["ingest", "sample", "validate_data", "train", "distill", "evaluate", "deploy"]
    for report in simulation.reports:
        assert [step.name for step in report.steps] == steps
        assert all(step.status == "succeeded" and step.seconds >= step.overhead_seconds > 0 for step in report.steps)


def test_the_weights_stand_for_the_unsampled_log(simulation: Simulation) -> None:
    """4,000 requests a day show 8 items for 7 days, 10% of them randomized and 2% left before anything was seen: train and
    calibration have 6 days of the rest.
    """
    data = simulation.reports[0].datasets
    shown = 4000 * 8 * 6 * 0.9 * 0.98

    assert data["train"].weight_sum + data["calibration"].weight_sum == pytest.approx(shown, rel=0.02)
    assert data["train"].rows < data["train"].weight_sum


def test_reports_are_self_contained(simulation: Simulation) -> None:
    for report in simulation.reports:
        page = (simulation.home / "runs" / report.run_id / "report.html").read_text(encoding="utf-8")
        assert "<svg" in page
        assert not re.search(r"(src|href)=[\"']https?:|@import|<script", page)


def test_the_pipelines_artifacts_carry_the_reports_figures(simulation: Simulation) -> None:
    for report in simulation.reports:
        (path,) = (simulation.home / "runs" / report.run_id / "artifacts").glob("*/evaluate/executor_output.json")
        artifacts = json.loads(path.read_text(encoding="utf-8"))["artifacts"]
        shown = {name: found["artifacts"][0]["metadata"] for name, found in artifacts.items()}
        assert shown["metrics"]["student.click.auc"] == report.metrics["student"]["click"]["auc"].value
        curve = shown["roc"]["confidenceMetrics"]
        assert (curve[0]["recall"], curve[-1]["recall"]) == (0.0, 1.0)
        cells = [cell for row in shown["roc"]["confusionMatrix"]["rows"] for cell in row["row"]]
        assert sum(cells) == pytest.approx(report.datasets["eval"].weight_sum, abs=4)
        assert bool(shown["roc_production"]) == ("production" in report.metrics)
        summary = (path.parent / "summary").read_text(encoding="utf-8")
        assert summary.startswith(f"# {report.verdicts['evaluate'].phase.value}: ")


def test_every_judged_candidate_is_one_run_of_the_registry(simulation: Simulation) -> None:
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{simulation.home / 'registry.db'}")
    found = client.search_runs([client.get_experiment_by_name("quickstart").experiment_id])
    outcomes = {run.info.run_name: run.data.tags["tidewheel.outcome"] for run in found}
    assert outcomes == {report.run_id: report.outcome.value for report in simulation.reports}
    for run, report in ((run, next(r for r in simulation.reports if r.run_id == run.info.run_name)) for run in found):
        assert run.data.metrics["student.click.auc"] == report.metrics["student"]["click"]["auc"].value
        assert run.data.tags["tidewheel.bundle"] == report.bundle


def test_history_has_the_three_decisions(simulation: Simulation) -> None:
    entries = tidewheel("history", "--json", home=simulation.home).document

    assert [entry["decision"] for entry in entries] == ["bootstrap", "promoted", "rolled_back"]
    assert [entry["number"] for entry in entries] == [1, 2, 3]
    assert entries[1]["generation"] == 1


def test_status_and_explain_agree_with_the_report(simulation: Simulation) -> None:
    status = tidewheel("status", "--json", home=simulation.home).document
    latest = tidewheel("explain", "--json", home=simulation.home).document

    assert status["production"] == {"quickstart": simulation.reports[1].bundle}
    assert [run["outcome"] for run in status["runs"]] == ["bootstrap", "promoted", "rolled_back"]
    assert latest["run_id"] == simulation.reports[2].run_id


@pytest.mark.parametrize("verb", [["status"], ["explain"], ["history"], ["lineage"], ["doctor"]])
def test_tables_for_people_are_printed_too(simulation: Simulation, verb: list[str]) -> None:
    ended = tidewheel(*verb, home=simulation.home)

    assert ended.code == 0
    assert len(ended.out.splitlines()) > 2


def test_the_registry_names_production_as_the_ledger_does(simulation: Simulation) -> None:
    ended = tidewheel("reconcile", "--json", home=simulation.home)

    assert ended.document == {"repaired": []}


def test_a_second_look_at_the_same_week_reuses_what_did_not_change(simulation: Simulation) -> None:
    ended = tidewheel("run", "--recipe", QUICKSTART, "--window-end", "2026-01-19", "--dry-run", "--json", home=simulation.home)

    reused = {step["name"]: step["reused"] for step in ended.document["steps"]}
    assert ended.code == 0, ended.err
    assert reused["ingest"]
    assert reused["sample"]
    assert not reused["deploy"]
    assert ended.document["dry_run"]
    assert ended.document["production"] == simulation.reports[2].production
    assert len(tidewheel("history", "--json", home=simulation.home).document) == 3


def test_the_lineage_names_every_teacher_and_who_may_teach(simulation: Simulation) -> None:
    first, second, third = (report.bundle for report in simulation.reports)

    made = tidewheel("lineage", "--json", home=simulation.home).document

    assert [(node["bundle"], node["teacher"], node["generation"]) for node in made] == [
        (first, None, 0),
        (second, first, 1),
        (third, second, 2),
    ]
    assert [node["serves"] for node in made] == [False, True, False]
    assert [node["untrusted"] for node in made] == [None, None, "rolled back by its canary (entry 3)"]


def test_a_run_says_why_its_teacher_teaches(simulation: Simulation) -> None:
    teachings = [
        tidewheel("explain", report.run_id, "--json", home=simulation.home).document["teaching"]
        for report in simulation.reports
    ]

    assert [teaching["reason"] for teaching in teachings] == [
        "nothing was released yet",
        "the newest release that may teach, generation 0 (ledger entry 1)",
        "the newest release that may teach, generation 1 (ledger entry 2)",
    ]


def test_rollback_goes_back_to_the_first_and_can_be_explained(simulation: Simulation) -> None:
    """The last test of the group: it changes the home."""
    first = simulation.reports[0].bundle

    ended = tidewheel("rollback", "--reason", "complaints", "--json", home=simulation.home)

    assert ended.code == 0, ended.err
    assert ended.document["entry"]["decision"] == "reverted"
    assert tidewheel("status", "--json", home=simulation.home).document["production"]["quickstart"] == first
    assert tidewheel("history", "--json", home=simulation.home).document[-1]["reason"] == "complaints"
    assert tidewheel("rollback", "--reason", "again", home=simulation.home).code == 2

    ended = tidewheel("quarantine", str(first)[:8], "--reason", "wrong labels", "--json", home=simulation.home)

    assert ended.code == 0, ended.err
    assert (ended.document["entry"]["decision"], ended.document["entry"]["production"]) == ("quarantined", first)
    assert ended.document["untrusted"] == {first: "quarantined (entry 5: wrong labels)"}
    assert tidewheel("quarantine", str(first)[:8], "--reason", "again", home=simulation.home).code == 2
