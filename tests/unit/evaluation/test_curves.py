"""ROC curves and confusion matrices, against scikit-learn."""

from __future__ import annotations

import json
import math

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score, roc_curve

from tidewheel.contracts.comparison import Curves
from tidewheel.evaluation.curves import MAX_POINTS, curves


def rows(labels: np.ndarray, weight: np.ndarray) -> pa.Table:
    return pa.table({"weight": weight, "label_click": labels.astype(np.int8)})


def drawn(scores: np.ndarray, labels: np.ndarray, weight: np.ndarray) -> Curves:
    return curves(rows(labels, weight), {"student": {"click": scores}}, ["click"])


def known(number: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    scores = generator.beta(1.5, 5.0, number)
    labels = (generator.random(number) < scores).astype(np.int8)
    return scores, labels, generator.choice([1.0, 4.0, 25.0], number)


def test_every_corner_lies_on_scikit_learns_weighted_curve() -> None:
    scores, labels, weight = known(3000)
    false, true, thresholds = roc_curve(labels, scores, sample_weight=weight, drop_intermediate=False)
    where = {float(threshold): index for index, threshold in enumerate(thresholds)}
    points = drawn(scores, labels, weight).roc["student"]["click"]
    for point in points[1:]:
        index = where[point.threshold]
        assert point.false_positive_rate == pytest.approx(false[index], abs=1e-12)
        assert point.true_positive_rate == pytest.approx(true[index], abs=1e-12)


def test_a_hundred_corners_keep_the_shape_of_a_long_curve() -> None:
    scores, labels, weight = known(50_000)
    points = drawn(scores, labels, weight).roc["student"]["click"]
    x, y = [p.false_positive_rate for p in points], [p.true_positive_rate for p in points]
    false, true, _ = roc_curve(labels, scores, sample_weight=weight, drop_intermediate=False)
    assert len(points) <= MAX_POINTS
    assert (points[0].false_positive_rate, points[0].true_positive_rate) == (0.0, 0.0)
    assert (points[-1].false_positive_rate, points[-1].true_positive_rate) == (1.0, 1.0)
    assert np.abs(np.interp(false, x, y) - true).max() < 0.01
    assert np.trapezoid(y, x) == pytest.approx(roc_auc_score(labels, scores, sample_weight=weight), abs=0.001)


def test_no_threshold_is_infinite_and_the_first_predicts_nothing() -> None:
    scores, labels, weight = known(200)
    points = drawn(scores, labels, weight).roc["student"]["click"]
    assert all(math.isfinite(point.threshold) for point in points)
    assert points[0].threshold > scores.max()
    assert json.loads(drawn(scores, labels, weight).to_json())


def test_the_matrix_says_yes_as_often_as_it_happens() -> None:
    # Weight 10 of positives; from the top: 4 + 6 = 10 is reached at 0.8, where a negative of 4 was let in.
    scores = np.array([0.9, 0.8, 0.7, 0.6, 0.1])
    labels = np.array([0, 1, 1, 0, 0])
    weight = np.array([4.0, 6.0, 4.0, 1.0, 5.0])
    found = drawn(scores, labels, weight).confusion["click"]
    assert found.threshold == 0.8
    assert (found.true_positive, found.false_positive, found.false_negative, found.true_negative) == (6.0, 4.0, 4.0, 6.0)


@given(st.integers(0, 10_000), st.integers(2, 60))
def test_ties_and_few_rows_keep_the_promises(seed: int, number: int) -> None:
    generator = np.random.default_rng(seed)
    scores = generator.integers(0, 6, number) / 6
    labels, weight = generator.integers(0, 2, number), generator.uniform(0.5, 9.0, number)
    found = drawn(scores, labels, weight)
    if len(set(labels)) == 1 or len(set(scores)) == 1:
        assert found == Curves()
        return
    points = found.roc["student"]["click"]
    for name in ("false_positive_rate", "true_positive_rate"):
        values = [getattr(point, name) for point in points]
        assert values == sorted(values)
        assert (values[0], values[-1]) == (0.0, 1.0)
    matrix = found.confusion["click"]
    total = matrix.true_positive + matrix.false_positive + matrix.false_negative + matrix.true_negative
    assert total == pytest.approx(weight.sum())
    assert matrix.true_positive + matrix.false_negative == pytest.approx(weight[labels == 1].sum())


@pytest.mark.parametrize(
    ("scores", "labels", "weight"),
    [
        ([0.1, 0.2, 0.3], [1, 1, 1], [1.0, 1.0, 1.0]),
        ([0.1, 0.2, 0.3], [0, 0, 0], [1.0, 1.0, 1.0]),
        ([0.1, math.nan, 0.3], [0, 1, 0], [1.0, 1.0, 1.0]),
        ([0.5, 0.5, 0.5], [0, 1, 0], [1.0, 1.0, 1.0]),
        ([0.1, 0.2, 0.3], [0, 1, 0], [1.0, 0.0, 1.0]),
        ([], [], []),
    ],
)
def test_what_has_no_curve_has_none_instead_of_nan(scores: list[float], labels: list[int], weight: list[float]) -> None:
    assert drawn(np.array(scores), np.array(labels), np.array(weight)) == Curves()


def test_production_has_a_curve_and_no_matrix_and_the_ranker_neither() -> None:
    scores, labels, weight = known(300)
    by = {"student": {"click": scores}, "production": {"click": scores[::-1].copy()}, "ranker": {"click": scores}}
    found = curves(rows(labels, weight), by, ["click"])
    assert set(found.roc) == {"student", "production"}
    assert set(found.confusion) == {"click"}
