"""Histogram calibrators: known rates come back slice by slice, small slices stay near the overall map, order is kept."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidewheel.errors import ContractError
from tidewheel.ranker.calibration import Calibrators, Platt, fit_calibrator
from tidewheel.ranker.histogram import Histogram, Line, Slices, fit_histogram, fit_line

LOGITS = np.linspace(-2, 2, 100)


def sigmoid(values: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-values))


def rows(shifts: dict[int, float], count: int = 20_000, seed: int = 0):
    """Rows of slices whose true log odds are the logit plus the slice's shift."""
    random = np.random.default_rng(seed)
    ids = random.choice(list(shifts), count)
    logits = random.normal(0, 1.5, count)
    labels = (random.random(count) < sigmoid(logits + np.vectorize(shifts.get)(ids))).astype(float)
    return logits, labels, random.choice([1.0, 4.0], count), ids


def fitted(shifts: dict[int, float], min_rows: int = 500, count: int = 20_000) -> Histogram:
    logits, labels, weights, ids = rows(shifts, count)
    found = fit_calibrator("histogram", logits, labels, weights, Slices("surface", 2, ids, min_rows))
    assert isinstance(found, Histogram)
    return found


def test_one_bin_is_the_shrunk_rate_by_hand():
    # 100 rows of weight 1 predicted at 1/2 of which 80 happened: (80 + 500 * 0.5) / (100 + 500) = 0.55.
    line = fit_line(np.zeros(100), np.repeat([1.0, 0.0], [80, 20]), np.ones(100))
    assert line.inputs == pytest.approx((0.0,), abs=1e-12)
    assert line.outputs == pytest.approx((np.log(0.55 / 0.45),))
    np.testing.assert_allclose(line.apply(np.array([-1.0, 0.0, 3.0])), np.array([-1.0, 0.0, 3.0]) + np.log(0.55 / 0.45))


def test_rows_of_unequal_weight_count_for_less():
    # Weights 1 and 3 in equal numbers: (4 * 50)^2 / (10 * 50) = 80 effective rows of 100; the heavy half happened: rate 3/4.
    weights = np.tile([1.0, 3.0], 50)
    line = fit_line(np.zeros(100), (weights == 3.0).astype(float), weights)
    rate = (80 * 0.75 + 500 * 0.5) / 580
    assert line.outputs == pytest.approx((np.log(rate / (1 - rate)),))


def test_two_bins_are_joined_by_a_line_and_go_on_with_slope_one():
    log_odds = np.repeat([-1.0, 1.0], 200)
    labels = np.concatenate([np.repeat([1.0, 0.0], [20, 180]), np.repeat([1.0, 0.0], [180, 20])])
    line = fit_line(log_odds, labels, np.ones(400))
    rate = (180 + 250 * sigmoid(1.0)) / 450
    high = np.log(rate / (1 - rate))
    assert line.inputs == pytest.approx((-1.0, 1.0))
    assert line.outputs == pytest.approx((-high, high))
    np.testing.assert_allclose(line.apply(np.array([-3.0, 0.0, 2.0])), [-high - 2, 0.0, high + 1], atol=1e-12)


def test_bins_whose_rates_fall_are_pooled():
    log_odds = np.repeat([-0.1, 0.1], 200)
    labels = np.concatenate([np.repeat([1.0, 0.0], [150, 50]), np.repeat([1.0, 0.0], [50, 150])])
    line = fit_line(log_odds, labels, np.ones(400))
    assert line.inputs == pytest.approx((0.0,), abs=1e-9)
    assert line.outputs == pytest.approx((0.0,), abs=1e-9)


def test_every_slice_gets_its_own_known_truth():
    found = fitted({1: -0.7, 2: 0.0, 3: 0.7})
    assert (found.slice, found.column, sorted(found.by_id)) == ("surface", 2, [1, 2, 3])
    for value, shift in ((1, -0.7), (2, 0.0), (3, 0.7)):
        gap = found.apply(LOGITS, np.full(100, value)) - sigmoid(LOGITS + shift)
        assert np.abs(gap).mean() < 0.02


def test_an_unseen_slice_and_one_with_too_few_rows_stay_with_the_overall_map():
    logits, labels, weights, ids = rows({1: -1.0, 2: 1.0})
    ids[:100] = 3
    found = fit_histogram(logits, labels, weights, 1.0, 0.0, Slices("surface", 0, ids, min_rows=500))
    overall = fit_histogram(logits, labels, weights, 1.0, 0.0)
    assert sorted(found.by_id) == [1, 2]
    for value in (0, 3, 77):
        np.testing.assert_array_equal(found.apply(LOGITS, np.full(100, value)), overall.apply(LOGITS, np.zeros(100)))


def test_the_fewer_rows_a_slice_has_the_nearer_it_stays_to_the_overall_map():
    def distance(count: int) -> float:
        logits, labels, weights, ids = rows({1: 0.0, 2: 1.0}, count=40_000)
        ids[np.flatnonzero(ids == 2)[count:]] = 1
        found = fit_histogram(logits, labels, weights, 1.0, 0.0, Slices("surface", 0, ids, min_rows=1))
        return float(np.abs(found.apply(LOGITS, np.full(100, 2)) - found.apply(LOGITS, np.zeros(100))).mean())

    assert distance(20) < distance(300) < distance(10_000)


@pytest.mark.parametrize("label", [0.0, 1.0])
def test_a_slice_of_one_class_is_shrunk_toward_the_overall_map_and_finite(label: float):
    logits, labels, weights, ids = rows({1: 0.0, 2: 0.0})
    labels[ids == 2] = label
    found = fit_calibrator("histogram", logits, labels, weights, Slices("surface", 0, ids, min_rows=500))
    alone, overall = found.apply(LOGITS, np.full(100, 2)), found.apply(LOGITS, np.zeros(100))
    assert np.isfinite(alone).all()
    assert 0 < alone.min() <= alone.max() < 1
    assert np.abs(alone - label).mean() < np.abs(overall - label).mean()


def test_rows_of_one_class_leave_the_logits_as_they_are():
    nothing = Slices("surface", 0, np.array([1, 1]), min_rows=1)
    assert fit_calibrator("histogram", np.array([0.0, 1.0]), np.zeros(2), np.ones(2), nothing) == Platt()


def test_rows_of_weight_zero_count_nothing():
    logits, labels, weights, ids = rows({1: -0.5, 2: 0.5}, count=4000)
    weights[::2] = 0.0
    kept = fit_calibrator("histogram", *(x[1::2] for x in (logits, labels, weights)), Slices("surface", 0, ids[1::2], 1))
    assert fit_calibrator("histogram", logits, labels, weights, Slices("surface", 0, ids, 1)) == kept


@given(st.integers(0, 10_000), st.integers(2, 600))
def test_within_a_slice_a_higher_logit_is_a_higher_probability(seed: int, count: int):
    logits, labels, weights, ids = rows({1: -1.0, 2: 1.0}, count=count, seed=seed)
    found = fit_calibrator("histogram", logits, labels, weights, Slices("surface", 0, ids, min_rows=1))
    if not isinstance(found, Histogram):
        assert len(set(labels.tolist())) == 1
        return
    for line in (found.overall, *found.by_id.values()):
        assert (np.diff(line.apply(np.linspace(-9, 9, 500))) > 0).all()


def test_points_that_do_not_rise_are_refused(tmp_path: Path):
    path = tmp_path / "calibrators.json"
    line = Line(inputs=(0.0, 1.0), outputs=(0.25, 0.75))
    text = Calibrators(by_label={"click": Histogram(scale=1.0, shift=0.0, overall=line)}).to_json()
    path.write_text(text.replace("0.75", "0.25"))
    with pytest.raises(ContractError, match=r"calibrators\.json.*points do not rise"):
        Calibrators.read(path)


def test_a_line_as_offset_and_bends_is_the_same_line():
    line = Line(inputs=(-1.0, 0.5, 2.0), outputs=(-2.0, 0.0, 1.0))
    offset, bends = line.bends()
    x = np.linspace(-4, 4, 50)
    kinks = np.maximum(x[:, None] - np.array(line.inputs), 0.0)
    np.testing.assert_allclose(x + offset + kinks @ bends, line.apply(x), atol=1e-12)
