"""Training and serving see the same features: what ingest computes in Spark code equals what the world's servers send."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tidewheel.contracts.recipe import Recipe
from tidewheel.contracts.window import Window
from tidewheel.logs.ingest import ingest
from tidewheel.logs.session import embedded_session
from tidewheel.world import World
from tidewheel.world.features import Counters


@pytest.fixture(scope="module")
def made(quickstart: Recipe, tmp_path_factory: pytest.TempPathFactory) -> tuple[Recipe, Path, pa.Table]:
    """A week of a small world, ingested."""
    source = quickstart.source.model_copy(update={"requests_per_day": 300, "num_users": 400})
    recipe = quickstart.model_copy(update={"source": source})
    folder, out = tmp_path_factory.mktemp("world"), tmp_path_factory.mktemp("out")
    window = Window.ending(recipe.window.first_end, recipe.window.days)
    World(source, recipe.labels, recipe.ingest.counters, recipe.features, folder).ensure_log(
        window.end + timedelta(days=1), None, None
    )
    horizon = timedelta(hours=recipe.window.label_horizon_hours)
    with embedded_session() as spark:
        ingest(spark, source, recipe.labels, recipe.features, recipe.ingest, window, out, folder, horizon)
    return recipe, folder, pq.read_table(out / "impressions")


@pytest.mark.parametrize("entity", ["user", "item", "author"])
def test_counters_of_every_row_are_those_served_on_its_day(made: tuple[Recipe, Path, pa.Table], entity: str) -> None:
    recipe, folder, table = made
    counters = Counters(folder, recipe.source, recipe.labels, recipe.ingest.counters)
    days = table["event_time"].cast(pa.date32()).to_pylist()
    first = recipe.source.start.date()
    checked = 0
    for day in sorted(set(days)):
        rows = np.flatnonzero([other == day for other in days])
        keys = table[f"{entity}_id"].to_numpy()[rows]
        distinct, inverse = np.unique(keys, return_inverse=True)
        served = counters.as_of((day - first) // timedelta(days=1), entity, distinct)
        for name, values in served.items():
            np.testing.assert_allclose(
                table[name].to_numpy()[rows], values[inverse], rtol=0, atol=1e-8, err_msg=f"{name} {day}"
            )
            checked += len(rows)
    assert checked == 3 * table.num_rows
