"""What a run says of itself, in the store: its steps, its exit handler and whoever asks may be on different machines."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta

from tidewheel.contracts.report import RunReport, StepRecord
from tidewheel.store.store import Store

DOCUMENTS = "documents"  # a folder a run
STEPS = ("ingest", "sample", "validate_data", "train", "distill", "evaluate", "deploy")
CONCLUDE = "conclude"
_RECORD, _RUN = "record", "run"  # names that no output of a step has


def document(store: Store, run_id: str, step: str, name: str) -> str | None:
    """The document that a step of a run wrote, or None if it did not get that far."""
    return store.get(_name(run_id, step, name))


def put_document(store: Store, run_id: str, step: str, name: str, text: str) -> None:
    store.put(_name(run_id, step, name), text)


def put_record(store: Store, run_id: str, record: StepRecord) -> None:
    """Say how far a step is, or how it ended."""
    put_document(store, run_id, record.name, _RECORD, record.to_json())


def record_of(store: Store, run_id: str, step: str) -> StepRecord | None:
    """How far a step is, or None before it has begun."""
    text = document(store, run_id, step, _RECORD)
    return StepRecord.parse(text, f"{step} of {run_id}") if text is not None else None


def records_of(store: Store, run_id: str) -> tuple[StepRecord, ...]:
    """The steps that have begun, in the order of the pipeline."""
    found = (record_of(store, run_id, step) for step in STEPS)
    return tuple(record for record in found if record is not None)


def put_report(store: Store, report: RunReport, pages: Mapping[str, str]) -> None:
    """Say how a run ended. `pages`: HTML by name; the report comes last."""
    for name, text in pages.items():
        store.put(f"{DOCUMENTS}/{report.run_id}/{name}.html", text)
    put_document(store, report.run_id, CONCLUDE, _RUN, report.to_json())


def report_of(store: Store, run_id: str) -> RunReport | None:
    """What became of a run, once it has ended."""
    text = document(store, run_id, CONCLUDE, _RUN)
    return RunReport.parse(text, f"run {run_id}") if text is not None else None


def last_words(store: Store) -> tuple[dict[str, datetime], dict[str, datetime]]:
    """(ended, not ended): run -> when the newest of its documents was written. Reads none of them, however many there are."""
    newest: dict[str, datetime] = {}
    has_ended: set[str] = set()
    for name, moment in store.written(DOCUMENTS).items():
        run_id = name.split("/")[1]
        newest[run_id] = max(moment, newest.get(run_id, moment))
        if name == _name(run_id, CONCLUDE, _RUN):
            has_ended.add(run_id)
    ended = {run_id: moment for run_id, moment in newest.items() if run_id in has_ended}
    return ended, {run_id: moment for run_id, moment in newest.items() if run_id not in has_ended}


def end_of(report: RunReport) -> datetime:
    """When the last of its steps ended; the end of its window where none has begun."""
    ends = [step.started + timedelta(seconds=step.seconds) for step in report.steps]
    return max(ends, default=report.window.end)


def _name(run_id: str, step: str, name: str) -> str:
    return f"{DOCUMENTS}/{run_id}/{step}.{name}.json"
