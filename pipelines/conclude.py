"""The exit handler: not one of the seven components, it runs whatever became of them."""

from kfp import dsl

from components.images import image_of


@dsl.component(base_image=image_of("conclude"), install_kfp_package=False)
def conclude(config: str, run_id: str, window_end: str, dry_run: bool, status: dsl.PipelineTaskFinalStatus) -> None:
    """Write run.json, the report and, for a rejected candidate, the ledger.

    Args:
        config: the recipe's conclude part, JSON.
        run_id: the run that ends.
        window_end: end of the window, ISO 8601.
        dry_run: the ledger is not written.
        status: how the steps ended, from the orchestrator.
    """
    from tidewheel.steps import conclude as step

    step.main(config, run_id, window_end, dry_run)
