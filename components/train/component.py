"""Thin KFP wrapper of tidewheel.steps.train."""

from kfp import dsl

from components.images import image_of


@dsl.component(base_image=image_of("train"), install_kfp_package=False)
def train(
    config: str,
    run_id: str,
    window_end: str,
    train: dsl.Input[dsl.Dataset],
    baseline: dsl.Input[dsl.Artifact],
    ranker: dsl.Output[dsl.Model],
) -> None:
    """Train the multi-task ranker, with the pinned teacher when there is one.

    Args:
        config: the recipe's train part, JSON.
        run_id: the run this step belongs to.
        window_end: end of the window, ISO 8601.
        train: manifest of the training rows.
        baseline: production and teacher, pinned by digest.
        ranker: manifest of the trained ranker.
    """
    from tidewheel.steps import train as step

    step.main(config, run_id, window_end, {"train": train.path, "baseline": baseline.path}, {"ranker": ranker.path})
