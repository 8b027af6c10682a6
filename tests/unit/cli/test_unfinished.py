"""Which runs are at work, and the ending of those that were killed after they had decided."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.unit.contracts.test_ledger import history
from tidewheel.cli.recipes import load_recipe
from tidewheel.cli.turning import decided, next_window_end, turn
from tidewheel.cli.unfinished import at_work, conclude_killed, is_at_work
from tidewheel.contracts.ledger import AfterRollback
from tidewheel.contracts.report import Outcome
from tidewheel.contracts.window import iso, parse_time
from tidewheel.errors import PausedError
from tidewheel.registry import Ledger
from tidewheel.store import Home

RECIPE = load_recipe(Path(__file__).parents[3] / "recipes" / "quickstart.yaml")


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home.resolve(tmp_path, {})


@pytest.fixture
def killed(home: Home) -> Path:
    """The folder of a run that released its window's bundle and left nothing else."""
    for entry in history([("bootstrap", "a", None)]):  # run-1, its window ends on 2026-01-12
        Ledger(home.store(), "quickstart").append(entry)
    RECIPE.write(home.run("run-1") / "recipe.json")
    return home.run("run-1")


def test_a_run_is_at_work_while_a_process_holds_its_lock(tmp_path: Path) -> None:
    assert not is_at_work(tmp_path)
    with at_work(tmp_path):
        assert is_at_work(tmp_path)
    assert not is_at_work(tmp_path)


def test_a_child_that_outlives_its_parent_is_still_at_work(tmp_path: Path) -> None:
    with at_work(tmp_path) as lock:
        child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, pass_fds=(lock,))
    assert is_at_work(tmp_path)
    child.communicate(b"\n")
    assert not is_at_work(tmp_path)


def test_a_killed_run_that_decided_gets_its_ending_once(home: Home, killed: Path) -> None:
    (report,) = conclude_killed("quickstart", home)

    assert (report.run_id, report.outcome, iso(report.window.end)) == ("run-1", Outcome.BOOTSTRAP, "2026-01-12")
    assert "deploy was stopped after its decision" in report.reason
    assert list(decided(RECIPE, home).values()) == [report]
    assert home.store().names("assignments/quickstart") == ["assignments/quickstart/000001.json"]
    assert conclude_killed("quickstart", home) == []


def test_a_run_at_work_is_left_alone(home: Home, killed: Path) -> None:
    with at_work(killed):
        assert conclude_killed("quickstart", home) == []


def test_a_window_that_the_ledger_knows_is_not_turned_again_even_without_a_report(home: Home, killed: Path) -> None:
    assert iso(next_window_end(RECIPE, home)) == "2026-01-19"


def test_no_run_begins_while_retraining_is_paused(home: Home) -> None:
    ledger = Ledger(home.store(), "quickstart")
    *released, back = history([("bootstrap", "a", None), ("promoted", "b", "a"), ("reverted", "a", None)])
    for entry in (*released, back.model_copy(update={"retraining": AfterRollback.PAUSE, "reason": "complaints"})):
        ledger.append(entry)

    with pytest.raises(PausedError, match=r"paused since entry 3 took production back \(complaints\); .* tidewheel resume"):
        turn(RECIPE, home, parse_time("2026-01-19"), "scheduled", False, console=None)

    assert not home.runs.exists()
