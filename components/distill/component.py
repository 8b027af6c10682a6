"""Thin KFP wrapper of tidewheel.steps.distill."""

from kfp import dsl

from components.images import image_of


@dsl.component(base_image=image_of("distill"), install_kfp_package=False)
def distill(
    config: str,
    run_id: str,
    window_end: str,
    ranker: dsl.Input[dsl.Model],
    train: dsl.Input[dsl.Dataset],
    calibration: dsl.Input[dsl.Dataset],
    profile: dsl.Input[dsl.Artifact],
    bundle: dsl.Output[dsl.Model],
) -> None:
    """Distill the ranker into a compact student and publish it, calibrated and uncalibrated, as one bundle.

    Args:
        config: the recipe's distill part, JSON.
        run_id: the run this step belongs to.
        window_end: end of the window, ISO 8601.
        ranker: manifest of the trained ranker.
        train: manifest of the training rows.
        calibration: manifest of the calibration rows.
        profile: weighted histograms of the training rows, carried in the bundle.
        bundle: manifest of the published bundle.
    """
    from tidewheel.steps import distill as step

    step.main(
        config,
        run_id,
        window_end,
        {"ranker": ranker.path, "train": train.path, "calibration": calibration.path, "profile": profile.path},
        {"bundle": bundle.path},
    )
