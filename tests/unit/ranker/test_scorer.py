"""Scoring: one encoding, calibrated graph and twin, rows of one request and of many."""

from __future__ import annotations

import numpy as np
import pyarrow.parquet as pq
import pytest

from tidewheel.errors import ContractError
from tidewheel.ranker import GraphScorer, OpenBundle, Scorer, columns_of


@pytest.fixture(scope="module")
def columns(tiny_run):
    table = pq.ParquetFile(tiny_run.calibration_dir / "part-0.parquet").read()
    return columns_of(table, tiny_run.recipe.features)


def test_scores_are_probabilities_of_every_label(tiny_bundle: OpenBundle, columns):
    scores = Scorer(tiny_bundle).score(columns)
    assert list(scores) == ["click", "long_view", "like"]
    for values in scores.values():
        assert values.shape == (600,)
        assert values.dtype == np.float32
        assert (values >= 0).all()
        assert (values <= 1).all()


def test_the_twin_ranks_like_the_calibrated_graph(tiny_bundle: OpenBundle, columns):
    scorer = Scorer(tiny_bundle)
    scores, logits = scorer.score(columns), scorer.logits(columns)
    for label in scores:
        in_order = scores[label][np.argsort(logits[label])]
        assert (np.diff(in_order) >= -1e-6).all()


def test_columns_sent_once_score_like_columns_sent_for_every_candidate(tiny_bundle: OpenBundle, columns):
    request = {
        name: np.asarray(values[:1]).repeat(5) if name.startswith("user") else values[:5] for name, values in columns.items()
    }
    short = {name: values[:1] if name.startswith("user") else values for name, values in request.items()}
    scorer = Scorer(tiny_bundle)
    np.testing.assert_array_equal(scorer.score(request)["click"], scorer.score(short)["click"])


def test_no_candidates_give_no_scores(tiny_bundle: OpenBundle, columns):
    assert Scorer(tiny_bundle).score({name: values[:0] for name, values in columns.items()})["click"].shape == (0,)


def test_more_rows_than_a_chunk_score_like_each_alone(tiny_bundle: OpenBundle, columns):
    many = {name: np.concatenate([values] * 15) for name, values in columns.items()}
    scorer = Scorer(tiny_bundle)
    np.testing.assert_allclose(scorer.score(many)["click"], np.tile(scorer.score(columns)["click"], 15), atol=1e-6)


def test_a_missing_feature_is_named(tiny_bundle: OpenBundle, columns):
    without = {name: values for name, values in columns.items() if name != "surface"}
    with pytest.raises(ContractError, match="surface is missing"):
        Scorer(tiny_bundle).score(without)


def test_a_ranker_scores_with_the_sigmoid_of_its_logits(tiny_run, columns):
    scorer = GraphScorer(tiny_run.ranker_folder, tiny_run.ranker)
    expected = 1 / (1 + np.exp(-scorer.logits(columns)["click"].astype(np.float64)))
    np.testing.assert_allclose(scorer.score(columns)["click"], expected, atol=1e-6)
