"""A log stops writing a feature that production takes: the next candidate is judged all the same, and everybody is told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from tests.e2e.command import Ended, tidewheel

DAYS, ROWS_A_DAY, USERS, ITEMS = 8, 4000, 400, 60
START = np.datetime64("2026-01-05T00:00:00", "us")
FEATURES: list[dict[str, Any]] = [
    {"id": 1, "name": "user_id", "kind": "hashed", "entity": "user", "num_buckets": 1024},
    {"id": 2, "name": "item_id", "kind": "hashed", "entity": "item", "num_buckets": 256},
    {"id": 3, "name": "shop", "kind": "vocabulary", "entity": "item"},
    {"id": 4, "name": "price", "kind": "numeric", "entity": "item"},
]


def write_log(folder: Path, last_day_with_price: int) -> None:
    random = np.random.default_rng(0)
    liking, quality = random.normal(0, 1, USERS), random.normal(0, 1, ITEMS)
    for day in range(DAYS):
        users, items = random.integers(0, USERS, ROWS_A_DAY), random.integers(0, ITEMS, ROWS_A_DAY)
        price = random.gamma(2.0, 1.0, ROWS_A_DAY)
        chance = 1 / (1 + np.exp(-(quality[items] + liking[users] - 0.5 * price)))
        columns: dict[str, Any] = {
            "request": [f"{day}-{row // 4}" for row in range(ROWS_A_DAY)],
            "user": users,
            "item": items,
            "ts": START + day * np.timedelta64(1, "D") + np.sort(random.integers(0, 86_400_000_000, ROWS_A_DAY)),
            "shop": np.array(["red", "green", "blue"])[items % 3],
            "clicked": (random.random(ROWS_A_DAY) < chance).astype(np.int8),
        }
        if day <= last_day_with_price:
            columns["price"] = price
        folder.mkdir(exist_ok=True)
        pq.write_table(pa.table(columns), folder / f"day-{day}.parquet")


def write_recipe(path: Path, features: list[dict[str, Any]]) -> Path:
    recipe = {
        "name": "shop",
        "source": {
            "kind": "parquet",
            "columns": {"request_id": "request", "user_id": "user", "item_id": "item", "event_time": "ts"},
            "labels": {"click": "clicked"},
        },
        "window": {"days": 4, "first_end": "2026-01-09", "stride_days": 4},
        "labels": [{"name": "click", "prior": 0.3}],
        "features": features,
        "ingest": {"counters": {"labels": ["click"]}},
        "train": {"optimizer": {"epochs": 2, "batch_size": 256, "learning_rate": 0.01}},
        "distill": {"optimizer": {"epochs": 2, "batch_size": 256, "learning_rate": 0.01}},
        "evaluate": {
            "replay": "reported",
            "max_calibration_error": 0.4,
            "max_ece": 0.2,
            "min_rank_agreement": -0.9,
            "claims": [{"metric": "auc", "margin": 0.05}, {"metric": "logloss", "margin": 0.05}],
        },
        "deploy": {"steps": [{"share": 0.5, "min_requests": 100, "max_requests": 400}], "max_logloss_rise": 0.3},
    }
    path.write_text(yaml.safe_dump(recipe))
    return path


@pytest.fixture(scope="module")
def turns(tmp_path_factory: pytest.TempPathFactory) -> tuple[Ended, Ended, Path]:
    folder = tmp_path_factory.mktemp("shop")
    write_log(folder / "log", last_day_with_price=3)
    home, log = folder / "home", ("--data", folder / "log", "--json")
    first = tidewheel("run", "--recipe", write_recipe(folder / "first.yaml", FEATURES), *log, home=home)
    without_price = [*FEATURES[:3], FEATURES[3] | {"deprecated": True}]
    second = tidewheel("run", "--recipe", write_recipe(folder / "second.yaml", without_price), *log, home=home)
    return first, second, home


def test_the_second_turn_is_judged_and_says_that_the_baseline_is_incompatible(turns: tuple[Ended, Ended, Path]) -> None:
    first, second, _ = turns
    assert first.code == 0, first.err
    assert first.document["outcome"] == "bootstrap"
    assert second.code == 0, second.err
    report = second.document
    assert report["comparison"]["baseline"] == "BASELINE_INCOMPATIBLE"
    assert report["comparison"]["missing_features"] == ["price"]
    warned = [reason for reason in report["verdicts"]["evaluate"]["reasons"] if reason["check"] == "baseline"]
    assert warned[0]["severity"] == "warning"
    assert "production takes price, which these rows cannot give" in warned[0]["message"]
    # production without the price is all that could serve now: the candidate that never needed it is measured against that
    assert report["comparison"]["differences"]["click"]["auc"]["value"] is not None
    assert report["outcome"] == "promoted", report["reason"]


def test_report_and_explain_tell_of_it(turns: tuple[Ended, Ended, Path]) -> None:
    _, second, home = turns
    explained = tidewheel("explain", second.document["run_id"], home=home)
    assert "BASELINE_INCOMPATIBLE" in explained.out
    assert "BASELINE_INCOMPATIBLE" in (home / "runs" / second.document["run_id"] / "report.html").read_text()
