from __future__ import annotations

import os
from pathlib import Path

import pytest

from tidewheel.errors import ConfigError
from tidewheel.store import Home


def test_what_steps_see_is_the_home_that_was_chosen(tmp_path: Path) -> None:
    chosen = Home.resolve(tmp_path, {"TIDEWHEEL_STORE": "s3://bucket/wheel"}, verify="full")

    assert Home.resolve(environment=chosen.environment("run-1")) == chosen


def test_the_command_wins_over_the_environment_and_sampled_is_the_default(tmp_path: Path) -> None:
    assert Home.resolve(tmp_path, {"TIDEWHEEL_VERIFY": "full"}).verify == "full"
    assert Home.resolve(tmp_path, {"TIDEWHEEL_VERIFY": "full"}, verify="sampled").verify == "sampled"
    assert Home.resolve(tmp_path, {}).verify == "sampled"


def test_a_run_draws_its_own_sample_and_full_draws_none(tmp_path: Path) -> None:
    assert Home.resolve(tmp_path, {}).store("run-1").verification.seed == "run-1"
    assert Home.resolve(tmp_path, {}, verify="full").store("run-1").verification.is_full


def test_an_unknown_verification_in_the_environment_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--verify all: expected sampled or full"):
        Home.resolve(tmp_path, {"TIDEWHEEL_VERIFY": "all"}).store()


def test_scratch_that_nobody_came_back_for_is_swept(tmp_path: Path):
    home = Home.resolve(tmp_path)
    assert home.sweep_scratch(now=0.0) == 0  # there is none
    for name in ("old", "new"):
        (home.scratch / name).mkdir(parents=True)
    made = (home.scratch / "old").stat().st_mtime
    os.utime(home.scratch / "new", (made + 86_400, made + 86_400))
    assert home.sweep_scratch(now=made + 14.5 * 86_400) == 1
    assert [path.name for path in home.scratch.iterdir()] == ["new"]
