import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import log_loss, roc_auc_score

from tidewheel.evaluation.metrics import (
    auc,
    base_rate,
    calibration_ratio,
    ece,
    effective_rows,
    equal_mass_edges,
    logloss,
    normalized_entropy,
    request_auc,
)

ROWS = st.lists(
    st.tuples(st.integers(0, 20).map(lambda i: i / 20), st.integers(0, 1), st.floats(0.05, 20)), min_size=2, max_size=80
).filter(lambda rows: len({row[1] for row in rows}) == 2)


def arrays(rows):
    return tuple(np.array(column, dtype=np.float64) for column in zip(*rows, strict=True))


@settings(max_examples=150, deadline=None)
@given(ROWS)
def test_auc_and_logloss_agree_with_scikit_learn_ties_and_weights_included(rows):
    scores, labels, weight = arrays(rows)
    assert auc(scores, labels, weight).value == pytest.approx(roc_auc_score(labels, scores, sample_weight=weight), abs=1e-9)
    assert logloss(scores, labels, weight).value == pytest.approx(log_loss(labels, scores, sample_weight=weight), abs=1e-9)


@settings(max_examples=50, deadline=None)
@given(ROWS, st.floats(0.1, 1000))
def test_no_metric_depends_on_the_scale_of_the_weights(rows, scale):
    scores, labels, weight = arrays(rows)
    for metric in (auc, logloss, calibration_ratio):
        assert metric(scores, labels, weight * scale).value == pytest.approx(metric(scores, labels, weight).value)
    assert effective_rows(weight * scale) == pytest.approx(effective_rows(weight))


def test_a_row_of_weight_two_counts_as_two_rows():
    scores, labels = np.array([0.1, 0.4, 0.35, 0.8]), np.array([0, 0, 1, 1])
    doubled = np.array([0, 1, 1, 2, 3])
    for metric in (auc, logloss, calibration_ratio):
        want = metric(scores[doubled], labels[doubled], np.ones(5)).value
        assert metric(scores, labels, np.array([1.0, 2, 1, 1])).value == pytest.approx(want)


def test_one_class_has_no_auc_and_no_positives_no_ratio():
    scores, weight = np.array([0.1, 0.9]), np.ones(2)
    assert math.isnan(auc(scores, np.zeros(2), weight).value)
    assert math.isnan(auc(np.empty(0), np.empty(0), np.empty(0)).value)
    assert math.isnan(request_auc(scores, np.array([0, 1]), weight, np.array([0, 1])).value)
    assert math.isnan(calibration_ratio(scores, np.zeros(2), weight).value)
    assert math.isnan(normalized_entropy(logloss(scores, np.zeros(2), weight), base_rate(np.zeros(2), weight)).value)
    assert math.isnan(ece(np.empty(0), np.empty(0), np.empty(0)))


def test_calibration_ratio_is_predicted_over_actual():
    assert calibration_ratio(np.array([0.2, 0.4]), np.array([0, 1]), np.array([1.0, 2.0])).value == pytest.approx(1.0 / 2.0)


def test_request_auc_counts_the_pairs_within_requests_alone_ties_one_half():
    scores, labels = np.array([0.1, 0.3, 0.2, 0.2, 0.9, 0.8]), np.array([0, 1, 1, 0, 1, 1])
    requests, weight = np.array([7, 7, 3, 3, 5, 5]), np.array([2.0, 1.0, 1.0, 4.0, 1.0, 1.0])
    # request 7: one pair of weight 2, won; request 3: one of weight 4, tied; request 5 has no negative row
    assert request_auc(scores, labels, weight, requests).value == pytest.approx((2 + 4 / 2) / 6)


def test_normalized_entropy_of_the_base_rate_is_one_and_that_of_certainty_nothing():
    labels, weight = np.array([0, 0, 0, 1]), np.array([1.0, 1.0, 1.0, 3.0])
    rate = base_rate(labels, weight)
    assert rate.value == pytest.approx(0.5)
    assert normalized_entropy(logloss(np.full(4, 0.5), labels, weight), rate).value == pytest.approx(1.0)
    assert normalized_entropy(logloss(labels.astype(float), labels, weight), rate).value == pytest.approx(0.0, abs=1e-12)


@settings(max_examples=100, deadline=None)
@given(ROWS)
def test_the_influence_of_a_row_is_how_the_metric_moves_with_its_weight(rows):
    """w * d metric / d w, by a difference quotient: the definition of the influence of a weighted estimate."""
    scores, labels, weight = arrays(rows)
    scores = 0.05 + 0.9 * scores
    requests = np.arange(len(scores)) // 4

    def by_request(scores, labels, weight):
        return request_auc(scores, labels, weight, requests)

    def entropy(scores, labels, weight):
        return normalized_entropy(logloss(scores, labels, weight), base_rate(labels, weight))

    for metric in (auc, by_request, logloss, entropy, calibration_ratio):
        found = metric(scores, labels, weight)
        assert found.influence.sum() == pytest.approx(0.0, abs=1e-9)
        if math.isnan(found.value):
            continue
        got = np.bincount(requests, weights=found.influence) if metric is by_request else found.influence
        for at in range(len(got)):
            rows_of = requests == at if metric is by_request else np.arange(len(weight)) == at
            step = 1e-6
            up, down = (metric(scores, labels, weight * (1 + sign * step * rows_of)).value for sign in (1, -1))
            want = (up - down) / (2 * step)
            # of a whole request the weights of both rows of a pair move, so its pairs move twice as fast
            assert got[at] * (2 if metric is by_request else 1) == pytest.approx(want, rel=1e-4, abs=1e-7)


def test_ece_of_two_bins_by_hand():
    probabilities = np.array([0.1, 0.1, 0.9, 0.9])
    labels = np.array([0, 1, 1, 1])
    # bins {0.1, 0.1} and {0.9, 0.9}: |0.2 - 1| and |1.8 - 2|, over four rows
    assert ece(probabilities, labels, np.ones(4), num_bins=2) == pytest.approx((0.8 + 0.2) / 4)


def test_bins_hold_equal_weight_not_equal_rows():
    probabilities = np.array([0.1, 0.2, 0.3, 0.4, 0.5])
    assert equal_mass_edges(probabilities, np.array([1.0, 1, 1, 1, 4]), num_bins=2) == pytest.approx([0.4])
    assert equal_mass_edges(probabilities, np.array([4.0, 1, 1, 1, 1]), num_bins=2) == pytest.approx([0.1])


def test_perfect_probabilities_have_the_ece_that_noise_alone_gives():
    """E|N(0, s)| = s sqrt(2 / pi), so the sum over bins is near sqrt(2 p (1 - p) bins / (pi rows)) at p = 0.3."""
    generator, rows = np.random.default_rng(0), 20_000
    found = []
    for _ in range(40):
        probabilities = generator.uniform(0.2999, 0.3001, rows)
        found.append(ece(probabilities, generator.random(rows) < probabilities, np.ones(rows)))
    expected = math.sqrt(2 * 0.3 * 0.7 * 15 / (math.pi * rows))
    assert np.mean(found) == pytest.approx(expected, rel=0.15)


def test_effective_rows_of_equal_weights_is_their_number():
    assert effective_rows(np.full(7, 3.0)) == pytest.approx(7)
    assert effective_rows(np.array([1.0, 3.0])) == pytest.approx(16 / 10)
    assert effective_rows(np.empty(0)) == 0
