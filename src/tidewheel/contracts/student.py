"""What a student may be told about features and calibrators, and what contradicts itself."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal

from tidewheel.contracts.schema import FeatureKind, FeatureSpec

CalibratorKind = Literal["isotonic", "platt", "histogram"]


def student_features(features: Sequence[FeatureSpec], without: Iterable[str]) -> tuple[FeatureSpec, ...]:
    """The features of a ranker that its student takes too, in their order."""
    dropped = frozenset(without)
    return tuple(feature for feature in features if feature.name not in dropped)


def student_fault(
    features: Sequence[FeatureSpec], without: Sequence[str], calibration_slice: str, kinds: Iterable[str]
) -> str | None:
    """Why there can be no such student, or None.

    Args:
        features: those of the recipe that are not deprecated.
        without: `distill.without_features`.
        calibration_slice: `distill.calibration_slice`.
        kinds: the kind of every label's calibrator.
    """
    names = [feature.name for feature in features]
    if unknown := sorted(set(without) - set(names)):
        return f"distill.without_features names {', '.join(unknown)}; expected features of this recipe: {', '.join(names)}"
    kept = student_features(features, without)
    if not kept:
        return "distill.without_features names every feature; the student needs at least one: take some out of the list"
    left = {feature.name for feature in kept}
    if lost := [f"{feature.name} is of {feature.of}" for feature in kept if feature.is_sequence and feature.of not in left]:
        return f"distill.without_features: {', '.join(lost)}, which the student would lack; leave out both or neither"
    if not calibration_slice:
        return None
    choices = [feature.name for feature in kept if feature.kind in (FeatureKind.HASHED, FeatureKind.VOCABULARY)]
    if calibration_slice not in choices:
        return (
            f"distill.calibration_slice is {calibration_slice}; expected a hashed or vocabulary feature of the student: "
            f"{', '.join(choices) or 'it has none'}"
        )
    if "histogram" not in kinds:
        return (
            f"distill.calibration_slice is {calibration_slice} but no calibrator is histogram; set "
            "distill.calibrator or one of distill.calibrators to histogram, or take the slice out"
        )
    return None
