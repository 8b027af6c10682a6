"""A run as the cluster shows it: brought up to date by each step that begins or ends in a pod."""

from __future__ import annotations

import os
from datetime import datetime

from tidewheel.retrains.api import namespace_of, show
from tidewheel.retrains.resource import Run
from tidewheel.steps.findings import Findings
from tidewheel.steps.records import records_of, report_of
from tidewheel.store.store import Store

RECIPE_VARIABLE = "TIDEWHEEL_RECIPE"  # set in pods of a pipeline: not every step's part names it


def show_run(store: Store, run_id: str, window_end: datetime) -> None:
    """Show what lies in the store of a run, where this process is a pod of a pipeline; else nothing happens."""
    if namespace := namespace_of(os.environ):
        show(run_of(store, run_id, os.environ.get(RECIPE_VARIABLE, ""), window_end), namespace)


def run_of(store: Store, run_id: str, recipe: str, window_end: datetime) -> Run:
    """What lies in the store of a run."""
    found = Findings(store, run_id)
    return Run(
        run_id=run_id,
        recipe=recipe,
        window_end=window_end,
        records=records_of(store, run_id),
        verdicts=found.verdicts(),
        bundle=found.bundle.digest if found.bundle else None,
        report=report_of(store, run_id),
    )
