"""The state record: everything that follows from a decision, for whoever does not want to read a ledger."""

from __future__ import annotations

from collections.abc import Sequence

from tidewheel.contracts.bundle import BUNDLES, BundleManifest
from tidewheel.contracts.ledger import LedgerEntry, previous_production, production_after
from tidewheel.contracts.retraining import retraining_after
from tidewheel.contracts.state import ReleaseState, Served, name_of
from tidewheel.contracts.teacher import standings
from tidewheel.registry.ledger import Ledger
from tidewheel.store import Store


def state_after(entries: Sequence[LedgerEntry], manifest: BundleManifest | None) -> ReleaseState:
    """What holds after these entries, of which there is one at least.

    Args:
        manifest: of the production bundle, where there is one.
    """
    last, standing, retraining = entries[-1], standings(entries), retraining_after(entries)
    eligible = tuple(bundle for bundle, why in standing.items() if why is None)
    return ReleaseState(
        recipe=last.recipe,
        number=last.number,
        time=last.time,
        production=production_after(entries),
        previous=previous_production(entries),
        served=_served(manifest) if manifest is not None else None,
        teachers=() if retraining.is_reanchored else eligible,
        not_teaching={bundle: why for bundle, why in standing.items() if why is not None},
        retraining=retraining,
    )


def _served(manifest: BundleManifest) -> Served:
    digests = {entry.path: entry.sha256 for entry in manifest.files}
    return Served(
        feature_digest=manifest.feature_digest,
        features=tuple(feature.name for feature in manifest.features),
        labels=manifest.labels,
        calibrators={name: digests[model.calibrators] for name, model in manifest.models.items()},
    )


class StateProjection:
    """Implements `projections.Projection`: one record a recipe, replaced whole."""

    name = "state"

    def __init__(self, store: Store) -> None:
        self._store = store

    def repair(self, entries: Sequence[LedgerEntry]) -> list[str]:
        if not entries:
            return []
        wanted = state_after(entries, _manifest(self._store, production_after(entries)))
        name, text = name_of(wanted.recipe), wanted.to_json() + "\n"
        if self._store.get(name) == text:
            return []
        self._store.put(name, text)
        served = wanted.production[:12] if wanted.production else "nothing"
        return [f"state: entry {wanted.number}, {served} serves, retraining {wanted.retraining.phase.value}"]


def state_of(ledger: Ledger) -> ReleaseState | None:
    """What holds now, from the ledger itself; None before the first decision."""
    entries = ledger.entries()
    return state_after(entries, _manifest(ledger.store, production_after(entries))) if entries else None


def _manifest(store: Store, bundle: str | None) -> BundleManifest | None:
    text = store.manifest(BUNDLES, bundle) if bundle else None
    return BundleManifest.parse(text, f"{BUNDLES}/{bundle}") if text is not None else None
