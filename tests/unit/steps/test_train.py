"""The step refuses what was not made for it before it reads a row."""

from __future__ import annotations

from pathlib import Path

import pytest

from tidewheel.contracts.dataset import DATASETS, DatasetManifest
from tidewheel.contracts.evidence import Baseline
from tidewheel.contracts.recipe import Recipe
from tidewheel.contracts.steps import TrainPart, parts
from tidewheel.contracts.teacher import TeacherChoice
from tidewheel.contracts.window import Window, parse_time
from tidewheel.errors import ContractError
from tidewheel.steps.job import Job
from tidewheel.steps.train import work
from tidewheel.store import Home


def test_a_dataset_made_with_other_features_is_not_trained_on(quickstart: Recipe, tmp_path: Path) -> None:
    end = parse_time("2026-01-12")
    home = Home.resolve(tmp_path / "home", {})
    store = home.store()
    others = quickstart.features[1:]
    made = DatasetManifest(
        kind="train", window=Window.ending(end, 7), rows=1, weight_sum=1.0, features=others, labels=quickstart.label_names
    )
    _, made = store.publish(DATASETS, store.staging("train"), made)
    baseline = Baseline(production=None, teaching=TeacherChoice(reason="nothing was released yet"), ledger_number=0)
    inputs = {"train": made.write(tmp_path / "train"), "baseline": baseline.write(tmp_path / "baseline")}
    part = parts(quickstart)["train"]
    assert isinstance(part, TrainPart)

    with pytest.raises(ContractError, match=r"dataset train .* expected .* \(user_id differ\); run again"):
        work(part, Job("train", "run-1", end, home, store, {name: str(path) for name, path in inputs.items()}))
