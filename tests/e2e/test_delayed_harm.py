"""The commands of docs/holdout.md on the built-in world: a release that looks good on its first days and hurts in its second
week is taken back.

The fault belongs to the second release: its users click more at first and tire of it. Its canary, hours long, passes. The watch
looks at every day that is over, proves the harm against the held-out users and goes back; the next run learns from labels
alone.
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from typing import Any

import pytest

from tests.e2e.command import ROOT, SMALL, settings, tidewheel
from tests.e2e.test_new_project import fenced_commands
from tidewheel.contracts.experiment import ExperimentReport
from tidewheel.contracts.ledger import Decision, LedgerEntry, untrusted
from tidewheel.contracts.report import Outcome, RunReport
from tidewheel.contracts.verdict import Phase

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

FIRST_DAY = "2026-01-21"  # the world's log reaches two days over the window: they were served before the release
COARSE = settings(*SMALL, "source.requests_per_day=4000")  # gates that a small world can pass; the holdout's are the page's


@dataclass(frozen=True)
class Weeks:
    """Reports of the runs; of the experiment after a few days and at its end; the status in between; the ledger at last."""

    runs: tuple[RunReport, ...]
    early: ExperimentReport
    status: dict[str, Any]
    late: ExperimentReport
    ledger: tuple[LedgerEntry, ...]


@pytest.fixture(scope="module")
def weeks(tmp_path_factory: pytest.TempPathFactory) -> Weeks:
    home = tmp_path_factory.mktemp("harm") / "home"

    def document(words: list[str], *more: str) -> Any:
        ended = tidewheel(*words[1:], *more, "--json", home=home, cwd=ROOT)
        assert ended.code == 0, ended.err
        return ended.document

    commands = [shlex.split(command) for command in fenced_commands(ROOT / "docs" / "holdout.md")]
    assert [words[1] for words in commands] == ["run", "run", "watch", "experiment", "watch", "history"]
    run, _, watch, look, watch_on, history = commands
    runs = [document(run, *COARSE), document(run, *COARSE)]
    early, status = document(watch), document(["tidewheel", "status"])
    assert document(look) == early
    late = document(watch_on)
    runs.append(document(run, *COARSE))
    return Weeks(
        runs=tuple(RunReport.model_validate(report) for report in runs),
        early=ExperimentReport.model_validate(early),
        status=status,
        late=ExperimentReport.model_validate(late),
        ledger=tuple(LedgerEntry.model_validate(entry) for entry in document(history)),
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
    entry = weeks.ledger[2]

    assert entry.decision is Decision.REVERTED
    assert (entry.production, entry.previous, entry.run_id) == (first.bundle, second.bundle, "watch")
    assert entry.reason.startswith("delayed harm: holdout, since period")
    assert entry.verdict.phase is Phase.FAILED
    assert weeks.late.ledger_number == entry.number
    assert 7 < weeks.late.days <= 14


def test_the_next_run_is_anchored_on_labels_and_compared_with_the_bundle_before_it(weeks: Weeks) -> None:
    first, second, third = weeks.runs

    assert third.teaching is not None
    assert third.teaching.reason.startswith(
        "re-anchored on labels until the next release: entry 3 took production back (delayed"
    )
    assert (third.teacher, weeks.ledger[-1].previous) == (None, first.bundle)
    assert str(second.bundle) in untrusted(weeks.ledger)


def test_the_next_release_begins_an_experiment_of_its_own(weeks: Weeks) -> None:
    first, _, third = weeks.runs
    last = weeks.ledger[-1]

    assert third.outcome is Outcome.PROMOTED
    assert last.experiment is not None
    assert (last.experiment.new, last.experiment.previous) == (third.bundle, first.bundle)
    assert last.experiment.salt != weeks.late.experiment.salt
