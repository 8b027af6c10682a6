"""Thin KFP wrapper of tidewheel.steps.validate_data."""

from kfp import dsl

from components.images import image_of


@dsl.component(base_image=image_of("validate_data"), install_kfp_package=False)
def validate_data(
    config: str,
    run_id: str,
    window_end: str,
    train: dsl.Input[dsl.Dataset],
    calibration: dsl.Input[dsl.Dataset],
    evaluation: dsl.Input[dsl.Dataset],
    randomized: dsl.Input[dsl.Dataset],
    verdict: dsl.Output[dsl.Artifact],
    profile: dsl.Output[dsl.Artifact],
    baseline: dsl.Output[dsl.Artifact],
) -> None:
    """Check the contract and the drift of the data, and pin production and teacher for the whole run.

    Args:
        config: the recipe's validate_data part, JSON.
        run_id: the run this step belongs to.
        window_end: end of the window, ISO 8601.
        train: manifest of the training rows.
        calibration: manifest of the calibration rows.
        evaluation: manifest of the held-out rows.
        randomized: manifest of the randomized rows, on which a teacher must agree.
        verdict: phase and reasons; anything but Successful fails this step.
        profile: weighted histograms of the training rows.
        baseline: production and teacher, pinned by digest.
    """
    from tidewheel.steps import validate_data as step

    step.main(
        config,
        run_id,
        window_end,
        {"train": train.path, "calibration": calibration.path, "eval": evaluation.path, "randomized": randomized.path},
        {"verdict": verdict.path, "profile": profile.path, "baseline": baseline.path},
    )
