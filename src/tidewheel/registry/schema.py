"""The registered features of a recipe in the store: one numbered record a change, and additive changes only."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from itertools import pairwise

from tidewheel.contracts.schema import FeatureSpec, feature_digest
from tidewheel.contracts.schema_changes import SchemaPlan, SchemaRecord, plan
from tidewheel.errors import ConfigError, ContractError, RetryableError
from tidewheel.store import Store
from tidewheel.store.records import name_of, read_all

PREFIX = "schema"
MAX_LOST_RACES = 20
Clock = Callable[[], datetime]


def _now() -> datetime:
    return datetime.now(UTC)


class SchemaHistory:
    """Reads every time it is asked: what another process registered counts at once."""

    def __init__(self, store: Store, recipe: str) -> None:
        self._store = store
        self.recipe = recipe
        self._folder = f"{PREFIX}/{recipe}"

    def records(self) -> tuple[SchemaRecord, ...]:
        """Every change from the first on; empty before anything was registered.

        Raises:
            ContractError: a record is missing or damaged, or does not follow from the one before by additive changes.
        """
        records = read_all(self._store, self._folder, SchemaRecord, "schema")
        for record in records:
            name = name_of(self._folder, record.number)
            if record.feature_digest != feature_digest(record.features):
                raise ContractError(f"schema: {name} does not match its feature_digest; restore it from a backup of the store")
        for before, after in pairwise(records):
            if plan(before.features, after.features).features != after.features:
                name = name_of(self._folder, after.number)
                raise ContractError(
                    f"schema: {name} does not follow from the one before by addition; restore it from a backup of the store"
                )
        return records

    def plan(self, wanted: Sequence[FeatureSpec]) -> SchemaPlan:
        """What would change if `wanted` were registered now."""
        return _plan(self.records(), wanted)

    def register(self, wanted: Sequence[FeatureSpec], *, reason: str, by: str, clock: Clock = _now) -> SchemaPlan:
        """Register the features of a recipe; returns what changed. Idempotent: without a change nothing is written.

        Of several processes at once one writes the next record; the others read it and plan again.

        Raises:
            ConfigError: a change is not additive; nothing was written.
            RetryableError: others were faster every time.
        """
        for _ in range(MAX_LOST_RACES):
            records = self.records()
            found = _plan(records, wanted)
            if found.refused:
                raise ConfigError(f"recipe {self.recipe}: {found.explain_refusal()}")
            if not found.changes:
                return found
            record = SchemaRecord(
                number=len(records) + 1,
                time=clock(),
                recipe=self.recipe,
                by=by,
                reason=reason,
                features=found.features,
                feature_digest=found.feature_digest,
            )
            if self._store.create(name_of(self._folder, record.number), record.to_json() + "\n"):
                return found
        raise RetryableError(f"schema of {self.recipe}: others changed it {MAX_LOST_RACES} times meanwhile; try again")


def _plan(records: Sequence[SchemaRecord], wanted: Sequence[FeatureSpec]) -> SchemaPlan:
    return plan(records[-1].features if records else (), wanted)


def recipes(store: Store) -> list[str]:
    """Names of the recipes that have registered features in the store."""
    return store.folders(PREFIX)
