"""`tidewheel status` asks a cluster when it is told to, and then says what is in its way."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.unit.cli.test_gc import report
from tidewheel.cli.status import status
from tidewheel.errors import ConfigError
from tidewheel.steps.records import put_report
from tidewheel.store import Home


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A home with one run, and a kubeconfig that is not there."""
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    monkeypatch.delenv("TIDEWHEEL_STORE", raising=False)
    put_report(Home.resolve(tmp_path / "home", {}).store(), report("a-run"), {})
    return str(tmp_path / "home")


def test_without_the_option_no_cluster_is_asked(home: str, capsys: pytest.CaptureFixture[str]) -> None:
    status(20, False, "", home, as_json=True)

    said = json.loads(capsys.readouterr().out)
    assert [run["run_id"] for run in said["runs"]] == ["a-run"]
    assert "cluster" not in said


def test_a_kubeconfig_that_is_not_there_is_named(home: str) -> None:
    with pytest.raises(ConfigError, match=r"none: names no cluster .*set KUBECONFIG"):
        status(20, True, "", home, as_json=True)


def test_a_namespace_without_a_cluster_is_refused(home: str) -> None:
    with pytest.raises(ConfigError, match="--namespace runs: is of a cluster; add --cluster"):
        status(20, False, "runs", home, as_json=True)
