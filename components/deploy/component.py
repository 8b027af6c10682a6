"""Thin KFP wrapper of tidewheel.steps.deploy."""

from kfp import dsl

from components.images import image_of


@dsl.component(base_image=image_of("deploy"), install_kfp_package=False)
def deploy(
    config: str,
    run_id: str,
    window_end: str,
    reason: str,
    dry_run: bool,
    bundle: dsl.Input[dsl.Model],
    evaluation: dsl.Input[dsl.Dataset],
    baseline: dsl.Input[dsl.Artifact],
    rollout: dsl.Output[dsl.Artifact],
) -> None:
    """Register the candidate, canary it against production, promote it or roll it back, and write the ledger.

    Args:
        config: the recipe's deploy part, JSON.
        run_id: the run this step belongs to.
        window_end: end of the window, ISO 8601.
        reason: why this run was started; stands in the ledger.
        dry_run: canary only: nothing is promoted and the ledger is not written.
        bundle: manifest of the candidate.
        evaluation: manifest of the held-out rows, replayed where the log is a recorded one.
        baseline: production and teacher, pinned by digest.
        rollout: the verdict of the canary and the decision.
    """
    from tidewheel.steps import deploy as step

    step.main(
        config,
        run_id,
        window_end,
        {"bundle": bundle.path, "eval": evaluation.path, "baseline": baseline.path},
        {"rollout": rollout.path},
        reason,
        dry_run,
    )
