"""The figures of judged candidates in the registry: MLflow on a database, and one that is down."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from tests.unit.evaluation.report.comparisons import comparison, metrics
from tidewheel.contracts.evidence import Evaluation
from tidewheel.contracts.recipe import WindowConfig
from tidewheel.contracts.report import Outcome, RunReport
from tidewheel.contracts.steps import ConcludePart
from tidewheel.contracts.verdict import Phase, Reason, combine
from tidewheel.contracts.window import Window
from tidewheel.errors import RetryableError
from tidewheel.steps import conclude as step
from tidewheel.steps.conclude import record_figures
from tidewheel.steps.tracking import Judged
from tidewheel.store import Home

NOW = datetime(2026, 1, 12, tzinfo=UTC)
FOUND = Evaluation(
    verdict=combine([Reason(check="auc", phase=Phase.FAILED, message="auc 0.71 < 0.75")]),
    metrics=metrics("student", "production"),
    comparison=comparison(),
)
PART = ConcludePart(recipe="quickstart", recipe_digest="ab" * 32, window=WindowConfig(days=7, first_end=NOW))


def report(outcome: Outcome = Outcome.REJECTED, dry_run: bool = False) -> RunReport:
    return RunReport(
        run_id="run-1",
        recipe="quickstart",
        recipe_digest="ab" * 32,
        window=Window.ending(NOW, 7),
        outcome=outcome,
        reason="",
        dry_run=dry_run,
        steps=(),
        bundle="b" * 64,
    )


@pytest.fixture
def home(tmp_path: Path) -> Home:
    home = Home.resolve(tmp_path, {})
    home.store().put("documents/run-1/evaluate.evaluation.json", FOUND.to_json())
    return home


def runs(home: Home) -> list[Any]:
    from mlflow import MlflowClient

    client = MlflowClient(home.registry_url)
    return list(client.search_runs([client.get_experiment_by_name("quickstart").experiment_id]))


def test_a_rejected_candidate_has_one_run_however_often_it_is_concluded(home: Home) -> None:
    for _ in range(2):
        assert record_figures(PART, home, home.store(), report()) == ""
    (found,) = runs(home)
    assert found.info.run_name == "run-1"
    assert {name: value for name, value in found.data.tags.items() if name.startswith("tidewheel.")} == {
        "tidewheel.run_id": "run-1",
        "tidewheel.recipe": "quickstart",
        "tidewheel.bundle": "b" * 64,
        "tidewheel.verdict": "Failed",
        "tidewheel.outcome": "rejected",
    }
    logged = found.data.metrics
    assert (logged["student.click.auc"], logged["student.click.auc.lower"]) == (0.5, 0.49)
    assert logged["difference.click.auc"] == 0.0123
    assert logged["replay.difference.click.snips"] == 0.0112
    assert logged["stability.click.top_churn"] == 0.1357


@pytest.mark.parametrize(
    "report", [report(Outcome.PROMOTED), report(Outcome.DATA_REJECTED), report(Outcome.FAILED), report(dry_run=True)]
)
def test_nothing_else_is_recorded_here_nor_any_registry_started(
    report: RunReport, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(step, "BackgroundRegistry", None)  # calling it would raise
    assert record_figures(PART, home, home.store(), report) == ""


def test_a_registry_that_is_down_is_said_and_fails_nothing(tmp_path: Path, home: Home) -> None:
    (tmp_path / "file").write_text("")
    broken = Home.resolve(tmp_path, {"MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path / 'file' / 'registry.db'}"})
    said = record_figures(PART, broken, home.store(), report())
    assert said.startswith("figures not recorded: registry: ")


class Memory:
    """Keeps what it is given, or has died."""

    def __init__(self, is_dead: bool = False) -> None:
        self.is_dead = is_dead
        self.kept: list[tuple[str, Mapping[str, str], Mapping[str, float]]] = []

    def record(self, run: str, tags: Mapping[str, str], figures: Mapping[str, float]) -> None:
        if self.is_dead:
            raise RetryableError("registry: its process ended (killed)")
        self.kept.append((run, tags, figures))

    def unrecorded(self) -> str:
        return ""


def test_what_is_announced_is_concluded_with_the_same_figures_and_the_outcome() -> None:
    memory = Memory()
    judged = Judged("run-1", "quickstart", "b" * 64, FOUND)
    judged.announce(memory)
    assert judged.conclude(memory, "promoted") == ""
    (first, second) = memory.kept
    assert first[2] == second[2]
    assert second[1] == {**first[1], "tidewheel.outcome": "promoted"}


def test_a_recorder_that_died_is_said_once_at_the_end() -> None:
    memory, judged = Memory(is_dead=True), Judged("run-1", "quickstart", "b" * 64, FOUND)
    judged.announce(memory)
    assert judged.conclude(memory, "promoted") == "figures not recorded: registry: its process ended (killed)"


def test_what_the_store_has_lost_is_said(tmp_path: Path) -> None:
    memory, judged = Memory(), Judged.of(Home.resolve(tmp_path, {}).store(), "run-1", "quickstart", "b" * 64)
    judged.announce(memory)
    assert judged.conclude(memory, "promoted") == ("figures not recorded: run run-1: what evaluate found is not in the store")
    assert memory.kept == []
