"""What a canary is about and on which traffic: the same for the step that runs it and for a job that judges one step of it."""

from __future__ import annotations

from pathlib import Path

from tidewheel.contracts.bundle import BundleManifest
from tidewheel.contracts.dataset import DATASETS, DatasetManifest
from tidewheel.contracts.offer import CanaryOffer
from tidewheel.contracts.recipe import WorldSource
from tidewheel.contracts.rollout import CanaryResult
from tidewheel.contracts.verdict import Verdict
from tidewheel.ranker.bundle import OpenBundle
from tidewheel.registry.ledger import Ledger
from tidewheel.registry.release import Release, release
from tidewheel.registry.versions import Registry
from tidewheel.rollout import ReplayTraffic, Traffic
from tidewheel.rollout.controller import JOURNALS
from tidewheel.rollout.remote import journal_name, seen
from tidewheel.steps.production import missing_features, with_production, without
from tidewheel.steps.tables import read
from tidewheel.store.home import Home
from tidewheel.store.store import Store
from tidewheel.world import World


def traffic_of(offer: CanaryOffer, home: Home, store: Store, candidate: OpenBundle, production: OpenBundle | None) -> Traffic:
    """The world's users right after the window, or the held-out requests of a recorded log; both servers' features.

    Raises:
        ContractError: the held-out rows are not what their manifest says.
    """
    part = offer.part
    features = with_production(candidate.manifest.features, production)
    if isinstance(part.source, WorldSource):
        world = World(part.source, part.labels, part.ingest.counters, features, home.world(part.recipe))
        return world.traffic(offer.window_end)
    table = read(*held_out(store, offer.evaluation))
    if production is not None:  # what the log has lost, its servers do not get either
        table = without(table, production, missing_features(production, candidate.manifest.features, table))
    return ReplayTraffic(table, features, tuple(label.name for label in part.labels))


def held_out(store: Store, evaluation: DatasetManifest) -> tuple[Path, DatasetManifest]:
    return store.load(DATASETS, evaluation.digest, DatasetManifest)


def found(store: Store, offer: CanaryOffer) -> CanaryResult | None:
    """The canary of an offer as its journal has it, whoever led it; None where none has ended."""
    recipe, _, key = offer.key.partition("/")
    is_closed_loop = isinstance(offer.part.source, WorldSource)
    for name in store.folders(f"{JOURNALS}/{recipe}"):
        if name == key or name.startswith(journal_name(key, "")):
            has_control = offer.baseline.production is not None
            result, has_ended = seen(store, f"{recipe}/{name}", offer.part.deploy, is_closed_loop, has_control)
            if has_ended:
                return result
    return None


def decide(
    ledger: Ledger, registry: Registry | None, offer: CanaryOffer, manifest: BundleManifest, verdict: Verdict
) -> Release:
    """Write down what follows from the verdict, once, whoever comes to it first.

    Args:
        registry: None where whoever judges cannot reach it: `deploy` or `reconcile` makes up for it.

    Raises:
        RetryableError: something else was decided since the offer was made.
    """
    deploy = offer.part.deploy
    return release(
        ledger,
        registry,
        bundle=offer.candidate,
        manifest=manifest,
        verdict=verdict,
        is_canaried=True,
        seen_number=offer.baseline.ledger_number,
        run_id=offer.run_id,
        reason=f"{offer.reason}: {verdict.explain()}",
        retraining=deploy.after_rollback,
        holdout=deploy.holdout,
        target=deploy.target,
    )
