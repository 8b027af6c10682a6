"""A run to its `Retrain` object and its events. Pure; the definition is manifests/crds/retrains.yaml."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from tidewheel.contracts import labels
from tidewheel.contracts.report import Outcome, RunReport, StepRecord
from tidewheel.contracts.verdict import Verdict

GROUP, VERSION, KIND, PLURAL = "tidewheel.dev", "v1alpha1", "Retrain", "retrains"
LONGEST_WORDS = 1024  # characters, which is what an event may say
RUNNING = "running"
# The condition that each step brings about, in the order of the pipeline.
CONDITIONS = {
    "ingest": "Ingested",
    "sample": "Sampled",
    "validate_data": "DataValidated",
    "train": "Trained",
    "distill": "Distilled",
    "evaluate": "Evaluated",
    "deploy": "Deployed",
}
ENDED = "Ended"


@dataclass(frozen=True)
class Run:
    """What is known of a run: its steps so far, their verdicts, the bundle it made, and its report once it has ended."""

    run_id: str
    recipe: str
    window_end: datetime
    records: Sequence[StepRecord]
    verdicts: Mapping[str, Verdict]
    bundle: str | None = None
    report: RunReport | None = None


def retrain_of(run: Run) -> dict[str, Any]:
    """The object, without its status."""
    return {
        "apiVersion": f"{GROUP}/{VERSION}",
        "kind": KIND,
        "metadata": {"name": run.run_id, "labels": labels_of(run)},
        "spec": {"recipe": run.recipe, "windowEnd": _time(run.window_end)},
    }


def labels_of(run: Run) -> dict[str, str]:
    """Labels of everything that a run makes."""
    return labels.OURS | {labels.RUN: run.run_id, labels.RECIPE: run.recipe}


def status_of(run: Run) -> dict[str, Any]:
    """How far the run is; a condition for each step that has begun, and for its end."""
    status: dict[str, Any] = {
        "outcome": run.report.outcome.value if run.report else RUNNING,
        "conditions": [_condition(record, run.verdicts.get(record.name)) for record in run.records],
    }
    if run.records:
        status["step"] = run.records[-1].name
    judged = [(step, run.verdicts[step]) for step in CONDITIONS if step in run.verdicts]
    if judged:
        status["verdict"] = f"{judged[-1][0]}: {judged[-1][1].phase.value}"
    if run.bundle is not None:
        status["bundle"] = run.bundle[:12]
    if run.report is not None:
        status["conditions"].append(_ending(run.report))
    return status


def events_of(run: Run, namespace: str, uid: str) -> list[dict[str, Any]]:
    """An event for each verdict and for the end. Each has one name, so that it is there once.

    Args:
        uid: the object's, by which `kubectl describe` finds its events.
    """
    about = {"apiVersion": f"{GROUP}/{VERSION}", "kind": KIND, "name": run.run_id, "namespace": namespace, "uid": uid}
    told = [
        (step, f"{CONDITIONS[step]}{verdict.phase.value}", verdict.is_successful, verdict.explain(), _ended(record))
        for step, verdict in run.verdicts.items()
        if (record := next((one for one in run.records if one.name == step), None)) is not None
    ]
    if run.report is not None:
        end = _ending(run.report)
        is_good = run.report.outcome in (Outcome.BOOTSTRAP, Outcome.PROMOTED)
        told.append(("end", end["reason"], is_good, run.report.reason, max(map(_ended, run.records), default=run.window_end)))
    return [_event(run, about, *one) for one in told]


def _event(
    run: Run, about: Mapping[str, str], step: str, reason: str, is_good: bool, words: str, time: datetime
) -> dict[str, Any]:
    name = hashlib.sha256(f"{run.run_id} {step} {reason}".encode()).hexdigest()[:16]
    return {
        "metadata": {"name": f"retrain-{name}", "namespace": about["namespace"], "labels": labels_of(run)},
        "involvedObject": dict(about),
        "type": "Normal" if is_good else "Warning",
        "reason": reason,
        "message": _short(words),
        "firstTimestamp": _time(time),
        "lastTimestamp": _time(time),
        "count": 1,
        "source": {"component": "tidewheel"},
    }


def _condition(record: StepRecord, verdict: Verdict | None) -> dict[str, str]:
    """A step that said no is False as one that failed is: whatever came of it, nothing follows."""
    if record.status == "running":
        status, reason, words = "Unknown", "Running", ""
    elif record.failure is not None:
        status, reason, words = "False", record.failure.kind, record.failure.message
    elif verdict is not None:
        status, reason, words = str(verdict.is_successful), verdict.phase.value, verdict.explain()
    else:
        status, reason, words = "True", "Reused" if record.reused else "Succeeded", record.summary
    return {
        "type": CONDITIONS[record.name],
        "status": status,
        "reason": reason,
        "message": _short(words),
        "lastTransitionTime": _time(_ended(record)),
    }


def _ending(report: RunReport) -> dict[str, str]:
    return {
        "type": ENDED,
        "status": "True",
        "reason": "".join(word.capitalize() for word in report.outcome.value.split("_")),
        "message": _short(report.reason),
        "lastTransitionTime": _time(max(map(_ended, report.steps), default=report.window.end)),
    }


def _ended(record: StepRecord) -> datetime:
    return record.started + timedelta(seconds=record.seconds)


def _time(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _short(words: str) -> str:
    return words if len(words) <= LONGEST_WORDS else words[: LONGEST_WORDS - 1] + "…"
