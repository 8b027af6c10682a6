"""A recipe with a sequence turns the wheel: from the world's log to the servers of a canary, and once more with a teacher."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml

from tests.e2e.command import QUICKSTART, SMALL, settings, tidewheel

pytestmark = pytest.mark.slow
CLICKS = {
    "id": 26,
    "name": "user_recent_clicks",
    "kind": "sequence",
    "entity": "user",
    "of": "item_id",
    "label": "click",
    "length": 10,
}


def test_two_turns_end_well_and_the_bundle_knows_where_the_sequence_stands(tmp_path: Path) -> None:
    document = yaml.safe_load(QUICKSTART.read_text(encoding="utf-8"))
    document["features"].append(CLICKS)
    recipe, home = tmp_path / "recipe.yaml", tmp_path / "home"
    recipe.write_text(yaml.safe_dump(document, sort_keys=False), encoding="utf-8")
    masked = "train.network.time_mask_hours=24"
    turns = [tidewheel("run", "--recipe", recipe, *settings(*SMALL, masked), "--json", home=home) for _ in range(2)]
    assert [turn.code for turn in turns] == [0, 0], turns[-1].err
    assert [turn.document["outcome"] for turn in turns] == ["bootstrap", "promoted"]
    bundle = home / "store" / "bundles" / turns[1].document["bundle"]
    network = json.loads((bundle / "ranker" / "network.json").read_text(encoding="utf-8"))
    assert [(place["name"], place["length"]) for place in network["sequences"]] == [("user_recent_clicks", 10)]
    profile = json.loads((bundle / "profile.json").read_text(encoding="utf-8"))
    assert len(profile["numeric_edges"]["user_recent_clicks"]) > 1
    snapshots = [pq.read_table(path) for path in sorted(home.glob("store/datasets/*/sequences/*.parquet"))]
    assert [table.column_names for table in snapshots] == [
        ["user_id", "user_recent_clicks", "user_recent_clicks_age_hours"]
    ] * 2
