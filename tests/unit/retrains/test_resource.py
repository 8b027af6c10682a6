"""What kubectl is shown of a run."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from tidewheel.contracts.report import Outcome, RunReport, StepFailure, StepRecord
from tidewheel.contracts.verdict import Phase, Reason, combine
from tidewheel.contracts.window import Window, parse_time
from tidewheel.retrains.resource import CONDITIONS, ENDED, Run, events_of, retrain_of, status_of
from tidewheel.steps.records import STEPS

NOW = datetime(2026, 1, 12, 3, tzinfo=UTC)
END = parse_time("2026-01-12")
DEFINITION = yaml.safe_load((Path(__file__).parents[3] / "manifests" / "crds" / "retrains.yaml").read_text(encoding="utf-8"))


def record(name: str, **more: Any) -> StepRecord:
    return StepRecord(name=name, **{"status": "succeeded", "started": NOW, "seconds": 30, "summary": "100 rows"} | more)


def verdict(phase: Phase) -> Any:
    return combine([Reason(check="auc", phase=phase, message="auc click: -0.0100 < -0.0050")])


def run(*records: StepRecord, **more: Any) -> Run:
    return Run(**{"run_id": "shop-20260112-1", "recipe": "shop", "window_end": END, "records": records, "verdicts": {}} | more)


def report(outcome: Outcome, *steps: StepRecord) -> RunReport:
    window = Window.ending(END, 7)
    return RunReport(
        run_id="shop-20260112-1", recipe="shop", recipe_digest="r", window=window, outcome=outcome, reason="why", steps=steps
    )


def condition(status: dict[str, Any], kind: str) -> tuple[str, str, str]:
    (found,) = [one for one in status["conditions"] if one["type"] == kind]
    return found["status"], found["reason"], found["message"]


def test_a_run_is_named_and_labelled_by_its_id() -> None:
    found = retrain_of(run())

    assert found["metadata"]["name"] == found["metadata"]["labels"]["tidewheel/run-id"] == "shop-20260112-1"
    assert found["spec"] == {"recipe": "shop", "windowEnd": "2026-01-12T00:00:00Z"}


def test_a_run_that_has_just_begun_says_so() -> None:
    assert status_of(run()) == {"outcome": "running", "conditions": []}


@pytest.mark.parametrize(
    ("step", "want"),
    [
        (record("train"), ("True", "Succeeded", "100 rows")),
        (record("train", reused=True), ("True", "Reused", "100 rows")),
        (record("train", status="running", summary=""), ("Unknown", "Running", "")),
        (
            record("train", status="failed", failure=StepFailure(kind="ContractError", message="no rows")),
            ("False", "ContractError", "no rows"),
        ),
        (
            record("train", status="interrupted", failure=StepFailure(kind="Interrupted", message="interrupted")),
            ("False", "Interrupted", "interrupted"),
        ),
    ],
)
def test_a_step_is_a_condition(step: StepRecord, want: tuple[str, str, str]) -> None:
    status = status_of(run(record("ingest"), step))

    assert status["step"] == "train"
    assert condition(status, "Trained") == want


@pytest.mark.parametrize(
    ("phase", "says"), [(Phase.SUCCESSFUL, "True"), (Phase.FAILED, "False"), (Phase.INCONCLUSIVE, "False")]
)
def test_a_step_with_a_verdict_is_true_only_if_that_lets_pass(phase: Phase, says: str) -> None:
    status = status_of(run(record("evaluate"), verdicts={"evaluate": verdict(phase)}, bundle="ab" * 32))

    assert (status["verdict"], status["bundle"]) == (f"evaluate: {phase.value}", "ab" * 6)
    assert condition(status, "Evaluated")[:2] == (says, phase.value)


def test_the_verdict_shown_is_the_last_of_the_pipeline() -> None:
    verdicts = {"deploy": verdict(Phase.FAILED), "validate_data": verdict(Phase.SUCCESSFUL)}
    assert status_of(run(record("deploy"), verdicts=verdicts))["verdict"] == "deploy: Failed"


@pytest.mark.parametrize("outcome", list(Outcome))
def test_every_outcome_is_one_of_the_definitions_and_the_reason_of_its_end(outcome: Outcome) -> None:
    status = status_of(run(record("ingest"), report=report(outcome, record("ingest"))))
    schema = DEFINITION["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["status"]["properties"]

    assert status["outcome"] in schema["outcome"]["enum"]
    assert condition(status, ENDED) == ("True", outcome.value.title().replace("_", ""), "why")


def test_an_event_is_one_verdict_and_has_the_same_name_whoever_writes_it() -> None:
    steps = (record("validate_data"), record("evaluate", started=NOW + timedelta(minutes=5)))
    verdicts = {"validate_data": verdict(Phase.SUCCESSFUL), "evaluate": verdict(Phase.FAILED)}
    told = events_of(run(*steps, verdicts=verdicts, report=report(Outcome.REJECTED, *steps)), "ranking", "u")

    assert [(one["type"], one["reason"]) for one in told] == [
        ("Normal", "DataValidatedSuccessful"),
        ("Warning", "EvaluatedFailed"),
        ("Warning", "Rejected"),
    ]
    assert told[1]["message"] == "auc click: -0.0100 < -0.0050"
    assert told[1]["firstTimestamp"] == "2026-01-12T03:05:30Z"
    again = events_of(run(*steps, verdicts=verdicts), "ranking", "u")
    assert [one["metadata"]["name"] for one in again] == [one["metadata"]["name"] for one in told[:2]]


def test_words_are_cut_to_what_the_definition_takes() -> None:
    told = status_of(run(record("train", summary="é" * 5000)))
    assert len(condition(told, "Trained")[2]) == 1024


def test_every_step_has_its_condition_in_order() -> None:
    assert tuple(CONDITIONS) == STEPS


def test_kubectl_prints_what_the_status_holds() -> None:
    columns = DEFINITION["spec"]["versions"][0]["additionalPrinterColumns"]
    paths = {column["jsonPath"].split(".")[-1] for column in columns if ".status." in column["jsonPath"]}
    shown = status_of(run(record("evaluate"), verdicts={"evaluate": verdict(Phase.FAILED)}, bundle="ab" * 32))
    assert paths == set(shown) - {"conditions"}
