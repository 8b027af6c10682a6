"""What serves at this moment, according to the ledger."""

from __future__ import annotations

from tidewheel.contracts.ledger import production_after
from tidewheel.contracts.schema import FeatureSpec
from tidewheel.ranker.bundle import OpenBundle, load_bundle
from tidewheel.ranker.scorer import Scorer
from tidewheel.registry.ledger import Ledger
from tidewheel.store.store import Store


def production_scorer(store: Store, recipe: str) -> tuple[str | None, Scorer | None]:
    """Digest and scorer of a recipe's production bundle, or two Nones before the first release."""
    digest = production_after(Ledger(store, recipe).entries())
    return (digest, Scorer(load_bundle(store, digest))) if digest else (None, None)


def with_production(features: tuple[FeatureSpec, ...], bundle: OpenBundle | None) -> tuple[FeatureSpec, ...]:
    """The model's features, then those that only production has: deprecated since, and needed while it is compared with."""
    own = {feature.name for feature in features}
    return features + tuple(f for f in (bundle.manifest.features if bundle else ()) if f.name not in own)
