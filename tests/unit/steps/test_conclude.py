"""How a run ended, from what its steps left."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from tidewheel.contracts.evidence import Evaluation, Rollout
from tidewheel.contracts.ledger import Decision, LedgerEntry
from tidewheel.contracts.report import Outcome, StepFailure, StepRecord
from tidewheel.contracts.verdict import Phase, Reason, Verdict, combine
from tidewheel.steps.conclude import outcome_of
from tidewheel.steps.findings import Findings
from tidewheel.store import Store

NOW = datetime(2026, 1, 12, tzinfo=UTC)


def verdict(phase: Phase) -> Verdict:
    return combine([Reason(check="auc", phase=phase, message="auc 0.71 < 0.75")])


def record(name: str, kind: str = "") -> StepRecord:
    failure = StepFailure(kind=kind, message=f"{name} says no") if kind else None
    return StepRecord(name=name, status="failed" if kind else "succeeded", started=NOW, failure=failure)


def entry(decision: Decision) -> LedgerEntry:
    return LedgerEntry(
        number=2,
        time=NOW,
        decision=decision,
        recipe="quickstart",
        run_id="run",
        window=None,
        bundle="b",
        production="b",
        previous="a",
        teacher=None,
        generation=0,
        feature_digest="f",
        verdict=verdict(Phase.SUCCESSFUL),
        reason="",
    )


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(str(tmp_path))


def left(store: Store, evaluation: Phase | None = None, rollout: str | None = None) -> Findings:
    if evaluation is not None:
        text = Evaluation(verdict=verdict(evaluation), metrics={}).to_json()
        store.put("documents/run/evaluate.evaluation.json", text)
    if rollout is not None:
        done = Rollout(verdict=verdict(Phase.SUCCESSFUL), decision=rollout, production="b", ledger_number=2)
        store.put("documents/run/deploy.rollout.json", done.to_json())
    return Findings(store, "run")


@pytest.mark.parametrize(
    ("step", "kind", "want"),
    [
        ("ingest", "RejectedError", Outcome.DATA_REJECTED),
        ("sample", "ContractError", Outcome.DATA_REJECTED),
        ("validate_data", "RejectedError", Outcome.DATA_REJECTED),
        ("ingest", "ConfigError", Outcome.FAILED),
        ("train", "ContractError", Outcome.FAILED),
        ("deploy", "RetryableError", Outcome.FAILED),
        ("train", "Bug", Outcome.FAILED),
    ],
)
def test_who_must_act_follows_from_the_step_and_the_kind_of_failure(store: Store, step: str, kind: str, want: Outcome) -> None:
    assert outcome_of((record(step, kind),), left(store), None) == (want, f"{step} says no")


def test_a_step_that_left_no_ending_was_killed(store: Store) -> None:
    running = StepRecord(name="train", status="running", started=NOW)

    assert outcome_of((running,), left(store), None) == (Outcome.FAILED, "train was killed before it ended")


def test_a_candidate_that_evaluate_did_not_accept_is_rejected(store: Store) -> None:
    assert outcome_of((), left(store, Phase.INCONCLUSIVE), None) == (Outcome.REJECTED, "auc 0.71 < 0.75")


def test_the_canarys_decision_is_the_outcome(store: Store) -> None:
    outcome, reason = outcome_of((), left(store, Phase.SUCCESSFUL, "promoted"), entry(Decision.PROMOTED))

    assert outcome is Outcome.PROMOTED
    assert reason == "1 check passed; auc 0.71 < 0.75"


def test_a_deploy_killed_after_its_ledger_entry_has_decided(store: Store) -> None:
    killed = StepRecord(name="deploy", status="running", started=NOW)

    outcome, reason = outcome_of((killed,), left(store, Phase.SUCCESSFUL), entry(Decision.PROMOTED))

    assert outcome is Outcome.PROMOTED
    assert "reconcile" in reason


def test_a_run_that_decided_nothing_failed(store: Store) -> None:
    assert outcome_of((), left(store), None)[0] is Outcome.FAILED
