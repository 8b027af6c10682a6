"""A run as the cluster shows it: brought up to date by each step that begins or ends in a pod."""

from __future__ import annotations

import os
from datetime import datetime

from tidewheel.contracts.bundle import BundleManifest
from tidewheel.contracts.evidence import Evaluation, Rollout
from tidewheel.contracts.verdict import Verdict
from tidewheel.retrains.api import namespace_of, show
from tidewheel.retrains.resource import Run
from tidewheel.steps.records import document, records_of, report_of
from tidewheel.store.store import Store

RECIPE_VARIABLE = "TIDEWHEEL_RECIPE"  # set in pods of a pipeline: not every step's part names it


def show_run(store: Store, run_id: str, window_end: datetime) -> None:
    """Show what lies in the store of a run, where this process is a pod of a pipeline; else nothing happens."""
    if namespace := namespace_of(os.environ):
        show(run_of(store, run_id, os.environ.get(RECIPE_VARIABLE, ""), window_end), namespace)


def run_of(store: Store, run_id: str, recipe: str, window_end: datetime) -> Run:
    """What lies in the store of a run."""
    bundle = document(store, run_id, "distill", "bundle")
    return Run(
        run_id=run_id,
        recipe=recipe,
        window_end=window_end,
        records=records_of(store, run_id),
        verdicts=_verdicts(store, run_id),
        bundle=BundleManifest.parse(bundle, f"bundle of {run_id}").digest if bundle is not None else None,
        report=report_of(store, run_id),
    )


def _verdicts(store: Store, run_id: str) -> dict[str, Verdict]:
    found = {}
    if (text := document(store, run_id, "validate_data", "verdict")) is not None:
        found["validate_data"] = Verdict.parse(text, f"verdict of {run_id}")
    if (text := document(store, run_id, "evaluate", "evaluation")) is not None:
        found["evaluate"] = Evaluation.parse(text, f"evaluation of {run_id}").verdict
    if (text := document(store, run_id, "deploy", "rollout")) is not None:
        found["deploy"] = Rollout.parse(text, f"rollout of {run_id}").verdict
    return found
