"""A log that servers and clients wrote, read by `run` like any other: days overlap, labels come late, rows are weighted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.e2e.command import QUICKSTART, SMALL, settings, tidewheel

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The log of a small world's first week and what came before."""
    home = tmp_path_factory.mktemp("world") / "home"
    values = settings(*(value for value in SMALL if value.startswith("source.")))
    ended = tidewheel("sample", "--recipe", QUICKSTART, *values, "--window-end", "2026-01-14", "--json", home=home)
    assert ended.code == 0, ended.err
    return home / "world" / "quickstart"


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    document = yaml.safe_load(QUICKSTART.read_text(encoding="utf-8"))
    document["name"] = "served"
    document["source"] = {"kind": "hybrid", "labels": ["click", "long_view", "like"]}
    document["window"] |= {"stride_days": 1}
    path = tmp_path_factory.mktemp("recipe") / "served.yaml"
    path.write_text(yaml.safe_dump(document), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def turns(world: Path, recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    home = tmp_path_factory.mktemp("served") / "home"
    values = settings(*(value for value in SMALL if not value.startswith("source.")))
    reports = []
    for _ in range(2):
        ended = tidewheel("run", "--recipe", recipe, "--data", world, *values, "--json", home=home)
        assert ended.code == 0, ended.err
        manifest = home / "store" / "documents" / ended.document["run_id"] / "ingest.impressions.json"
        reports.append(ended.document | {"impressions": json.loads(manifest.read_text(encoding="utf-8"))})
    return reports


def test_successive_days_turn_the_wheel_and_the_canary_weighs_what_it_replays(turns: list[dict[str, Any]]) -> None:
    assert [turn["outcome"] for turn in turns] == ["bootstrap", "promoted"]


def test_the_manifest_says_until_when_the_log_was_complete_and_how_late_labels_were(turns: list[dict[str, Any]]) -> None:
    # A day for the labels' horizon, one for late ones.
    assert [turn["impressions"]["watermark"][:10] for turn in turns] == ["2026-01-14", "2026-01-15"]
    for turn in turns:
        found = turn["impressions"]
        assert found["statistics"]["late_events"] >= 0
        assert 0 < found["statistics"]["lateness_seconds_max"] < 86_400
        assert found["statistics"]["immature"] == 0
        assert found["statistics"]["not_seen"] > found["statistics"]["served"] / 2


def test_weights_make_the_sampled_log_stand_for_what_was_seen(turns: list[dict[str, Any]]) -> None:
    """Served candidates less those of abandoned requests (2%), estimated from a log that holds a third of them."""
    for turn in turns:
        found = turn["impressions"]
        seen = 0.98 * found["statistics"]["served"]
        assert found["weight_sum"] == pytest.approx(seen, rel=0.02)
        assert found["rows"] < 0.45 * found["statistics"]["served"]


def test_a_log_that_is_not_complete_up_to_the_window_is_refused_with_its_watermark(
    world: Path, recipe: Path, tmp_path: Path
) -> None:
    ended = tidewheel("run", "--recipe", recipe, "--data", world, "--window-end", "2026-02-20", home=tmp_path / "home")
    assert ended.code == 3
    assert "complete in both parts until 2026-01-16" in " ".join(ended.err.split())
