"""Weeks of the built-in world: a release that looks good on its first days and hurts in its second week is taken back.

The fault belongs to the second release: its users click more at first and tire of it. Its canary, hours long, passes. The watch
looks at every day that is over, proves the harm against the held-out users and goes back; the next run learns from the bundle
before it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.command import QUICKSTART, SMALL, settings, tidewheel
from tidewheel.contracts.experiment import ExperimentReport
from tidewheel.contracts.ledger import Decision, LedgerEntry, untrusted
from tidewheel.contracts.report import Outcome, RunReport
from tidewheel.contracts.verdict import Phase

pytestmark = pytest.mark.slow

WEEKS = ("2026-01-12", "2026-01-19", "2026-02-09")
FIRST_DAY = "2026-01-21"  # the world's log reaches two days over the window: they were served before the release
SETTINGS = (
    *SMALL,
    "source.requests_per_day=4000",
    f"source.faults=[{{kind: delayed_harm, start: {WEEKS[1]}, end: 2026-03-30, lift: 0.3, loss: 0.5, days: 5}}]",
    "deploy.holdout={share: 0.2}",
)


@dataclass(frozen=True)
class Weeks:
    """Reports of the runs; of the experiment after a few days and at its end; what was shown in between; the ledger at last."""

    runs: tuple[RunReport, ...]
    early: ExperimentReport
    status: dict[str, Any]
    entries_before: int
    late: ExperimentReport
    ledger: tuple[LedgerEntry, ...]


def turn(home: Path, week: str, *more: str) -> RunReport:
    ended = tidewheel("run", "--recipe", QUICKSTART, "--window-end", week, *settings(*SETTINGS), *more, "--json", home=home)
    assert ended.code == 0, ended.err
    return RunReport.parse(ended.out, "run")


def entries(home: Path) -> tuple[LedgerEntry, ...]:
    return tuple(LedgerEntry.model_validate(entry) for entry in tidewheel("history", "--json", home=home).document)


@pytest.fixture(scope="module")
def weeks(tmp_path_factory: pytest.TempPathFactory) -> Weeks:
    home = tmp_path_factory.mktemp("harm") / "home"
    released = [turn(home, week) for week in WEEKS[:2]]
    early = tidewheel("watch", "--until", "2026-01-26", "--json", home=home)
    assert early.code == 0, early.err
    status = tidewheel("status", "--json", home=home).document
    looked = tidewheel("experiment", "--json", home=home)
    assert looked.out == early.out
    before = len(entries(home))
    late = tidewheel("watch", "--until", WEEKS[2], "--json", home=home)
    assert late.code == 0, late.err
    after = turn(home, WEEKS[2])
    return Weeks(
        runs=(*released, after),
        early=ExperimentReport.parse(early.out, "watch"),
        status=status,
        entries_before=before,
        late=ExperimentReport.parse(late.out, "watch"),
        ledger=entries(home),
    )


def test_its_canary_passes_and_begins_the_experiment(weeks: Weeks) -> None:
    first, second, _ = weeks.runs

    assert second.outcome is Outcome.PROMOTED
    (begun,) = weeks.status["experiments"].values()
    assert (begun["new"], begun["previous"], begun["number"]) == (second.bundle, first.bundle, 2)


def test_it_looks_good_on_its_first_days(weeks: Weeks) -> None:
    early = weeks.early

    assert early.verdict.phase is Phase.RUNNING
    assert str(early.first_day) == FIRST_DAY
    estimate = early.periods[0].estimate
    assert estimate is not None
    assert estimate > 0.0


def test_by_the_second_week_it_is_taken_back_with_the_numbers_in_the_ledger(weeks: Weeks) -> None:
    first, second, _ = weeks.runs
    entry = weeks.ledger[weeks.entries_before]

    assert entry.decision is Decision.REVERTED
    assert (entry.production, entry.previous, entry.run_id) == (first.bundle, second.bundle, "watch")
    assert entry.reason.startswith("delayed harm: holdout, since period")
    assert entry.verdict.phase is Phase.FAILED
    assert weeks.late.ledger_number == entry.number
    assert 7 < weeks.late.days <= 14


def test_the_next_run_neither_learns_from_it_nor_compares_with_it(weeks: Weeks) -> None:
    first, second, third = weeks.runs

    assert third.teacher == first.bundle
    assert third.teaching is not None
    assert "delayed harm" in third.teaching.passed_over[str(second.bundle)]
    assert str(second.bundle) in untrusted(weeks.ledger)


def test_the_next_release_begins_an_experiment_of_its_own(weeks: Weeks) -> None:
    first, _, third = weeks.runs
    last = weeks.ledger[-1]

    assert third.outcome is Outcome.PROMOTED
    assert last.experiment is not None
    assert (last.experiment.new, last.experiment.previous) == (third.bundle, first.bundle)
    assert last.experiment.salt != weeks.late.experiment.salt
