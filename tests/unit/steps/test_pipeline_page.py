"""What a pipeline's UI shows of `evaluate`, in the orchestrator's own artifacts."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from google.protobuf import json_format, struct_pb2
from kfp import dsl

from tests.unit.evaluation.report.comparisons import comparison, estimate, metrics
from tidewheel.contracts.comparison import Comparability, Confusion, Curves, RocPoint
from tidewheel.contracts.evidence import Baseline, Evaluation
from tidewheel.contracts.recipe import LabelConfig, Recipe
from tidewheel.contracts.steps import parts
from tidewheel.contracts.teacher import TeacherChoice
from tidewheel.contracts.verdict import Phase, Reason, combine
from tidewheel.steps import evaluate as step
from tidewheel.steps.job import Result
from tidewheel.steps.pipeline_page import PipelinePage, show

LABELS = [LabelConfig(name="like", gated=False), LabelConfig(name="click")]
EVIL = "<b>|x|</b> `y` *z*"


@dataclass
class Artifacts:
    """One of each, as the executor hands them to a component."""

    folder: Path
    roc: dsl.ClassificationMetrics = field(default_factory=dsl.ClassificationMetrics)
    roc_production: dsl.ClassificationMetrics = field(default_factory=dsl.ClassificationMetrics)
    metrics: dsl.Metrics = field(default_factory=dsl.Metrics)

    @property
    def page(self) -> PipelinePage:
        return PipelinePage(self.roc, self.roc_production, self.metrics, self.folder / "deep" / "summary")

    @property
    def summary(self) -> str:
        return self.page.summary.read_text(encoding="utf-8")


@pytest.fixture
def artifacts(tmp_path: Path) -> Artifacts:
    return Artifacts(tmp_path)


def points(bend: float) -> tuple[RocPoint, ...]:
    corners = ((1.1, 0.0, 0.0), (0.5, 0.2, bend), (0.0, 1.0, 1.0))
    return tuple(RocPoint(threshold=t, false_positive_rate=f, true_positive_rate=r) for t, f, r in corners)


def curves(*models: str) -> Curves:
    matrix = Confusion(threshold=0.5, true_positive=10.4, false_positive=20.5, false_negative=30.6, true_negative=40.0)
    roc = {model: {"like": points(0.3), "click": points(0.7 + i / 10)} for i, model in enumerate(models)}
    return Curves(roc=roc, confusion={"click": matrix} if models else {})


def evaluation(**changes: object) -> Evaluation:
    reasons = [
        Reason(check="auc click", phase=Phase.SUCCESSFUL, message="auc click: fine", value=0.7, limit=0.6),
        Reason(check="ece click", phase=Phase.FAILED, message=f"ece click: {EVIL}", value=0.2, limit=0.05),
    ]
    return Evaluation(verdict=combine(reasons), metrics=metrics("student", "production"), comparison=comparison(**changes))


def test_the_first_gated_label_is_drawn_with_its_matrix(artifacts: Artifacts) -> None:
    show(artifacts.page, evaluation(), curves("student", "production"), LABELS)
    assert artifacts.roc.metadata["label"] == "click"
    assert artifacts.roc.metadata["confidenceMetrics"][1] == {
        "confidenceThreshold": 0.5,
        "falsePositiveRate": 0.2,
        "recall": 0.7,
    }
    assert artifacts.roc_production.metadata["confidenceMetrics"][1]["recall"] == pytest.approx(0.8)
    assert "confusionMatrix" not in artifacts.roc_production.metadata
    matrix = artifacts.roc.metadata["confusionMatrix"]
    assert [each["displayName"] for each in matrix["annotationSpecs"]] == ["click", "no click"]
    assert [each["row"] for each in matrix["rows"]] == [[10, 31], [20, 40]]


def test_numbers_are_metrics_and_the_rest_is_in_words(artifacts: Artifacts) -> None:
    show(artifacts.page, evaluation(), curves("student"), LABELS)
    logged = artifacts.metrics.metadata
    assert logged["student.click.auc"] == 0.5
    assert logged["difference.click.auc"] == 0.0123
    assert logged["difference.click.auc.lower"] == pytest.approx(0.0023)
    assert logged["replay.difference.click.snips"] == 0.0112
    assert logged["stability.click.kendall_tau"] == 0.8765
    assert not any(name.startswith(("production.", "randomized.")) for name in logged)


def test_metadata_survives_the_trip_to_the_metadata_store(artifacts: Artifacts) -> None:
    show(artifacts.page, evaluation(differences={"click": {"auc": estimate(None)}}), curves("student", "production"), LABELS)
    for artifact in (artifacts.roc, artifacts.roc_production, artifacts.metrics):
        text = json.dumps(artifact.metadata, allow_nan=False)
        kept = json_format.MessageToDict(json_format.Parse(text, struct_pb2.Struct()))
        assert kept.keys() == artifact.metadata.keys()
    assert "difference.click.auc" not in artifacts.metrics.metadata


def test_a_first_release_leaves_productions_curve_empty(artifacts: Artifacts) -> None:
    show(artifacts.page, evaluation(), curves("student"), LABELS)
    assert artifacts.roc_production.metadata == {}


def test_without_curves_the_rest_is_shown(artifacts: Artifacts) -> None:
    show(artifacts.page, evaluation(), Curves(), LABELS)
    assert artifacts.roc.metadata == {}
    assert artifacts.summary.startswith("# Failed: ")
    assert "ROC" not in artifacts.summary


def test_the_page_says_the_verdict_what_would_have_changed_it_and_every_table(artifacts: Artifacts) -> None:
    show(artifacts.page, evaluation(), curves("student"), LABELS)
    lines = artifacts.summary.splitlines()
    failed, passed = lines.index(next(x for x in lines if x.startswith("- ✗"))), lines.index("- ✓ auc click: fine")
    assert failed < passed
    for title in ("The numbers behind each gate", "Replay: what users would have done", "Rank churn", "Slices"):
        assert f"## {title}" in lines
    assert any(line.startswith("- ece click: passes with a limit of ") for line in lines)
    widths = [(line.count("|") - line.count("\\|")) for line in lines if line.startswith("| click | AUC |")]
    assert widths == [8, 4, 6]  # numbers, releases, randomized: as many cells as their heads have


def test_words_from_outside_change_neither_table_nor_page(artifacts: Artifacts) -> None:
    show(artifacts.page, evaluation(slices={EVIL: {EVIL: metrics("x", labels=("click",))["x"]}}), curves("student"), LABELS)
    assert "<b>" not in artifacts.summary
    assert "&lt;b&gt;\\|x\\|&lt;/b&gt; \\`y\\` \\*z\\*" in artifacts.summary


def test_an_incompatible_baseline_stands_above_the_reasons(artifacts: Artifacts) -> None:
    found = evaluation(baseline=Comparability.INCOMPATIBLE, missing_features=("item_age",))
    show(artifacts.page, found, curves("student"), LABELS)
    assert artifacts.summary.index("BASELINE\\_INCOMPATIBLE") < artifacts.summary.index("- ✗")
    assert "item\\_age" in artifacts.summary


def test_a_reused_step_shows_what_the_first_one_showed(
    quickstart: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    baseline = Baseline(production=None, teaching=TeacherChoice(reason="none"), ledger_number=0)
    baseline.write(tmp_path / "baseline")
    inputs = {"baseline": str(tmp_path / "baseline")}
    for name in ("bundle", "ranker", "eval", "randomized"):
        (tmp_path / name).write_text(name)
        inputs[name] = str(tmp_path / name)
    monkeypatch.setenv("TIDEWHEEL_HOME", str(tmp_path / "home"))
    made = [Result(documents={"evaluation": evaluation().to_json(), "curves": curves("student", "production").to_json()})]
    monkeypatch.setattr(step, "work", lambda part, job: made.pop())  # the second run would find none left
    config = parts(quickstart)["evaluate"].to_json()
    shown = []
    for run in ("run-1", "run-2"):
        found = Artifacts(tmp_path / run)
        outputs = {"evaluation": str(tmp_path / run / "report")}
        summary = str(found.page.summary)
        accepted = step.main(
            config, run, "2026-01-12", inputs, outputs, found.roc, found.roc_production, found.metrics, summary
        )
        shown.append((accepted, found.roc.metadata, found.roc_production.metadata, found.metrics.metadata, found.summary))
    assert shown[0] == shown[1]
    assert shown[0][0] is False
    assert shown[1][1]["label"] == "click"
