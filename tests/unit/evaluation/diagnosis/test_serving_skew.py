"""What served scores suffered is found from the scores alone, or from the features that the server wrote down."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from tidewheel.contracts.diagnosis import CauseKind
from tidewheel.contracts.schema import Entity, FeatureKind, FeatureSpec
from tidewheel.evaluation.diagnosis.rows import logits_of, sigmoid
from tidewheel.evaluation.diagnosis.served_features import Serving
from tidewheel.evaluation.diagnosis.serving_skew import Skew, served_otherwise, serving_skew

FEATURES = (
    FeatureSpec(id=1, name="item_rate", kind=FeatureKind.NUMERIC, entity=Entity.ITEM),
    FeatureSpec(id=2, name="user_rate", kind=FeatureKind.NUMERIC, entity=Entity.USER),
    FeatureSpec(id=3, name="item_age", kind=FeatureKind.NUMERIC, entity=Entity.ITEM),
    FeatureSpec(id=4, name="segment", kind=FeatureKind.VOCABULARY, entity=Entity.USER),
    FeatureSpec(id=5, name="item_id", kind=FeatureKind.HASHED, entity=Entity.ITEM, num_buckets=64),
)
ROWS = 2000


def score(columns) -> np.ndarray:
    """Curved in each number, so that no number can stand in for another; null is the mean."""
    logit = -2.0 + 6.0 * np.nan_to_num(np.tanh(columns["item_rate"] * 4), nan=0.7)
    logit += np.nan_to_num(np.sin(columns["user_rate"] * 9), nan=0.3) - 0.4 * np.nan_to_num(columns["item_age"] / 30, nan=0.5)
    logit += np.where(np.asarray(columns["segment"]) == "gamer", 0.5, 0.0)
    number = np.array([0 if x is None else int(x) % 7 for x in columns["item_id"].tolist()])
    return sigmoid(logit / 2 + 0.1 * number).astype(np.float32).astype(np.float64)


@pytest.fixture
def columns() -> dict[str, np.ndarray]:
    random = np.random.default_rng(3)
    return {
        "item_rate": random.beta(2, 12, ROWS),
        "user_rate": random.beta(2, 8, ROWS),
        "item_age": random.gamma(2.0, 20.0, ROWS),
        "segment": random.choice(np.array(["gamer", "parent", "student"], dtype=object), ROWS),
        "item_id": random.integers(1, 40, ROWS),
    }


def found(columns, served, **more) -> list[Skew]:
    serving = Serving(served=served, columns=columns, features=FEATURES, score=score, **more)
    return serving_skew(serving, np.ones(ROWS), score(columns))


def named(skews: list[Skew]) -> list[tuple[CauseKind, tuple[str, ...], str]]:
    return [(skew.kind, skew.features, skew.detail) for skew in skews]


def test_scores_that_are_the_bundles_own_have_nothing(columns):
    assert found(columns, score(columns)) == []


def test_a_rounding_error_is_no_skew_and_a_percent_of_the_odds_is(columns):
    serving = Serving(served=sigmoid(logits_of(score(columns)) + 1e-4), columns=columns, features=FEATURES, score=score)
    assert not served_otherwise(serving, np.ones(ROWS), score(columns)).any()
    serving = Serving(served=sigmoid(logits_of(score(columns)) + 1e-2), columns=columns, features=FEATURES, score=score)
    assert served_otherwise(serving, np.ones(ROWS), score(columns)).all()


@pytest.mark.parametrize(
    ("name", "value", "detail"),
    [("user_rate", np.nan, "null"), ("item_rate", 0.0, "zero"), ("segment", None, "null"), ("item_id", None, "null")],
)
def test_a_feature_that_is_not_there_for_some_rows_is_coverage(columns, name, value, detail):
    is_gone = np.random.default_rng(4).random(ROWS) < 0.4
    column = columns[name].astype(object if value is None else columns[name].dtype)
    served = score({**columns, name: np.where(is_gone, value, column)})
    (skew,) = found(columns, served)
    assert (skew.kind, skew.features, skew.detail) == (CauseKind.COVERAGE, (name,), detail)
    assert skew.explained == pytest.approx(1.0, abs=1e-3)
    differs = np.abs(logits_of(served) - logits_of(score(columns))) > 0.002
    assert (skew.is_hit == differs).all()
    assert not (differs & ~is_gone).any()


def test_a_factor_that_is_no_unit_is_measured(columns):
    (skew,) = found(columns, score({**columns, "item_age": columns["item_age"] * 1.73}))
    assert (skew.kind, skew.features) == (CauseKind.VALUE_DRIFT, ("item_age",))
    word, number = skew.detail.split()
    assert word == "times"
    assert float(number) == pytest.approx(1.73, rel=0.01)


def test_a_constant_that_was_added_is_measured(columns):
    (skew,) = found(columns, score({**columns, "user_rate": columns["user_rate"] + 0.13}))
    assert (skew.kind, skew.features) == (CauseKind.VALUE_DRIFT, ("user_rate",))
    word, number = skew.detail.split()
    assert word == "plus"
    assert float(number) == pytest.approx(0.13, rel=0.02)


@pytest.mark.parametrize("name", ["item_rate", "user_rate", "item_age", "segment"])
def test_values_of_other_rows_are_drift_of_that_feature(columns, name):
    served = score({**columns, name: np.random.default_rng(5).permutation(columns[name])})
    skews = found(columns, served)
    assert named(skews)[0] == (CauseKind.VALUE_DRIFT, (name,), "other")


def test_features_of_days_before_are_stale_and_only_those_that_were(columns):
    random = np.random.default_rng(6)
    old = {
        name: column if name in ("segment", "item_id") else column * random.uniform(0.7, 1.3, ROWS)
        for name, column in columns.items()
    }
    older = {
        name: column if name in ("segment", "item_id") else column * random.uniform(0.7, 1.3, ROWS)
        for name, column in old.items()
    }
    history = {name: np.concatenate([old[name], older[name]]) for name in columns}
    known = random.random(ROWS) < 0.7
    rows = np.arange(ROWS)
    past = {
        days: {entity: np.where(known, place, -1) for entity in (Entity.USER, Entity.ITEM)}
        for days, place in ((1, rows), (3, rows + ROWS))
    }
    served = score({**columns, "item_rate": older["item_rate"], "item_age": older["item_age"]})
    (skew,) = found(columns, served, history=history, past=past)
    assert (skew.kind, set(skew.features), skew.detail) == (CauseKind.STALENESS, {"item_rate", "item_age"}, "3 days before")


def test_one_rising_curve_of_all_scores_is_another_calibrator(columns):
    (skew,) = found(columns, sigmoid(0.7 * logits_of(score(columns)) - 0.4))
    assert (skew.kind, skew.detail) == (CauseKind.CALIBRATION, "served")
    assert (skew.slope, skew.shift) == (pytest.approx(0.7, abs=1e-3), pytest.approx(-0.4, abs=1e-3))


def test_the_uncalibrated_twin_is_recognised(columns):
    def twin(given) -> np.ndarray:
        return sigmoid(1.3 * logits_of(score(given)) + 0.2)

    (skew,) = found(columns, twin(columns), uncalibrated=twin)
    assert (skew.kind, skew.detail) == (CauseKind.CALIBRATION, "served, uncalibrated twin")


def test_scores_of_nowhere_are_said_to_be_unknown(columns):
    served = np.random.default_rng(7).beta(2, 8, ROWS)
    kinds = [skew.kind for skew in found(columns, served)]
    assert kinds == [CauseKind.UNKNOWN_SCORES]


def test_two_faults_are_both_found_and_the_steps_end_at_the_served_scores(columns):
    random = np.random.default_rng(8)
    is_gone = random.random(ROWS) < 0.3
    served = score(
        {**columns, "item_rate": np.where(is_gone, np.nan, columns["item_rate"]), "item_age": columns["item_age"] / 24}
    )
    skews = found(columns, served)
    assert {(skew.kind, *skew.features) for skew in skews} >= {
        (CauseKind.COVERAGE, "item_rate"),
        (CauseKind.VALUE_DRIFT, "item_age"),
    }
    for before, after in pairwise(skews):
        assert (after.before == before.after).all()
    assert (skews[0].before == score(columns)).all()
    assert np.abs(logits_of(skews[-1].after) - logits_of(served)).mean() < 0.02


# --- with the features that the server wrote down -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda rate, old: np.full(ROWS, np.nan), (CauseKind.COVERAGE, "null")),
        (lambda rate, old: old, (CauseKind.STALENESS, "2 days before")),
        (lambda rate, old: rate * 100, (CauseKind.VALUE_DRIFT, "times 100")),
        (lambda rate, old: rate[::-1], (CauseKind.VALUE_DRIFT, "other")),
    ],
    ids=["null", "old", "percent", "of another row"],
)
def test_a_written_feature_says_itself_what_was_wrong_with_it(columns, change, expected):
    old = columns["item_rate"] * np.random.default_rng(9).uniform(0.7, 1.3, ROWS)
    written = change(columns["item_rate"], old)
    past = {2: {entity: np.arange(ROWS) for entity in (Entity.USER, Entity.ITEM)}}
    served = score({**columns, "item_rate": written})
    (skew,) = found(columns, served, history={**columns, "item_rate": old}, past=past, logged={"item_rate": written})
    assert (skew.kind, skew.features, skew.detail) == (expected[0], ("item_rate",), expected[1])
    assert np.abs(logits_of(skew.after) - logits_of(served)).max() < 0.002


def test_a_feature_that_was_written_as_it_is_offline_is_never_accused(columns):
    """What was missing is user_rate; item_rate is known to have been right."""
    served = score({**columns, "user_rate": np.full(ROWS, np.nan)})
    (skew,) = found(columns, served, logged={"item_rate": columns["item_rate"]})
    assert skew.features == ("user_rate",)
