"""Calibrators against scikit-learn and against a known truth."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression

from tidewheel.ranker.calibration import Calibrators, Isotonic, Platt, fit_calibrator, fit_isotonic, fit_platt


def rows(seed: int = 0, count: int = 20_000, scale: float = 0.5, shift: float = -1.0):
    """Logits that are too extreme: the true logit is scale * logit + shift."""
    random = np.random.default_rng(seed)
    logits = random.normal(0, 2, count)
    labels = (random.random(count) < 1 / (1 + np.exp(-(scale * logits + shift)))).astype(float)
    return logits, labels, random.choice([1.0, 5.0], count)


def test_platt_is_scikit_learns_weighted_logistic_regression():
    logits, labels, weights = rows()
    peer = LogisticRegression(C=1e6, tol=1e-10).fit(logits[:, None], labels, sample_weight=weights)
    ours = fit_platt(logits, labels, weights, precision=1e-3)
    assert ours.scale == pytest.approx(peer.coef_[0, 0], abs=1e-4)
    assert ours.shift == pytest.approx(peer.intercept_[0], abs=1e-4)


def test_platt_makes_the_weighted_mean_prediction_the_weighted_rate():
    logits, labels, weights = rows(count=2000)
    predicted = fit_platt(logits, labels, weights, precision=1e-3).apply(logits)
    assert np.average(predicted, weights=weights) == pytest.approx(np.average(labels, weights=weights), abs=1e-5)


def test_platt_never_turns_a_ranking_around():
    logits, labels, weights = rows(scale=-0.5)
    fitted = fit_platt(logits, labels, weights, precision=1e-3)
    assert fitted.scale == 1.0
    predicted = fitted.apply(logits)
    assert np.average(predicted, weights=weights) == pytest.approx(np.average(labels, weights=weights), abs=1e-4)


def test_few_rows_move_platt_little_and_many_move_it_all_the_way():
    few = fit_platt(*rows(count=30))
    many = fit_platt(*rows(count=200_000))
    assert few.scale > 0.7
    assert many.scale == pytest.approx(0.5, abs=0.02)
    assert many.shift == pytest.approx(-1.0, abs=0.03)


def test_the_unit_of_the_weights_does_not_matter():
    logits, labels, weights = rows(count=2000)
    one, other = fit_platt(logits, labels, weights), fit_platt(logits, labels, 1000 * weights)
    assert (one.scale, one.shift) == pytest.approx((other.scale, other.shift))


def test_perfectly_separated_labels_give_a_finite_calibrator():
    logits = np.linspace(-3, 3, 100)
    fitted = fit_platt(logits, (logits > 0).astype(float), np.ones(100))
    assert np.isfinite([fitted.scale, fitted.shift]).all()


@pytest.mark.parametrize("kind", ["platt", "isotonic"])
@pytest.mark.parametrize("label", [0.0, 1.0])
def test_rows_of_one_class_leave_the_logits_as_they_are(kind: str, label: float):
    assert fit_calibrator(kind, np.array([0.0, 1.0]), np.full(2, label), np.ones(2)) == Platt(scale=1.0, shift=0.0)


def test_isotonic_agrees_with_scikit_learn():
    logits, labels, weights = rows()
    peer = IsotonicRegression(out_of_bounds="clip").fit(logits, labels, sample_weight=weights).predict(logits)
    ours = fit_isotonic(logits, labels, weights).apply(logits)
    assert np.abs(ours - peer).mean() < 0.01  # lines between pools instead of steps
    truth = 1 / (1 + np.exp(-(0.5 * logits - 1.0)))
    assert np.abs(ours - truth).mean() < 0.015


@given(st.integers(0, 10_000), st.integers(2, 300))
def test_isotonic_rises_and_stays_inside_zero_and_one(seed: int, count: int):
    logits, labels, weights = rows(seed=seed, count=count)
    calibrator = fit_calibrator("isotonic", logits, labels, weights)
    predicted = calibrator.apply(np.sort(np.concatenate([logits, [-50.0, 50.0]])))
    assert (np.diff(predicted) >= 0).all()
    if isinstance(calibrator, Isotonic):
        assert 0 < predicted.min() <= predicted.max() < 1
        assert len(calibrator.logits) <= 64


def test_calibrators_read_back_apply_the_same(tmp_path):
    logits, labels, weights = rows(count=1000)
    fitted = Calibrators(by_label={k: fit_calibrator(k, logits, labels, weights) for k in ("platt", "isotonic")})
    again = Calibrators.read(fitted.write(tmp_path / "calibrators.json"))
    for kind in ("platt", "isotonic"):
        np.testing.assert_array_equal(fitted.by_label[kind].apply(logits), again.by_label[kind].apply(logits))
