"""Evaluate: the candidate on held-out rows, alone and against production. A rejected candidate ends the run green."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tidewheel.contracts.base import digest_of
from tidewheel.contracts.bundle import BundleManifest
from tidewheel.contracts.comparison import Curves
from tidewheel.contracts.evidence import Baseline, Evaluation, ModelManifest
from tidewheel.contracts.steps import EvaluatePart
from tidewheel.errors import ContractError
from tidewheel.evaluation.curves import curves
from tidewheel.evaluation.evaluate import Beside, evaluate
from tidewheel.evaluation.report.comparison_drawings import draw_comparison
from tidewheel.evaluation.report.drawings import draw
from tidewheel.ranker.bundle import OpenBundle, load_bundle, load_model
from tidewheel.ranker.columns import columns_of
from tidewheel.ranker.scorer import GraphScorer, Scorer
from tidewheel.steps.beside import Again
from tidewheel.steps.job import Job, Result, run_step
from tidewheel.steps.pipeline_page import CurveArtifact, MetricArtifact, PipelinePage, show
from tidewheel.steps.production import missing_features, without
from tidewheel.steps.tables import read

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa


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
    result = judge(config, run_id, window_end, inputs, outputs)
    found = Evaluation.parse(result.documents["evaluation"], "evaluate")
    curves_kept = Curves.parse(result.documents.get("curves", "{}"), "evaluate curves")  # none in results of older versions
    labels = EvaluatePart.parse(config, "evaluate").labels
    show(PipelinePage(roc, roc_production, metrics, Path(summary)), found, curves_kept, labels)
    return found.verdict.is_successful


def judge(config: str, run_id: str, window_end: str, inputs: dict[str, str], outputs: dict[str, str]) -> Result:
    """The step without what it shows on the page of a pipeline."""
    part = EvaluatePart.parse(config, "evaluate")

    def key(job: Job) -> object:
        baseline = job.input("baseline", Baseline)
        digests = job.input_digests()
        compared = [baseline.production, *baseline.earlier]
        return [part.model_dump(mode="json"), compared, *(digests[name] for name in ("bundle", "ranker", "eval", "randomized"))]

    again = Again(entry=f"{__name__}:judge", arguments={"config": config})
    return run_step("evaluate", run_id, window_end, inputs, outputs, lambda job: work(part, job), key, again=again)


def work(part: EvaluatePart, job: Job) -> Result:
    baseline = job.input("baseline", Baseline)
    candidate = load_bundle(job.store, job.input("bundle", BundleManifest).digest)
    ranker_folder, ranker = load_model(job.store, digest_of(job.input("ranker", ModelManifest)))
    held_out, randomized = read(*job.dataset("eval")), read(*job.dataset("randomized"))
    scores = {
        "ranker": GraphScorer(ranker_folder, ranker, threads=2).score(columns_of(held_out, ranker.features)),
        "student": score(candidate, held_out),
    }
    on_randomized = {"student": score(candidate, randomized)}
    missing: tuple[str, ...] = ()
    if baseline.production:
        production = load_bundle(job.store, baseline.production)
        missing = missing_features(production, candidate.manifest.features, held_out)
        scores["production"] = score(production, held_out, missing)
        on_randomized["production"] = score(production, randomized, missing)
    releases, unmeasured = of_releases(baseline, job, candidate, held_out)
    beside = Beside(
        randomized=randomized if randomized.num_rows else None,
        randomized_scores=on_randomized,
        releases=releases,
        unmeasured=unmeasured,
        missing_features=missing,
    )
    job.progress(0.2, "scored")
    found, figures = evaluate(held_out, scores, part.labels, part.evaluate, beside)
    job.progress(0.8, "judged")
    drawn = curves(held_out, scores, [label.name for label in part.labels])
    return Result(
        documents={
            "evaluation": found.to_json(),
            "curves": drawn.to_json(),
            "drawings": json.dumps(draw(figures) | draw_comparison(found.comparison, drawn, part.evaluate.max_slice_drop)),
        },
        summary=f"{found.verdict.phase.value}: {found.verdict.explain()}"[:200],
    )


def of_releases(
    baseline: Baseline, job: Job, candidate: OpenBundle, rows: pa.Table
) -> tuple[dict[str, Mapping[str, np.ndarray]], dict[str, str]]:
    """Digest -> scores of each earlier release that can be measured on these rows, and digest -> why the others cannot."""
    scores, unmeasured = {}, {}
    for digest in baseline.earlier:
        try:
            release = load_bundle(job.store, digest)
        except ContractError as error:
            unmeasured[digest] = str(error)
            continue
        if missing := missing_features(release, candidate.manifest.features, rows):
            unmeasured[digest] = f"it takes {', '.join(missing)}, which these rows cannot give"
        else:
            scores[digest] = score(release, rows)
    return scores, unmeasured


def score(bundle: OpenBundle, rows: pa.Table, missing: Sequence[str] = ()) -> Mapping[str, np.ndarray]:
    """label -> probabilities (B,), with the features in `missing` as null."""
    return Scorer(bundle, threads=2).score(columns_of(without(rows, bundle, missing), bundle.manifest.features))
