"""What a recipe may ask of the student, refused before anything runs."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from tidewheel.contracts.recipe import Recipe
from tidewheel.contracts.steps import parts


def with_student(recipe: Recipe, **changed: object) -> Recipe:
    return Recipe.model_validate(recipe.model_dump(by_alias=True) | {"distill": changed})


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (
            {"without_features": ["user_id", "colour"]},
            "distill.without_features names colour; expected features of this recipe",
        ),
        ({"calibrators": {"share": "platt"}}, "distill.calibrators names share; expected labels of this recipe"),
        ({"calibrator": "histogram", "calibration_slice": "colour"}, "distill.calibration_slice is colour; expected a hashed"),
        ({"calibration_slice": "surface"}, "calibration_slice is surface but no calibrator is histogram"),
        (
            {"calibrator": "histogram", "calibration_slice": "surface", "without_features": ["surface"]},
            "distill.calibration_slice is surface; expected a hashed or vocabulary feature of the student: user_id",
        ),
    ],
)
def test_a_student_that_cannot_be_is_refused(quickstart: Recipe, changed: dict[str, object], message: str):
    with pytest.raises(ValidationError, match=message):
        with_student(quickstart, **changed)


def test_a_student_without_any_feature_is_refused(quickstart: Recipe):
    names = [feature.name for feature in quickstart.features]
    with pytest.raises(ValidationError, match="names every feature; the student needs at least one"):
        with_student(quickstart, without_features=names)


def test_a_student_keeps_a_sequence_only_with_what_it_is_of(quickstart: Recipe):
    sequence = {
        "id": 99,
        "name": "user_items",
        "kind": "sequence",
        "entity": "user",
        "of": "item_id",
        "label": "click",
        "length": 5,
    }
    document = quickstart.model_dump(by_alias=True)
    document["features"] = [*document["features"], sequence]

    def without(*names: str) -> Recipe:
        return Recipe.model_validate(document | {"distill": {"without_features": names}})

    with pytest.raises(
        ValidationError, match="user_items is of item_id, which the student would lack; leave out both or neither"
    ):
        without("item_id")
    assert without("item_id", "user_items").distill.without_features == ("item_id", "user_items")
    assert without("user_items").distill.without_features == ("user_items",)


def test_a_numeric_feature_is_no_slice(quickstart: Recipe):
    with pytest.raises(ValidationError, match="expected a hashed or vocabulary feature"):
        with_student(quickstart, calibrator="histogram", calibration_slice="user_tenure_days")


def test_a_students_context_gate_needs_a_context_feature_that_the_student_takes(quickstart: Recipe):
    network = {"context": "epnet"}
    assert with_student(quickstart, network=network, without_features=["surface"]).distill.network.context == "epnet"
    with pytest.raises(ValidationError, match=r"distill.network.context is epnet; 0 of 16 features have entity context"):
        with_student(quickstart, network=network, without_features=["surface", "query_category"])


def test_one_label_with_a_histogram_is_enough_for_a_slice(quickstart: Recipe):
    recipe = with_student(quickstart, calibrators={"click": "histogram"}, calibration_slice="surface")
    assert recipe.distill.calibrator == "platt"


def test_what_the_student_takes_changes_neither_the_ranker_nor_its_data(quickstart: Recipe):
    before, after = parts(quickstart), parts(with_student(quickstart, without_features=["user_id"]))
    assert [name for name in before if before[name] != after[name]] == ["distill", "conclude"]
