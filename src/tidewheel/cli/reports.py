"""The runs that this home or its store knows: how they ended, and which of them are at work."""

from __future__ import annotations

from tidewheel.contracts.report import RunReport, StepRecord
from tidewheel.steps.records import DOCUMENTS, end_of, records_of, report_of
from tidewheel.store.home import Home
from tidewheel.store.store import Store


def reports(home: Home) -> list[RunReport]:
    """Every concluded run of this home, oldest first."""
    paths = sorted(home.runs.glob("*/run.json"), key=lambda path: path.stat().st_mtime)
    return [RunReport.read(path) for path in paths]


def known_reports(home: Home, store: Store) -> list[RunReport]:
    """Every concluded run of this home and of all others that share its store, oldest first."""
    here = {report.run_id: report for report in reports(home)}
    elsewhere = [report_of(store, run_id) for run_id in store.folders(DOCUMENTS) if run_id not in here]
    return sorted([*here.values(), *(report for report in elsewhere if report is not None)], key=end_of)


def at_work(home: Home, store: Store, concluded: set[str]) -> dict[str, list[StepRecord]]:
    """Runs without an ending, and the steps they have begun."""
    begun = {*store.folders(DOCUMENTS), *(folder.name for folder in home.runs.glob("*") if folder.is_dir())} - concluded
    return {run_id: sorted(records_of(store, run_id), key=lambda step: step.started) for run_id in sorted(begun)}
