"""The real MLflow on a fresh database, through the child process that `deploy` uses."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tidewheel.errors import RetryableError
from tidewheel.registry import BackgroundRegistry


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[BackgroundRegistry]:
    with BackgroundRegistry(f"sqlite:///{tmp_path / 'registry.db'}", "quickstart", str(tmp_path / "bundles")) as registry:
        yield registry


def test_versions_are_named_by_digest_and_aliases_follow(registry: BackgroundRegistry, tmp_path: Path) -> None:
    for digest in ("a" * 64, "b" * 64):
        (tmp_path / "bundles" / digest).mkdir(parents=True)
    registry.announce("a" * 64, {"tidewheel.run_id": "run-1"})  # does not wait
    assert registry.aliases() == {"candidate": "a" * 64}
    assert registry.register("a" * 64, {"tidewheel.verdict": "Successful"}) == "1"  # the same digest: the same version
    assert registry.register("b" * 64, {}) == "2"
    registry.point("production", "a" * 64)
    registry.point("production", "b" * 64)
    registry.point("candidate", None)
    assert registry.aliases() == {"production": "b" * 64}
    with pytest.raises(RetryableError, match="has no version"):
        registry.point("previous", "c" * 64)
    assert registry.aliases() == {"production": "b" * 64}  # still answers in step
    registry._child.kill()
    registry._child.wait()
    with pytest.raises(RetryableError, match="its process ended"):
        registry.aliases()
    registry._log.seek(0)
    assert registry._log.read() == b""  # quiet: no migrations, no warnings


def runs(tmp_path: Path, recipe: str = "quickstart") -> list[Any]:
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{tmp_path / 'registry.db'}")
    return list(client.search_runs([client.get_experiment_by_name(recipe).experiment_id]))


def test_figures_become_one_run_of_the_recipes_experiment(
    registry: BackgroundRegistry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    figures = {"student.click.auc": 0.75, "student.click.auc.lower": 0.7, "odd/../na me!": 1.5}
    registry.record("run-1", {"tidewheel.verdict": "Successful"}, figures)  # does not wait
    registry.record("run-1", {"tidewheel.outcome": "promoted"}, figures)
    registry.record("run-2", {}, {f"many.{index}": float(index) for index in range(1500)})  # more than one call holds
    assert registry.unrecorded() == ""
    found = {run.info.run_name: run for run in runs(tmp_path)}
    assert set(found) == {"run-1", "run-2"}
    assert found["run-1"].data.metrics == {
        "student.click.auc": 0.75,
        "student.click.auc.lower": 0.7,
        "odd_.._na me_": 1.5,
    }
    tags = found["run-1"].data.tags
    assert (tags["tidewheel.run_id"], tags["tidewheel.verdict"]) == ("run-1", "Successful")
    assert tags["tidewheel.outcome"] == "promoted"
    assert len(found["run-2"].data.metrics) == 1500
    assert {run.info.status for run in found.values()} == {"FINISHED"}
    assert not (tmp_path / "mlruns").exists()


def test_a_run_that_was_cut_off_is_finished_and_not_doubled(tmp_path: Path) -> None:
    from mlflow import MlflowClient

    location = f"sqlite:///{tmp_path / 'registry.db'}"
    client = MlflowClient(location)
    experiment = client.create_experiment("quickstart")
    client.create_run(experiment, tags={"tidewheel.run_id": "run-1"}, run_name="run-1")  # and then the process was killed
    with BackgroundRegistry(location, "quickstart", str(tmp_path)) as registry:
        registry.record("run-1", {}, {"student.click.auc": 0.75})
        assert registry.unrecorded() == ""
    (found,) = runs(tmp_path)
    assert found.data.metrics == {"student.click.auc": 0.75}
    assert found.info.status == "FINISHED"


def test_figures_that_cannot_be_kept_stop_no_release(registry: BackgroundRegistry, tmp_path: Path) -> None:
    (tmp_path / "bundles" / ("a" * 64)).mkdir(parents=True)
    registry.record("it's no id", {}, {})  # MLflow cannot parse the question
    assert registry.register("a" * 64, {}) == "1"
    registry.point("production", "a" * 64)
    assert registry.aliases() == {"production": "a" * 64}
    assert "MlflowException" in registry.unrecorded()


def test_a_dead_child_is_said_and_raises_nothing(registry: BackgroundRegistry) -> None:
    registry.record("run-1", {}, {})
    registry._child.kill()
    registry._child.wait()
    assert "its process ended" in registry.unrecorded()


def test_the_package_is_imported_without_mlflow() -> None:
    code = "import sys, tidewheel.registry; sys.exit('mlflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
