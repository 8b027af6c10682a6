"""Fixtures that tests of several packages share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from tidewheel.contracts.bundle import Lineage
from tidewheel.contracts.evidence import ModelManifest, Profile
from tidewheel.contracts.learning import DistillConfig, OptimizerConfig, TrainConfig
from tidewheel.contracts.network import NetworkConfig
from tidewheel.contracts.recipe import Recipe
from tidewheel.contracts.schema import FeatureKind, FeatureSpec, label_column
from tidewheel.contracts.window import Window, parse_time
from tidewheel.ranker import OpenBundle, load_bundle
from tidewheel.store import Store

REPOSITORY = Path(__file__).parent.parent
WINDOW = Window(start=parse_time("2026-01-05"), end=parse_time("2026-01-12"))


@dataclass(frozen=True)
class TinyRun:
    """What the fixtures below were made from and made: real files of a small run."""

    recipe: Recipe
    train_dir: Path
    calibration_dir: Path
    profile: Path
    ranker_folder: Path
    ranker: ModelManifest
    store: Store
    bundle: OpenBundle


@pytest.fixture(scope="session")
def quickstart() -> Recipe:
    """The recipe of the built-in world."""
    return Recipe.model_validate(yaml.safe_load((REPOSITORY / "recipes" / "quickstart.yaml").read_text(encoding="utf-8")))


def synthetic_rows(features: tuple[FeatureSpec, ...], labels: tuple[str, ...], rows: int, seed: int) -> pa.Table:
    """Impressions whose labels depend on `user_id` and on the first numeric feature; `weight` is 1 or 4."""
    random = np.random.default_rng(seed)
    columns: dict[str, np.ndarray] = {}
    for feature in features:
        if feature.kind is FeatureKind.HASHED:
            columns[feature.name] = random.integers(1, 60, rows)
        elif feature.kind is FeatureKind.VOCABULARY:
            columns[feature.name] = random.choice(np.array(["a", "b", "c"], dtype=object), rows)
        else:
            columns[feature.name] = random.gamma(2.0, 1.0, rows)
    first = next(f.name for f in features if f.kind is FeatureKind.NUMERIC)
    margin = 1.2 * (columns[first] - 2.0) + np.where(columns["user_id"] % 2 == 0, 1.0, -1.0) - 1.0
    for at, label in enumerate(labels):
        columns[label_column(label)] = (random.random(rows) < 1 / (1 + np.exp(-margin + at))).astype(np.int8)
    columns["weight"] = random.choice(np.array([1.0, 4.0]), rows)
    return pa.table(columns)


@pytest.fixture(scope="session")
def make_rows() -> Callable[[Recipe, int, int], pa.Table]:
    """(recipe, rows, seed) -> synthetic impressions of the recipe's features and labels."""
    return lambda recipe, rows, seed: synthetic_rows(recipe.features, recipe.label_names, rows, seed)


@pytest.fixture(scope="session")
def tiny_run(quickstart: Recipe, tmp_path_factory: pytest.TempPathFactory) -> TinyRun:
    """A ranker and a bundle trained for a few steps on 2,000 synthetic rows with the quickstart's features."""
    from tidewheel.training.distill import distill
    from tidewheel.training.train import train

    root = tmp_path_factory.mktemp("tiny")
    for split, rows, seed in (("train", 2000, 1), ("calibration", 600, 2)):
        (root / split).mkdir()
        pq.write_table(synthetic_rows(quickstart.features, quickstart.label_names, rows, seed), root / split / "part-0.parquet")
    profile = Profile(
        numeric_edges={}, categorical_values={}, shares={}, label_rates={"click": 0.3}, rows=2000, effective_rows=1500.0
    ).write(root / "profile.json")
    store = Store.open(str(root / "store"))
    optimizer = OptimizerConfig(epochs=4, batch_size=256, learning_rate=0.01)
    network = NetworkConfig(embedding_dim=4, cross_layers=1, cross_rank=8, experts=2, hidden=(16,))
    ranker_folder = root / "ranker"
    ranker_folder.mkdir()
    config = TrainConfig(network=network, optimizer=optimizer)
    ranker = train(root / "train", quickstart.features, quickstart.labels, config, None, ranker_folder)
    lineage = Lineage(
        run_id="tiny",
        recipe="quickstart",
        recipe_digest=quickstart.digest,
        window=WINDOW,
        datasets={},
        teacher=None,
        generation=0,
    )
    digest, _, _ = distill(
        ranker_folder,
        ranker,
        root / "train",
        root / "calibration",
        DistillConfig(optimizer=optimizer),
        quickstart.labels,
        profile,
        lineage,
        store,
        "quickstart",
        store.staging("bundle"),
    )
    return TinyRun(
        recipe=quickstart,
        train_dir=root / "train",
        calibration_dir=root / "calibration",
        profile=profile,
        ranker_folder=ranker_folder,
        ranker=ranker,
        store=store,
        bundle=load_bundle(store, digest),
    )


@pytest.fixture(scope="session")
def tiny_bundle(tiny_run: TinyRun) -> OpenBundle:
    """A real bundle with the quickstart's features and labels, published in a temporary store."""
    return tiny_run.bundle
