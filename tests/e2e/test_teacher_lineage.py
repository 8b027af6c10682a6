"""Five weekly turns with a poisoned third: what a rolled-back model knew must not come back through its pupils.

The labels of week 3 are logged inverted, validation and evaluation are told to let everything through, and only the canary is
left to take the model back. From there the world goes on twice: once as it is, and once with a ledger in which week 3 was
promoted although production stayed, which takes away the teacher's guard and nothing else.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.e2e.command import QUICKSTART, SMALL, tidewheel
from tidewheel.contracts.comparison import Estimate
from tidewheel.contracts.ledger import Decision, LedgerEntry
from tidewheel.contracts.report import Outcome, RunReport
from tidewheel.contracts.verdict import Phase, Verdict

pytestmark = pytest.mark.slow

WEEKS = ("2026-01-12", "2026-01-19", "2026-01-26", "2026-02-02", "2026-02-09")
SETTINGS = (
    *SMALL,
    "source.requests_per_day=2500",
    f"source.faults=[{{kind: inverted_labels, start: {WEEKS[1]}, end: {WEEKS[2]}}}]",
    "ingest.counters={labels: [click, long_view], smoothing: 20, lookback_days: 3}",  # soon free of week 3's counts
    "validate_data.max_psi=99",
    "validate_data.max_label_psi=99",
    "validate_data.max_ks=0.999",
    "validate_data.max_calibration_error=99",
    "validate_data.max_ece=1",
    "validate_data.max_label_rate_change=99",
    "validate_data.max_volume_change=99",
    "evaluate.max_calibration_error=99",
    "evaluate.max_ece=1",
    "evaluate.claims=[{metric: auc, margin: 1}]",
    "evaluate.max_slice_drop={}",
    "evaluate.replay=reported",
    "evaluate.min_rank_agreement=-0.99",
    "evaluate.min_auc={click: 0.0, long_view: 0.0}",
    "train.teaching.min_randomized_auc=0",
    "train.teacher={weight: 5.0, final_weight: 5.0}",
)


@dataclass(frozen=True)
class Worlds:
    """Reports of weeks 1 to 5, and of weeks 4 and 5 again without the guard."""

    guarded: tuple[RunReport, ...]
    unguarded: tuple[RunReport, ...]


@pytest.fixture(scope="module")
def worlds(tmp_path_factory: pytest.TempPathFactory) -> Worlds:
    home = tmp_path_factory.mktemp("lineage") / "home"
    first_three = [turn(home, week) for week in WEEKS[:3]]
    credulous = home.with_name("credulous")
    shutil.copytree(home, credulous)
    (path,) = credulous.glob("store/ledger/quickstart/000003.json")
    entry = LedgerEntry.read(path)
    promoted = {"decision": Decision.PROMOTED, "verdict": Verdict(phase=Phase.SUCCESSFUL)}
    entry.model_copy(update=promoted).write(path)
    guarded = [turn(home, week) for week in WEEKS[3:]]
    return Worlds((*first_three, *guarded), tuple(turn(credulous, week) for week in WEEKS[3:]))


def turn(home: Path, week: str) -> RunReport:
    settings = [word for setting in SETTINGS for word in ("--set", setting)]
    ended = tidewheel("run", "--recipe", QUICKSTART, "--window-end", week, *settings, "--json", home=home)
    assert ended.code == 0, ended.err
    return RunReport.parse(ended.out, "run")


def auc(report: RunReport, model: str) -> Estimate:
    return report.metrics[model]["click"]["auc"]


def test_the_poisoned_model_passes_every_gate_but_the_canary(worlds: Worlds) -> None:
    third = worlds.guarded[2]

    assert third.verdicts["validate_data"].is_successful
    assert third.verdicts["evaluate"].is_successful
    assert third.outcome is Outcome.ROLLED_BACK
    assert third.production == worlds.guarded[1].bundle


def test_the_next_model_learns_from_the_one_before_it_and_says_why(worlds: Worlds) -> None:
    _, second, third, fourth, fifth = worlds.guarded

    assert (fourth.teacher, fourth.production, fifth.teacher) == (second.bundle, fourth.bundle, fourth.bundle)
    assert fourth.teaching is not None
    assert fourth.teaching.passed_over == {third.bundle: "rolled back by its canary (entry 3)"}


def test_quality_recovers_at_once(worlds: Worlds) -> None:
    fourth = worlds.guarded[3]

    assert value(auc(fourth, "ranker")) >= value(auc(fourth, "production"))


def test_without_the_guard_the_error_lives_on_for_two_generations(worlds: Worlds) -> None:
    third = worlds.guarded[2]

    assert worlds.unguarded[0].teacher == third.bundle
    assert worlds.unguarded[1].teacher in (third.bundle, worlds.unguarded[0].bundle)
    for with_guard, without in zip(worlds.guarded[3:], worlds.unguarded, strict=True):
        lowest, highest = auc(with_guard, "ranker").lower, auc(without, "ranker").upper
        assert lowest is not None
        assert highest is not None
        assert lowest > highest


def value(estimate: Estimate) -> float:
    assert estimate.value is not None
    return estimate.value
