"""The built-in world lives on, day by day, under the bundles that the ledger says serve."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from tidewheel.contracts.assignment import Assignment
from tidewheel.contracts.ledger import LedgerEntry, experiment_after, production_after
from tidewheel.contracts.recipe import WorldSource
from tidewheel.contracts.schema import FeatureSpec
from tidewheel.contracts.steps import IngestPart
from tidewheel.logs.adapter import Request
from tidewheel.logs.sources import still_readable
from tidewheel.ranker.bundle import load_bundle
from tidewheel.ranker.scorer import Scorer
from tidewheel.registry.ledger import Ledger
from tidewheel.steps.production import with_production
from tidewheel.store.home import Home
from tidewheel.store.store import Store
from tidewheel.world import HeldOut, World


@dataclass(frozen=True)
class Serving:
    """Who serves: production for all users but those whom `assignment` gives to the bundle of `held_out`.

    Both scorers are None before the first release, the latter also while no experiment runs.
    """

    production: Scorer | None = None
    held_out: Scorer | None = None
    assignment: Assignment | None = None

    @classmethod
    def after(cls, store: Store, entries: Sequence[LedgerEntry]) -> Serving:
        """What follows from the ledger.

        Raises:
            ContractError: a bundle that serves is damaged.
        """
        production, experiment = production_after(entries), experiment_after(entries)
        if production is None:
            return cls()
        scorer = Scorer(load_bundle(store, production))
        if experiment is None:
            return cls(scorer)
        last = entries[-1]
        previous = Scorer(load_bundle(store, experiment.previous))
        return cls(scorer, previous, experiment.assignment(last.recipe, last.number))

    @classmethod
    def now(cls, store: Store, recipe: str) -> Serving:
        """What follows from the ledger at this moment."""
        return cls.after(store, Ledger(store, recipe).entries())

    def world(self, part: IngestPart, home: Home) -> World:
        """The recipe's world, which can serve what every bundle here takes."""
        assert isinstance(part.source, WorldSource)
        features = readable(part, None, self.production, self.held_out)
        return World(part.source, part.labels, part.ingest.counters, features, home.world(part.recipe))

    def let_live(self, world: World, until: datetime) -> int:
        """Write the world's missing days that end at or before `until`, as these bundles serve them; returns how many."""
        bundle = self.production.bundle.digest if self.production else None
        held_out = None
        if self.held_out is not None and self.assignment is not None:
            held_out = HeldOut(self.held_out.bundle.digest, self.held_out, self.assignment)
        return world.ensure_log(until, self.production, bundle, held_out=held_out)


def readable(part: IngestPart, request: Request | None, *bundles: Scorer | None) -> tuple[FeatureSpec, ...]:
    """The model's features, and those that only these bundles take, as far as the log still has them."""
    wanted = part.features
    for scorer in bundles:
        wanted = with_production(wanted, scorer.bundle if scorer else None)
    more = wanted[len(part.features) :]
    return still_readable(part.features, more, part.source, part.labels, part.ingest.counters, request)
