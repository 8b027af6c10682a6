"""The newest runs of a store that many homes share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.unit.cli.test_gc import report
from tidewheel.cli.inspect import explain
from tidewheel.cli.reports import newest_runs
from tidewheel.contracts.report import StepRecord
from tidewheel.contracts.window import parse_time
from tidewheel.errors import ConfigError
from tidewheel.steps.records import put_record, put_report
from tidewheel.store import Home, Store
from tidewheel.store.local import LocalStore


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home.resolve(tmp_path / "home", {})


@pytest.fixture
def store(home: Home) -> Store:
    """Twenty runs of other homes that ended one after the other, and three that did not end."""
    store = home.store()
    begun = StepRecord(name="ingest", status="running", started=parse_time("2026-01-05"), seconds=0.0)
    for number in range(20):
        put_record(store, f"ended-{number:02}", begun)
        put_report(store, report(f"ended-{number:02}"), {"report": "<html>"})
    for number in range(3):
        put_record(store, f"begun-{number}", begun)
    for path in Path(store.url).glob("documents/*/*"):
        number = int(path.parent.name.split("-")[1])
        os.utime(path, (1_000_000 + number, 1_000_000 + number))
    return store


def test_only_the_newest_are_read(home: Home, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    get = LocalStore.get
    monkeypatch.setattr(LocalStore, "get", lambda self, name: (read.append(name), get(self, name))[1])

    runs = newest_runs(home, store, 2)

    assert {found.run_id for found in runs.concluded} == {"ended-18", "ended-19"}
    assert {run_id: [step.name for step in steps] for run_id, steps in runs.at_work.items()} == {
        "begun-1": ["ingest"],
        "begun-2": ["ingest"],
    }
    assert runs.older == 18 + 1
    assert {name.split("/")[1] for name in read} == {"ended-18", "ended-19", "begun-1", "begun-2"}


def test_runs_of_this_home_count_as_those_of_others(home: Home, store: Store) -> None:
    (home.run("of-here")).mkdir(parents=True)
    (home.run("of-here") / "run.json").write_text(report("of-here").to_json(), encoding="utf-8")
    home.run("just-begun").mkdir()

    runs = newest_runs(home, store, 1)

    assert [found.run_id for found in runs.concluded] == ["of-here"]
    assert list(runs.at_work) == ["just-begun"]


def test_a_run_that_has_not_told_its_ending_is_told_from_one_that_is_unknown(home: Home, store: Store) -> None:
    with pytest.raises(ConfigError, match=r"run begun-1: has said nothing of its ending \(ingest running\)"):
        explain("begun-1", str(home.root), as_json=True)
    with pytest.raises(ConfigError, match=r"run other: is neither in .* nor in the store; found "):
        explain("other", str(home.root), as_json=True)
