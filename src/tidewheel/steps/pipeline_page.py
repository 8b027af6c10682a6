"""What `evaluate` shows in a pipeline's UI: ROC, confusion matrix, metrics and a page of words.

The orchestrator's artifacts are filled by the few verbs named here; nothing of it is imported.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from tidewheel.contracts.comparison import Confusion, Curves, RocPoint
from tidewheel.contracts.evidence import Evaluation
from tidewheel.contracts.recipe import LabelConfig
from tidewheel.evaluation.report.scalars import scalars
from tidewheel.evaluation.report.summary import markdown

SHOWN = ("student.", "difference.", "replay.difference.", "stability.")  # all of them are in run.json and in the registry
BOUNDS = (".lower", ".upper")


class CurveArtifact(Protocol):
    """An artifact that holds one ROC curve and one confusion matrix; both verbs keep what they are given."""

    metadata: dict[str, Any]

    def log_roc_curve(self, fpr: list[float], tpr: list[float], threshold: list[float]) -> None: ...

    def log_confusion_matrix(self, categories: list[str], matrix: list[list[int]]) -> None: ...


class MetricArtifact(Protocol):
    """An artifact that holds numbers by name."""

    def log_metric(self, metric: str, value: float) -> None: ...


@dataclass(frozen=True)
class PipelinePage:
    """Where to show it. `summary` is the path of a Markdown file."""

    student: CurveArtifact
    production: CurveArtifact
    metrics: MetricArtifact
    summary: Path


def show(page: PipelinePage, found: Evaluation, curves: Curves, labels: Sequence[LabelConfig]) -> None:
    """Fill every artifact from what `evaluate` kept. Metadata gets finite numbers only; what is not known is left out.

    A UI draws one curve an artifact: that of the first gated label that has one.
    """
    gated_first = sorted(labels, key=lambda label: not label.gated)
    drawn = next((label.name for label in gated_first if label.name in curves.roc.get("student", {})), "")
    for model, artifact in (("student", page.student), ("production", page.production)):
        if points := curves.roc.get(model, {}).get(drawn, ()):
            _curve(artifact, points)
            artifact.metadata["label"] = drawn
    if drawn in curves.confusion:
        _matrix(page.student, drawn, curves.confusion[drawn])
    for name, value in scalars(found.metrics, found.comparison):
        if name.startswith(SHOWN) and (not name.endswith(BOUNDS) or name.startswith("difference.")):
            page.metrics.log_metric(name, value)
    page.summary.parent.mkdir(parents=True, exist_ok=True)
    page.summary.write_text(markdown(found, drawn), encoding="utf-8")


def _curve(artifact: CurveArtifact, points: Sequence[RocPoint]) -> None:
    artifact.log_roc_curve(
        [point.false_positive_rate for point in points],
        [point.true_positive_rate for point in points],
        [point.threshold for point in points],
    )


def _matrix(artifact: CurveArtifact, label: str, found: Confusion) -> None:
    """Rows are what happened, columns what the student said, in whole impressions of the full log."""
    cells = [[found.true_positive, found.false_negative], [found.false_positive, found.true_negative]]
    artifact.log_confusion_matrix([label, f"no {label}"], [[round(cell) for cell in row] for row in cells])
