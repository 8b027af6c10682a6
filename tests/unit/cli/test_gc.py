"""What `tidewheel gc` knows of the runs of a home."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tidewheel.cli.gc import traces
from tidewheel.cli.recipes import load_recipe
from tidewheel.cli.unfinished import at_work
from tidewheel.contracts.base import digest_of
from tidewheel.contracts.evidence import Baseline
from tidewheel.contracts.report import Outcome, RunReport, StepRecord
from tidewheel.contracts.teacher import TeacherChoice
from tidewheel.contracts.window import Window, parse_time
from tidewheel.registry import Ledger
from tidewheel.steps.records import put_report
from tidewheel.store import Home

RECIPE = load_recipe(Path(__file__).parents[3] / "recipes" / "quickstart.yaml")


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home.resolve(tmp_path, {})


def left(home: Home, run_id: str, name: str = "quickstart") -> Path:
    """A run of that recipe that made one dataset and pinned its baseline."""
    store, teaching = home.store(), TeacherChoice(bundle="t", generation=0, reason="")
    store.put(f"documents/{run_id}/sample.train.json", '{"of": "rows"}')
    pinned = Baseline(production="p", earlier=("e",), teaching=teaching, ledger_number=2)
    store.put(f"documents/{run_id}/validate_data.baseline.json", pinned.to_json())
    RECIPE.model_copy(update={"name": name}).write(home.run(run_id) / "recipe.json")
    return home.run(run_id)


def test_a_run_that_ended_needs_nothing_and_told_what_it_made(home: Home) -> None:
    left(home, "run-1")

    (trace,) = traces(home, Ledger(home.store(), "quickstart"), ())

    assert trace.ended is not None
    assert trace.made == {("datasets", digest_of({"of": "rows"}))}
    assert trace.needed == frozenset()


def test_a_run_at_work_needs_its_production_its_teacher_and_whom_it_compares_with(home: Home) -> None:
    with at_work(left(home, "run-1")):
        (trace,) = traces(home, Ledger(home.store(), "quickstart"), ())

    assert trace.ended is None
    assert trace.needed == {"p", "t", "e"}


def test_runs_of_other_recipes_and_of_other_homes_count_as_at_work(home: Home) -> None:
    left(home, "run-1", name="shop")
    home.store().put("documents/elsewhere-1/sample.train.json", "{}")

    found = traces(home, Ledger(home.store(), "quickstart"), ())

    assert [(trace.run_id, trace.ended) for trace in found] == [("elsewhere-1", None), ("run-1", None)]


def report(run_id: str, recipe: str = "quickstart", outcome: Outcome = Outcome.FAILED, *steps: StepRecord) -> RunReport:
    window = Window.ending(parse_time("2026-01-12"), 7)
    return RunReport(run_id=run_id, recipe=recipe, recipe_digest="r", window=window, outcome=outcome, reason="why", steps=steps)


def test_a_run_of_another_home_needs_nothing_once_it_has_said_how_it_ended(home: Home) -> None:
    now = datetime(2026, 1, 12, 4, tzinfo=UTC)
    step = StepRecord(name="ingest", status="succeeded", started=now, seconds=60)
    for run_id, recipe in (("elsewhere-1", "quickstart"), ("elsewhere-2", "shop")):
        put_report(home.store(), report(run_id, recipe, Outcome.FAILED, step), {})

    found = traces(home, Ledger(home.store(), "quickstart"), ())

    assert [(trace.run_id, trace.ended) for trace in found] == [
        ("elsewhere-1", now + timedelta(minutes=1)),
        ("elsewhere-2", None),  # its own sweep will say
    ]
