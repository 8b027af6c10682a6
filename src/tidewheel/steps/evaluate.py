"""Evaluate: the candidate on held-out rows, alone and against production. A rejected candidate ends the run green."""

from __future__ import annotations

import json
from pathlib import Path

from tidewheel.contracts.base import digest_of
from tidewheel.contracts.bundle import BundleManifest
from tidewheel.contracts.comparison import Curves
from tidewheel.contracts.evidence import Baseline, Evaluation, ModelManifest
from tidewheel.contracts.steps import EvaluatePart
from tidewheel.evaluation.comparison_drawings import draw_comparison
from tidewheel.evaluation.curves import curves
from tidewheel.evaluation.drawings import draw
from tidewheel.evaluation.evaluate import evaluate
from tidewheel.ranker.bundle import load_bundle, load_model
from tidewheel.ranker.columns import columns_of
from tidewheel.ranker.scorer import GraphScorer, Scorer
from tidewheel.steps.job import Job, Result, run_step
from tidewheel.steps.pipeline_page import CurveArtifact, MetricArtifact, PipelinePage, show
from tidewheel.steps.tables import read


def main(
    config: str,
    run_id: str,
    window_end: str,
    inputs: dict[str, str],
    outputs: dict[str, str],
    roc: CurveArtifact,
    roc_production: CurveArtifact,
    metrics: MetricArtifact,
    summary: str,
) -> bool:
    part = EvaluatePart.parse(config, "evaluate")

    def key(job: Job) -> object:
        production = job.input("baseline", Baseline).production
        digests = job.input_digests()
        return [part.model_dump(mode="json"), production, *(digests[name] for name in ("bundle", "ranker", "eval"))]

    result = run_step("evaluate", run_id, window_end, inputs, outputs, lambda job: work(part, job), key)
    found = Evaluation.parse(result.documents["evaluation"], "evaluate")
    curves_kept = Curves.parse(result.documents.get("curves", "{}"), "evaluate curves")  # none in results of older versions
    show(PipelinePage(roc, roc_production, metrics, Path(summary)), found, curves_kept, part.labels)
    return found.verdict.is_successful


def work(part: EvaluatePart, job: Job) -> Result:
    baseline = job.input("baseline", Baseline)
    candidate = load_bundle(job.store, job.input("bundle", BundleManifest).digest)
    ranker_folder, ranker = load_model(job.store, digest_of(job.input("ranker", ModelManifest)))
    table = read(*job.dataset("eval"))
    scores = {
        "ranker": GraphScorer(ranker_folder, ranker, threads=2).score(columns_of(table, ranker.features)),
        "student": Scorer(candidate, threads=2).score(columns_of(table, candidate.manifest.features)),
    }
    if baseline.production:
        production = load_bundle(job.store, baseline.production)
        scores["production"] = Scorer(production, threads=2).score(columns_of(table, production.manifest.features))
    job.progress(0.2, "scored")
    found, figures = evaluate(table, scores, part.labels, part.evaluate)
    job.progress(0.8, "judged")
    drawn = curves(table, scores, [label.name for label in part.labels])
    return Result(
        documents={
            "evaluation": found.to_json(),
            "curves": drawn.to_json(),
            "drawings": json.dumps(draw(figures) | draw_comparison(found.comparison, drawn, part.evaluate.max_slice_drop)),
        },
        summary=f"{found.verdict.phase.value}: {found.verdict.explain()}"[:200],
    )
