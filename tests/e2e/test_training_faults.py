"""Training through the command line: killed, it goes on; when it cannot, it says why and production stays."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import time
from pathlib import Path

import psutil
import pytest

from tests.e2e.command import PROGRAM, QUICKSTART, ROOT, SMALL, environment, settings, tidewheel
from tests.e2e.test_new_project import fenced_commands

pytestmark = pytest.mark.slow

RUN = ["run", "--recipe", str(QUICKSTART), *settings(*SMALL)]
LONG = settings("train.optimizer.epochs=30", "train.checkpoint_every_steps=20")
PATIENCE_SECONDS = 240


def killed_in_training(home: Path, run: list[str]) -> None:
    """Start a run and kill its train step, without warning, after a checkpoint."""
    process = subprocess.Popen([*PROGRAM, *run], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment(home))
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        if list(home.glob("store/checkpoints/*/manifest.json")):
            for child in psutil.Process(process.pid).children(recursive=True):
                if "executor_main" in " ".join(child.cmdline()):
                    os.kill(child.pid, signal.SIGKILL)
            assert process.wait(PATIENCE_SECONDS) == 1
            return
        time.sleep(0.01)
    process.kill()
    raise AssertionError("no checkpoint appeared")


def test_a_killed_training_goes_on_to_the_bundle_of_an_undisturbed_one(tmp_path: Path) -> None:
    undisturbed = tidewheel(*RUN, *LONG, "--json", home=tmp_path / "undisturbed")
    assert undisturbed.code == 0, undisturbed.err
    killed_in_training(tmp_path / "home", [*RUN, *LONG])

    resumed = tidewheel(*RUN, *LONG, "--json", home=tmp_path / "home")

    assert resumed.code == 0, resumed.err
    assert resumed.document["training"]["resumed_at"] >= 20
    total = undisturbed.document["training"]["steps"]
    assert resumed.document["training"]["resumed_at"] + resumed.document["training"]["steps"] == total
    files = [
        sorted((path.name, path.read_bytes()) for path in (tmp_path / name).glob("store/bundles/*/ranker/*"))
        for name in ("home", "undisturbed")
    ]
    assert files[0] == files[1]
    assert not list((tmp_path / "home").glob("store/checkpoints/*"))
    assert not list((tmp_path / "home").glob("scratch/*"))


def test_a_loss_that_explodes_fails_the_run_with_its_step_and_releases_nothing(tmp_path: Path) -> None:
    ended = tidewheel(*RUN, *settings("train.optimizer.learning_rate=1.0e20"), "--json", home=tmp_path / "home")

    assert ended.code == 2
    assert ended.document["outcome"] == "failed"
    assert "training: the loss is" in ended.document["reason"]
    assert "at step" in ended.document["reason"]
    assert "lower learning_rate" in ended.document["reason"]
    assert not (tmp_path / "home" / "store" / "bundles").exists()
    assert ended.document["production"] is None


def test_the_documented_commands_measure_training(tmp_path: Path) -> None:
    run, bench = (shlex.split(command) for command in fenced_commands(ROOT / "docs" / "training.md"))
    home = tmp_path / "home"
    assert tidewheel(*run[1:], *settings(*SMALL), home=home, cwd=ROOT).code == 0

    ended = tidewheel(*bench[1:], "--json", home=home, cwd=ROOT)

    assert ended.code == 0, ended.err
    assert ended.document["rows_per_second"] > 0
    assert ended.document["input_efficiency"] > 0
    assert (ended.document["steps"], len(ended.document["input_efficiencies"])) == (20, 3)
