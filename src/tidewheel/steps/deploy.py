"""Deploy: canary the candidate against production on real servers, then one decision in the ledger and its projections."""

from __future__ import annotations

import os

from tidewheel.contracts.bundle import BundleManifest
from tidewheel.contracts.dataset import DatasetManifest
from tidewheel.contracts.evidence import Baseline, Rollout
from tidewheel.contracts.ledger import LedgerEntry
from tidewheel.contracts.offer import CanaryOffer
from tidewheel.contracts.rollout import CanaryResult
from tidewheel.contracts.steps import DeployPart
from tidewheel.contracts.target import ArgoTarget
from tidewheel.ranker.bundle import BUNDLES, OpenBundle, load_bundle
from tidewheel.registry.background import BackgroundRegistry
from tidewheel.registry.ledger import Ledger
from tidewheel.registry.projections import project, projections_of
from tidewheel.registry.release import decided_by, decision_of
from tidewheel.rollout import StoredJournal, run_canary
from tidewheel.serving import start_server
from tidewheel.steps.beside import Again
from tidewheel.steps.canary import decide, found, traffic_of
from tidewheel.steps.job import Job, Result, run_step
from tidewheel.steps.offers import publish
from tidewheel.steps.served import followed, tried_in_steps
from tidewheel.steps.tracking import Judged


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
    again = Again(entry=f"{__name__}:main", arguments={"config": config, "reason": reason, "dry_run": dry_run})
    run_step("deploy", run_id, window_end, inputs, outputs, lambda job: work(part, job, reason, dry_run), None, again=again)


def work(part: DeployPart, job: Job, reason: str, dry_run: bool) -> Result:
    baseline = job.input("baseline", Baseline)
    candidate = load_bundle(job.store, job.input("bundle", BundleManifest).digest)
    ledger = Ledger(job.store, part.recipe)
    offer = CanaryOffer(
        part=part,
        run_id=job.run_id,
        window_end=job.window_end,
        candidate=candidate.digest,
        baseline=baseline,
        evaluation=job.input("eval", DatasetManifest),
        reason=reason,
    )
    if (decided := decided_by(ledger.entries(), job.run_id, candidate.digest)) is not None:
        return remembered(job, ledger, offer, decided)
    production = load_bundle(job.store, baseline.production) if baseline.production else None
    judged = Judged.of(job.store, job.run_id, part.recipe, candidate.digest)
    with BackgroundRegistry(job.home.registry_url, part.recipe, job.store.location(BUNDLES)) as registry:
        if not dry_run:
            registry.announce(candidate.digest, {"tidewheel.run_id": job.run_id, "tidewheel.recipe": part.recipe})
            judged.announce(registry)
        canary = tried(job, ledger, offer, candidate, production, dry_run)
        decision = decision_of(canary.verdict, is_canaried=True, production=baseline.production)
        if dry_run:
            serves, number, note = baseline.production, baseline.ledger_number, "dry run: nothing was changed"
        else:
            done = decide(ledger, registry, offer, candidate.manifest, canary.verdict)
            notes = [done.unprojected, judged.conclude(registry, decision.value), *followed(ledger, offer.key)]
            serves, number, note = done.entry.production, done.entry.number, "; ".join(words for words in notes if words)
    rollout = Rollout(verdict=canary.verdict, decision=decision.value, production=serves, ledger_number=number)
    return Result(
        documents={"rollout": rollout.to_json(), "canary": canary.to_json()},
        summary=summary_of(canary, decision.value, note),
    )


def tried(
    job: Job, ledger: Ledger, offer: CanaryOffer, candidate: OpenBundle, production: OpenBundle | None, dry_run: bool
) -> CanaryResult:
    """The canary, by the Rollout that serves production where there is one. The first release has no traffic to protect, and a
    dry run may give none away: they are judged here, between servers of their own, and so is what a Deployment will serve."""
    deploy = offer.part.deploy
    traffic = traffic_of(offer, job.home, job.store, candidate, production)
    if isinstance(deploy.target, ArgoTarget) and production is not None and not dry_run:
        return tried_in_steps(deploy.target, offer, ledger, traffic.is_closed_loop, job.progress)
    if not dry_run:
        publish(job.store, offer)
    return run_canary(
        deploy,
        offer.part.labels,
        production.folder if production else None,
        candidate.folder,
        traffic,
        start_server,
        job.progress,
        None if dry_run else StoredJournal(job.store, offer.key, f"{job.run_id}/{os.getpid()}"),
    )


def remembered(job: Job, ledger: Ledger, offer: CanaryOffer, decided: LedgerEntry) -> Result:
    """What a try of this run before decided, or a judge of its canary: no second canary, only what they did not come to."""
    recipe = offer.part.recipe
    judged = Judged.of(job.store, job.run_id, recipe, decided.bundle)
    with BackgroundRegistry(job.home.registry_url, recipe, job.store.location(BUNDLES)) as registry:
        _, faults = project(ledger, projections_of(ledger, registry))
        unrecorded = judged.conclude(registry, decided.decision.value)
    rollout = Rollout(
        verdict=decided.verdict, decision=decided.decision.value, production=decided.production, ledger_number=decided.number
    )
    words = [
        f"{decided.decision.value} by an earlier try (ledger entry {decided.number})",
        *faults,
        unrecorded,
        *followed(ledger),
    ]
    canary = found(job.store, offer)
    documents = {"rollout": rollout.to_json()} | ({"canary": canary.to_json()} if canary is not None else {})
    return Result(documents=documents, summary="; ".join(word for word in words if word))


def summary_of(canary: CanaryResult, decision: str, note: str) -> str:
    mine = sum(step.candidate.requests for step in canary.steps)
    steps = f"{len(canary.steps)} step{'' if len(canary.steps) == 1 else 's'}"
    words = f"{decision} after {mine:,} requests of the candidate in {steps}, {canary.exposure:.1%} of all"
    return f"{words}; {note}" if note else words
