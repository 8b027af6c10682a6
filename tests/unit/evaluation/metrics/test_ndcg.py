from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from sklearn.metrics import ndcg_score

from tidewheel.evaluation.intervals import Users, interval
from tidewheel.evaluation.metrics import ndcg

SLATES = Path(__file__).parents[4].parent / "shared" / "data" / "ebnerd_sample" / "behaviors.parquet"


def expected(scores, labels, requests, k):
    """scikit-learn's, list by list."""
    found = []
    for request in np.unique(requests):
        rows = requests == request
        if rows.sum() > 1 and labels[rows].any():
            found.append(ndcg_score(labels[rows][None], scores[rows][None], k=k))
    return np.mean(found)


@pytest.mark.parametrize("k", [1, 3, 10])
def test_it_is_scikit_learns_with_ties_lists_of_one_and_lists_without_a_click(k):
    random = np.random.default_rng(k)
    requests = random.permutation(np.repeat(np.arange(200), random.integers(1, 12, 200)))
    scores = random.integers(0, 5, len(requests)) / 7
    labels = (random.random(len(requests)) < 0.3).astype(np.int8)
    assert ndcg(scores, labels, requests, k).value == pytest.approx(expected(scores, labels, requests, k), abs=1e-9)


@pytest.mark.skipif(not SLATES.exists(), reason="needs shared/data/ebnerd_sample")
def test_on_real_slates_it_is_scikit_learns():
    table = pq.read_table(SLATES)
    clicked = [set(ids) for ids in table["article_ids_clicked"].to_pylist()]
    slates = table["article_ids_inview"].to_pylist()
    requests = np.repeat(np.arange(len(slates)), [len(slate) for slate in slates])
    labels = np.array([item in clicked[at] for at, slate in enumerate(slates) for item in slate]).astype(np.int8)
    scores = np.random.default_rng(0).normal(size=len(labels)) + labels
    found = ndcg(scores, labels, requests, 5)
    assert found.value == pytest.approx(expected(scores, labels, requests, 5), abs=1e-9)
    users = Users.of(np.asarray(table["user_id"].to_pylist())[requests])
    lower, upper = interval(found, users)
    assert lower < found.value < upper


def test_its_influence_sums_to_nothing_and_is_that_of_a_mean_over_lists():
    random = np.random.default_rng(0)
    requests, labels = np.repeat(np.arange(300), 6), (random.random(1800) < 0.4).astype(np.int8)
    found = ndcg(random.random(1800), labels, requests, 3)
    assert found.influence.sum() == pytest.approx(0, abs=1e-12)
    assert np.count_nonzero(found.influence) <= 300


def test_without_a_list_it_is_not_defined():
    assert np.isnan(ndcg(np.array([0.1, 0.2]), np.array([1, 0]), np.array([0, 1]), 3).value)
    assert np.isnan(ndcg(np.array([0.1, 0.2]), np.array([0, 0]), np.array([0, 0]), 3).value)
    assert np.isnan(ndcg(np.zeros(0), np.zeros(0), np.zeros(0), 3).value)
