"""Training and serving see the same features: what ingest computes in Spark code equals what the world's servers send."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tidewheel.contracts.recipe import Recipe
from tidewheel.contracts.schema import Entity, FeatureKind, FeatureSpec
from tidewheel.contracts.window import Window
from tidewheel.logs.ingest import ingest
from tidewheel.logs.session import embedded_session
from tidewheel.ranker import columns_of
from tidewheel.world import World
from tidewheel.world.engagements import Engagements
from tidewheel.world.features import Counters

SEQUENCES = tuple(
    FeatureSpec(id=number, name=name, kind=FeatureKind.SEQUENCE, entity=Entity.USER, of=of, label=label, length=length)
    for number, name, of, label, length in (
        (90, "user_recent_clicks", "item_id", "click", 6),
        (91, "user_liked_authors", "author_id", "like", 50),
    )
)


@pytest.fixture(scope="module")
def made(quickstart: Recipe, tmp_path_factory: pytest.TempPathFactory) -> tuple[Recipe, Path, pa.Table]:
    """A week of a small world, ingested."""
    source = quickstart.source.model_copy(update={"requests_per_day": 300, "num_users": 400})
    recipe = quickstart.model_copy(update={"source": source, "features": (*quickstart.features, *SEQUENCES)})
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


@pytest.mark.parametrize("feature", SEQUENCES, ids=lambda feature: feature.name)
def test_sequences_of_every_row_are_those_served_on_its_day(made: tuple[Recipe, Path, pa.Table], feature: FeatureSpec) -> None:
    recipe, folder, table = made
    engagements = Engagements(folder, recipe.source, recipe.ingest.counters.lookback_days)
    users = np.arange(1, recipe.source.num_users + 1)
    days = (table["event_time"].cast(pa.int64()).to_numpy() - int(recipe.source.start.timestamp()) * 10**6) // (86_400 * 10**6)
    found = columns_of(table, (feature,))
    for day in np.unique(days):
        served = engagements.as_of(int(day), feature, users)
        rows = np.flatnonzero(days == day)
        at = table["user_id"].to_numpy()[rows] - 1
        for name in feature.columns:
            np.testing.assert_array_equal(found[name][rows], served[name][at], err_msg=f"{name} {day}")
    is_item = found[feature.columns[1]] >= 0
    assert is_item.sum() > table.num_rows  # more than one a row on average
    assert not is_item.all()


def test_what_the_worlds_servers_send_is_what_its_log_is_scored_with(made: tuple[Recipe, Path, pa.Table]) -> None:
    """A request carries a user's sequence once; scored offline every candidate has its own copy."""
    recipe, folder, _ = made
    world = World(recipe.source, recipe.labels, recipe.ingest.counters, recipe.features, folder)
    requests = world.draw_requests(day=10, count=5)
    flat = world.snapshot(10).flat(requests)
    sent = world.traffic(recipe.source.start + timedelta(days=10)).take(1)[0].features
    num_candidates = requests.candidates.shape[1]
    for name in (name for feature in SEQUENCES for name in feature.columns):
        assert flat[name].shape[0] == 5 * num_candidates
        assert sent[name].shape == (1, flat[name].shape[1])
        user = requests.users[2]
        assert (flat[name][2 * num_candidates : 3 * num_candidates] == world.snapshot(10).user[name][user]).all()
