"""Small worlds: big enough for statistics, small enough for a second."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tidewheel.contracts.hybrid import Part
from tidewheel.contracts.recipe import CounterConfig, LabelConfig, WorldSource
from tidewheel.contracts.schema import FeatureKind, FeatureSpec
from tidewheel.world import World
from tidewheel.world.features import known_features

START = datetime(2026, 1, 5, tzinfo=UTC)
LABELS = (
    LabelConfig(name="click", prior=0.1),
    LabelConfig(name="long_view", prior=0.05),
    LabelConfig(name="like", prior=0.02, gated=False),
)
COUNTERS = CounterConfig(labels=("click", "long_view"), smoothing=20.0, lookback_days=3)


def all_features(counters: CounterConfig = COUNTERS) -> tuple[FeatureSpec, ...]:
    """Every feature of the world, as a recipe would declare it."""
    specs = []
    for number, (name, entity) in enumerate(known_features(counters).items(), start=1):
        if name.endswith("_id"):
            specs.append(FeatureSpec(id=number, name=name, kind=FeatureKind.HASHED, entity=entity, num_buckets=64))
        elif name.endswith(("_days", "_rate", "_impressions")):
            specs.append(FeatureSpec(id=number, name=name, kind=FeatureKind.NUMERIC, entity=entity))
        else:
            specs.append(FeatureSpec(id=number, name=name, kind=FeatureKind.VOCABULARY, entity=entity))
    return tuple(specs)


FEATURES = all_features()

MakeWorld = Callable[..., World]


@pytest.fixture
def make_world(tmp_path: Path) -> MakeWorld:
    """A world in a folder of its own: `make_world(name, **source)`."""

    def make(name: str = "world", features: tuple[FeatureSpec, ...] = FEATURES, **changes: object) -> World:
        wanted = {"kind": "world", "start": START, "num_users": 300, "num_items": 200, "requests_per_day": 400} | changes
        return World(WorldSource.model_validate(wanted), LABELS, COUNTERS, features, tmp_path / name)

    return make


def part_of(world: World, part: Part) -> pa.Table:
    """All days of one part of a world's log."""
    return pa.concat_tables(pq.ParquetFile(path).read() for path in sorted(world.folder.glob(f"{part}/date=*/part-0.parquet")))


@pytest.fixture
def served() -> Callable[[World], pd.DataFrame]:
    """Reads what the world's servers wrote."""
    return lambda world: part_of(world, Part.BACKEND).to_pandas()


@pytest.fixture
def reported() -> Callable[[World], pd.DataFrame]:
    """Reads what the world's clients sent."""
    return lambda world: part_of(world, Part.FRONTEND).to_pandas()


class PreferenceForCategory:
    """A scorer that likes one category and is otherwise indifferent."""

    def __init__(self, category: str) -> None:
        self.category = category

    def score(self, columns: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {"click": np.where(columns["item_category"] == self.category, 0.9, 0.01)}


@pytest.fixture
def prefers() -> type[PreferenceForCategory]:
    return PreferenceForCategory
