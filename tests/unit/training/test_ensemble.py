"""A ranker of several members: each is trained as alone, and together they judge and teach with their mean."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from tests.conftest import TinyRun
from tidewheel.contracts.evidence import ModelManifest
from tidewheel.contracts.learning import OptimizerConfig, TrainConfig
from tidewheel.contracts.network import NetworkConfig
from tidewheel.contracts.training import TrainingReport
from tidewheel.ranker import GraphScorer, columns_of
from tidewheel.ranker.scorer import log_odds_of_mean
from tidewheel.training.teaching import Teacher
from tidewheel.training.train import train

CONFIG = TrainConfig(
    seed=5,
    network=NetworkConfig(embedding_dim=2, cross_layers=1, cross_rank=4, experts=1, hidden=(8,)),
    optimizer=OptimizerConfig(epochs=1, batch_size=256, learning_rate=0.01),
)


def trained(run: TinyRun, out: Path, **changed: int) -> tuple[Path, ModelManifest, int]:
    """Folder, manifest and how often training told of itself."""
    out.mkdir()
    told: list[TrainingReport] = []
    config = CONFIG.model_copy(update=changed)
    manifest = train(run.train_dir, run.recipe.features, run.recipe.labels, config, None, out, tell=told.append)
    return out, manifest, len(told)


@pytest.fixture(scope="module")
def three(tiny_run: TinyRun, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ModelManifest, int]:
    return trained(tiny_run, tmp_path_factory.mktemp("ensemble") / "three", ensemble=3)


@pytest.fixture(scope="module")
def alone(tiny_run: TinyRun, tmp_path_factory: pytest.TempPathFactory) -> list[tuple[Path, ModelManifest, int]]:
    """A ranker for each of the seeds 5, 6 and 7."""
    root = tmp_path_factory.mktemp("alone")
    return [trained(tiny_run, root / str(seed), seed=seed) for seed in (5, 6, 7)]


def test_members_are_the_rankers_of_the_next_seeds(three, alone):
    folder, manifest, told = three
    assert (manifest.members, told) == (("graph-1.onnx", "graph-2.onnx"), 1)
    assert alone[0][1].members == ()
    for graph, (single, found, _) in zip((manifest.graph, *manifest.members), alone, strict=True):
        assert (folder / graph).read_bytes() == (single / found.graph).read_bytes()
    assert (folder / manifest.weights).read_bytes() == (alone[0][0] / alone[0][1].weights).read_bytes()


def test_an_ensemble_scores_and_teaches_with_the_mean_of_its_members_probabilities(tiny_run: TinyRun, three, alone):
    folder, manifest, _ = three
    columns = columns_of(pq.read_table(tiny_run.calibration_dir), tiny_run.recipe.features)
    members = [GraphScorer(single, found).score(columns) for single, found, _ in alone]
    together = GraphScorer(folder, manifest)
    soft = Teacher.of_ranker(together, manifest, manifest.labels).score(together.encoders.encode(columns))
    for at, label in enumerate(manifest.labels):
        wanted = np.mean([scores[label] for scores in members], axis=0)
        np.testing.assert_allclose(together.score(columns)[label], wanted, atol=1e-6)
        np.testing.assert_allclose(soft[:, at], wanted, atol=1e-6)
    assert np.abs(members[0]["click"] - members[1]["click"]).max() > 1e-3  # they do differ


def test_the_log_odds_of_a_mean_are_those_by_hand_and_finite():
    # Probabilities 1/2 and 1/4: their mean 3/8 has odds 3 : 5.
    found = log_odds_of_mean(np.array([[0.0, 80.0, -80.0], [-np.log(3.0), 80.0, -80.0]], dtype=np.float32))
    np.testing.assert_allclose(found, [np.log(3 / 5), 80.0, -80.0], rtol=1e-6)
