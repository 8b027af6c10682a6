"""Thin KFP wrapper of tidewheel.steps.sample."""

from kfp import dsl

from components.images import image_of


@dsl.component(base_image=image_of("sample"), install_kfp_package=False)
def sample(
    config: str,
    run_id: str,
    window_end: str,
    impressions: dsl.Input[dsl.Dataset],
    train: dsl.Output[dsl.Dataset],
    calibration: dsl.Output[dsl.Dataset],
    evaluation: dsl.Output[dsl.Dataset],
    randomized: dsl.Output[dsl.Dataset],
) -> None:
    """Split by time and select rows by hash; every row gets its weight.

    Args:
        config: the recipe's sample part, JSON.
        run_id: the run this step belongs to.
        window_end: end of the window, ISO 8601.
        impressions: manifest of the canonical impressions.
        train: manifest of the training rows.
        calibration: manifest of the rows that calibrators are fitted on.
        evaluation: manifest of the held-out rows.
        randomized: manifest of the randomized slice.
    """
    from tidewheel.steps import sample as step

    step.main(
        config,
        run_id,
        window_end,
        {"impressions": impressions.path},
        {"train": train.path, "calibration": calibration.path, "eval": evaluation.path, "randomized": randomized.path},
    )
