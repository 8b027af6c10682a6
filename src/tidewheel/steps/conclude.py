"""Conclude: whatever became of the steps, say so in run.json and the report. Not one of the seven: the exit handler."""

from __future__ import annotations

import json
import os
import time
from datetime import datetime

from tidewheel.contracts.ledger import Decision, LedgerEntry, production_after
from tidewheel.contracts.report import Outcome, RunReport, StepFailure, StepRecord
from tidewheel.contracts.steps import ConcludePart
from tidewheel.contracts.window import Window, parse_time
from tidewheel.evaluation.report.data_page import render_data
from tidewheel.evaluation.report.run_page import render
from tidewheel.pods.sweep import sweep
from tidewheel.ranker.bundle import BUNDLES
from tidewheel.registry.background import BackgroundRegistry
from tidewheel.registry.ledger import Ledger
from tidewheel.registry.projections import project, projections_of
from tidewheel.registry.release import release
from tidewheel.steps.findings import Findings
from tidewheel.steps.job import Job, Result, run_step
from tidewheel.steps.records import document, put_report, records_of
from tidewheel.steps.tracking import Judged
from tidewheel.store.home import Home
from tidewheel.store.store import Store

DATA_AT_FAULT = {"RejectedError", "ContractError"}


def main(config: str, run_id: str, window_end: str, dry_run: bool) -> None:
    part = ConcludePart.parse(config, "conclude")

    def work(job: Job) -> Result:
        with job.overhead():
            report = conclude(part, job.home, job.store, job.run_id, job.window_end, dry_run)
            unrecorded = record_figures(part, job.home, job.store, report)
            swept = sweep(os.environ, job.run_id)
        return Result(documents={}, summary="; ".join(words for words in (report.outcome.value, unrecorded, swept) if words))

    run_step("conclude", run_id, window_end, {}, {}, work, reuse_key=None)


def conclude(part: ConcludePart, home: Home, store: Store, run_id: str, window_end: datetime, dry_run: bool) -> RunReport:
    """Write run.json, report.html and data.html of a run from what its steps left; safe to repeat.

    A candidate that `evaluate` did not accept gets its ledger entry here: it was a release decision too.
    """
    found = Findings(store, run_id)
    records = records_of(store, run_id)
    ledger = Ledger(store, part.recipe)
    decided = next((entry for entry in ledger.entries() if entry.run_id == run_id), None)
    outcome, reason = outcome_of(records, found, decided)
    if outcome is Outcome.REJECTED and not dry_run:
        record_rejection(ledger, found, run_id)
    if decided is not None and found.rollout is None:
        _, faults = project(ledger, projections_of(ledger, None))  # deploy was killed before traffic could follow
        reason = "; ".join([reason, *faults])
    report = RunReport(
        run_id=run_id,
        recipe=part.recipe,
        recipe_digest=part.recipe_digest,
        window=Window.ending(window_end, part.window.days),
        outcome=outcome,
        reason=f"dry run, nothing was changed: {reason}" if dry_run else reason,
        dry_run=dry_run,
        steps=records,
        datasets=found.datasets(),
        feature_digest=found.train.feature_digest if found.train else None,
        teacher=found.baseline.teaching.bundle if found.baseline else None,
        teaching=found.baseline.teaching if found.baseline else None,
        training=found.training,
        bundle=found.bundle.digest if found.bundle else None,
        latency=found.latency,
        production=production_after(ledger.entries()),
        metrics=found.evaluation.metrics if found.evaluation else {},
        comparison=found.evaluation.comparison if found.evaluation else None,
        verdicts=found.verdicts(),
    )
    drawings = json.loads(document(store, run_id, "evaluate", "drawings") or "{}")
    canary = json.loads(document(store, run_id, "deploy", "canary") or "{}").get("steps")
    pages = {"report": render(report, drawings, canary, found.data_report)}
    if found.data_report is not None:
        pages["data"] = render_data(run_id, found.data_report)
    put_report(store, report, pages)
    folder = home.run(run_id)
    for name, text in pages.items():
        (folder / f"{name}.html").write_text(text, encoding="utf-8")
    report.write(folder / "run.json")
    store.sweep(time.time())
    home.sweep_scratch(time.time())
    return report


def outcome_of(records: tuple[StepRecord, ...], found: Findings, decided: LedgerEntry | None) -> tuple[Outcome, str]:
    """How the run ended and why, in one line. `decided` is the ledger's entry of this run: what it says, is so.

    A `deploy` that was stopped between its entry and its end has decided all the same.
    """
    if decided is not None and found.rollout is None and decided.decision is not Decision.REJECTED:
        stopped = "deploy was stopped after its decision: run tidewheel reconcile"
        return Outcome(decided.decision.value), f"{decided.verdict.explain()}; {stopped}"
    for record in records:
        if record.status == "succeeded":
            continue
        failure = record.failure or StepFailure(kind="Interrupted", message=f"{record.name} was killed before it ended")
        is_data = record.name in ("ingest", "sample", "validate_data") and failure.kind in DATA_AT_FAULT
        return (Outcome.DATA_REJECTED if is_data else Outcome.FAILED), failure.message
    if found.rollout is not None:
        verdict = found.rollout.verdict
        # The last signal of the last step is what the canary was about.
        goal = f"; {verdict.reasons[-1].message}" if verdict.is_successful and verdict.reasons else ""
        return Outcome(found.rollout.decision), verdict.explain() + goal
    if found.evaluation is not None and not found.evaluation.verdict.is_successful:
        return Outcome.REJECTED, found.evaluation.verdict.explain()
    return Outcome.FAILED, "the run ended before a decision"


def record_rejection(ledger: Ledger, found: Findings, run_id: str) -> None:
    """Append the rejection once, however often this run is concluded."""
    entries = ledger.entries()
    if found.bundle is None or found.evaluation is None or any(entry.run_id == run_id for entry in entries):
        return
    release(
        ledger,
        None,
        bundle=found.bundle.digest,
        manifest=found.bundle,
        verdict=found.evaluation.verdict,
        is_canaried=False,
        seen_number=len(entries),
        run_id=run_id,
    )


def record_figures(part: ConcludePart, home: Home, store: Store, report: RunReport) -> str:
    """Let the registry keep the figures of a rejected candidate, as `deploy` does of those it tried; why it could not, else
    an empty text. Idempotent; only then is MLflow loaded, which takes seconds.
    """
    if report.outcome is not Outcome.REJECTED or report.dry_run or report.bundle is None:
        return ""
    judged = Judged.of(store, report.run_id, part.recipe, report.bundle)
    with BackgroundRegistry(home.registry_url, part.recipe, store.location(BUNDLES)) as registry:
        return judged.conclude(registry, report.outcome.value)


def conclude_interrupted(part: ConcludePart, home: Home, run_id: str, window_end: str, dry_run: bool) -> RunReport:
    """Conclude a run whose orchestrator was stopped before its exit handler ran. Steps still `running` were killed."""
    store = home.store()
    report = conclude(part, home, store, run_id, parse_time(window_end), dry_run)
    record_figures(part, home, store, report)
    return report
