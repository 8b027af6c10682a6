"""Deploy: canary the candidate against production on real servers, then one decision in the ledger and its projections."""

from __future__ import annotations

import os

from tidewheel.contracts.base import digest_of
from tidewheel.contracts.bundle import BundleManifest
from tidewheel.contracts.evidence import Baseline, Rollout
from tidewheel.contracts.ledger import LedgerEntry
from tidewheel.contracts.recipe import WorldSource
from tidewheel.contracts.rollout import CanaryResult
from tidewheel.contracts.steps import DeployPart
from tidewheel.ranker.bundle import BUNDLES, OpenBundle, load_bundle
from tidewheel.registry.background import BackgroundRegistry
from tidewheel.registry.ledger import Ledger
from tidewheel.registry.projections import project, projections_of
from tidewheel.registry.release import decided_by, decision_of, release
from tidewheel.rollout import ReplayTraffic, StoredJournal, Traffic, run_canary
from tidewheel.serving import start_server
from tidewheel.steps.job import Job, Result, run_step
from tidewheel.steps.production import missing_features, with_production, without
from tidewheel.steps.tables import read
from tidewheel.steps.tracking import Judged
from tidewheel.world import World


def main(
    config: str,
    run_id: str,
    window_end: str,
    inputs: dict[str, str],
    outputs: dict[str, str],
    reason: str,
    dry_run: bool,
) -> None:
    part = DeployPart.parse(config, "deploy")
    run_step("deploy", run_id, window_end, inputs, outputs, lambda job: work(part, job, reason, dry_run), reuse_key=None)


def work(part: DeployPart, job: Job, reason: str, dry_run: bool) -> Result:
    baseline = job.input("baseline", Baseline)
    candidate = load_bundle(job.store, job.input("bundle", BundleManifest).digest)
    ledger = Ledger(job.store, part.recipe)
    if (decided := decided_by(ledger.entries(), job.run_id, candidate.digest)) is not None:
        return remembered(part, job, ledger, decided)
    production = load_bundle(job.store, baseline.production) if baseline.production else None
    judged = Judged.of(job.store, job.run_id, part.recipe, candidate.digest)
    with BackgroundRegistry(job.home.registry_url, part.recipe, job.store.location(BUNDLES)) as registry:
        if not dry_run:
            registry.announce(candidate.digest, {"tidewheel.run_id": job.run_id, "tidewheel.recipe": part.recipe})
            judged.announce(registry)
        canary = run_canary(
            part.deploy,
            part.labels,
            production.folder if production else None,
            candidate.folder,
            traffic_of(part, job, candidate, production),
            start_server,
            job.progress,
            None if dry_run else journal_of(part, job, baseline, candidate),
        )
        decision = decision_of(canary.verdict, is_canaried=True, production=baseline.production)
        if dry_run:
            serves, number, note = baseline.production, baseline.ledger_number, "dry run: nothing was changed"
        else:
            done = release(
                ledger,
                registry,
                bundle=candidate.digest,
                manifest=candidate.manifest,
                verdict=canary.verdict,
                is_canaried=True,
                seen_number=baseline.ledger_number,
                run_id=job.run_id,
                reason=f"{reason}: {canary.verdict.explain()}",
                retraining=part.deploy.after_rollback,
                holdout=part.deploy.holdout,
            )
            unrecorded = judged.conclude(registry, decision.value)
            serves, number = done.entry.production, done.entry.number
            note = "; ".join(words for words in (done.unprojected, unrecorded) if words)
    rollout = Rollout(verdict=canary.verdict, decision=decision.value, production=serves, ledger_number=number)
    return Result(
        documents={"rollout": rollout.to_json(), "canary": canary.to_json()},
        summary=summary_of(canary, decision.value, note),
    )


def journal_of(part: DeployPart, job: Job, baseline: Baseline, candidate: OpenBundle) -> StoredJournal:
    """The journal of this canary: the same while the same is compared under the same plan and nothing else was decided."""
    key = {
        "candidate": candidate.digest,
        "production": baseline.production,
        "decided": baseline.ledger_number,
        "plan": part.model_dump(mode="json"),
        "window_end": job.window_end.isoformat(),
    }
    return StoredJournal(job.store, f"{part.recipe}/{digest_of(key)[:16]}", f"{job.run_id}/{os.getpid()}")


def remembered(part: DeployPart, job: Job, ledger: Ledger, decided: LedgerEntry) -> Result:
    """What a try of this run before decided, after which it was killed: no second canary, only what it did not come to."""
    judged = Judged.of(job.store, job.run_id, part.recipe, decided.bundle)
    with BackgroundRegistry(job.home.registry_url, part.recipe, job.store.location(BUNDLES)) as registry:
        _, faults = project(ledger, projections_of(ledger, registry))
        unrecorded = judged.conclude(registry, decided.decision.value)
    rollout = Rollout(
        verdict=decided.verdict, decision=decided.decision.value, production=decided.production, ledger_number=decided.number
    )
    words = [f"{decided.decision.value} by an earlier try (ledger entry {decided.number})", *faults, unrecorded]
    return Result(documents={"rollout": rollout.to_json()}, summary="; ".join(word for word in words if word))


def traffic_of(part: DeployPart, job: Job, candidate: OpenBundle, production: OpenBundle | None) -> Traffic:
    """The world's users right after the window, or the held-out requests of a recorded log; both servers' features."""
    features = with_production(candidate.manifest.features, production)
    if isinstance(part.source, WorldSource):
        world = World(part.source, part.labels, part.ingest.counters, features, job.home.world(part.recipe))
        return world.traffic(job.window_end)
    table = read(*job.dataset("eval"))
    if production is not None:  # what the log has lost, its servers do not get either
        table = without(table, production, missing_features(production, candidate.manifest.features, table))
    labels = tuple(label.name for label in part.labels)
    return ReplayTraffic(table, features, labels)


def summary_of(canary: CanaryResult, decision: str, note: str) -> str:
    mine = sum(step.candidate.requests for step in canary.steps)
    steps = f"{len(canary.steps)} step{'' if len(canary.steps) == 1 else 's'}"
    words = f"{decision} after {mine:,} requests of the candidate in {steps}, {canary.exposure:.1%} of all"
    return f"{words}; {note}" if note else words
