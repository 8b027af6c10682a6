"""Thin KFP wrapper of tidewheel.steps.ingest."""

from kfp import dsl

from components.images import image_of


@dsl.component(base_image=image_of("ingest"), install_kfp_package=False)
def ingest(config: str, run_id: str, window_end: str, impressions: dsl.Output[dsl.Dataset]) -> None:
    """Turn a log into the canonical impression table: dedup, quarantine, labels, as-of counters.

    Args:
        config: the recipe's ingest part, JSON.
        run_id: the run this step belongs to.
        window_end: end of the window, ISO 8601.
        impressions: manifest of the impressions of the window.
    """
    from tidewheel.steps import ingest as step

    step.main(config, run_id, window_end, {}, {"impressions": impressions.path})
