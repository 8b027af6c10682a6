"""Thin KFP wrapper of tidewheel.steps.evaluate."""

from kfp import dsl

from components.images import image_of


@dsl.component(base_image=image_of("evaluate"), install_kfp_package=False)
def evaluate(
    config: str,
    run_id: str,
    window_end: str,
    bundle: dsl.Input[dsl.Model],
    ranker: dsl.Input[dsl.Model],
    evaluation: dsl.Input[dsl.Dataset],
    randomized: dsl.Input[dsl.Dataset],
    baseline: dsl.Input[dsl.Artifact],
    report: dsl.Output[dsl.Artifact],
    roc: dsl.Output[dsl.ClassificationMetrics],
    roc_production: dsl.Output[dsl.ClassificationMetrics],
    metrics: dsl.Output[dsl.Metrics],
    summary: dsl.Output[dsl.Markdown],
) -> bool:
    """Judge the candidate on held-out rows, alone and against production. Returns whether it may be deployed.

    Args:
        config: the recipe's evaluate part, JSON.
        run_id: the run this step belongs to.
        window_end: end of the window, ISO 8601.
        bundle: manifest of the candidate.
        ranker: manifest of the ranker it was distilled from.
        evaluation: manifest of the held-out rows.
        randomized: manifest of the rows of requests whose order was random.
        baseline: production and teacher, pinned by digest.
        report: verdict and metrics with intervals.
        roc: the student's ROC and confusion matrix of the first gated label.
        roc_production: production's ROC of the same label; empty before the first release.
        metrics: the student's metrics and its differences to production.
        summary: the verdict, its reasons and the tables behind them, in words.
    """
    from tidewheel.steps import evaluate as step

    return step.main(
        config,
        run_id,
        window_end,
        {
            "bundle": bundle.path,
            "ranker": ranker.path,
            "eval": evaluation.path,
            "randomized": randomized.path,
            "baseline": baseline.path,
        },
        {"evaluation": report.path},
        roc,
        roc_production,
        metrics,
        summary.path,
    )
