"""Verbs of the registered features: schema plan, apply, show."""

from __future__ import annotations

from pathlib import Path

from tidewheel.cli.inspect import existing_home
from tidewheel.cli.output import emit, plain, short, table
from tidewheel.cli.recipes import load_recipe
from tidewheel.contracts.schema import FeatureSpec
from tidewheel.contracts.schema_changes import Change, ChangeKind, SchemaPlan, SchemaRecord
from tidewheel.errors import ConfigError
from tidewheel.registry.schema import SchemaHistory, recipes
from tidewheel.store.home import Home

STYLES = {ChangeKind.REFUSED: "red", ChangeKind.DEPRECATED: "yellow"}
REFUSED = 2


def plan(recipe: Path, settings: list[str], home: str, as_json: bool) -> int:
    """Show what the recipe would change of its registered features; returns 2 where a change is refused, else 0."""
    chosen = load_recipe(recipe, settings, needs_data=False)
    found = SchemaHistory(Home.resolve(Path(home) if home else None).store(), chosen.name).plan(chosen.features)
    emit(_document(chosen.name, found), as_json, lambda: _show_plan(chosen.name, found))
    return REFUSED if found.refused else 0


def apply(recipe: Path, settings: list[str], reason: str, home: str, as_json: bool) -> None:
    """Register the features of the recipe, where every change is additive."""
    chosen = load_recipe(recipe, settings, needs_data=False)
    history = SchemaHistory(Home.resolve(Path(home) if home else None).store(), chosen.name)
    done = history.register(chosen.features, reason=reason, by="tidewheel schema apply")
    number = len(history.records())
    emit(_document(chosen.name, done) | {"number": number}, as_json, lambda: _show_applied(chosen.name, number, done))


def show(name: str, home: str, as_json: bool) -> None:
    """Every feature that a recipe ever had."""
    records = _history_of(existing_home(home), name).records()
    emit(records[-1], as_json, lambda: _show_features(records))


def _history_of(home: Home, name: str) -> SchemaHistory:
    store = home.store()
    known = recipes(store)
    chosen = [name] if name in known else known if not name else []
    if len(chosen) != 1:
        asked = f"no recipe {name}" if name else f"{len(known)} recipes"
        options = ", ".join(known) or "none yet; register one with tidewheel schema apply"
        raise ConfigError(f"home {home.root}: {asked} with registered features; name one with --name: {options}")
    return SchemaHistory(store, chosen[0])


def _document(recipe: str, found: SchemaPlan) -> dict[str, object]:
    return {
        "recipe": recipe,
        "is_additive": not found.refused,
        "changes": [change.model_dump(mode="json") for change in found.changes],
        "feature_digest": found.feature_digest,
    }


def _show_changes(changes: tuple[Change, ...]) -> None:
    rows = [[_kind(change.kind), str(change.id), change.name, plain(change.reason)] for change in changes]
    table(("change", "id", "feature", "what"), rows)


def _show_plan(recipe: str, found: SchemaPlan) -> None:
    if not found.changes:
        print(f"{recipe}: the registered features are those of the recipe, {short(found.feature_digest)}")
        return
    _show_changes(found.changes)
    if found.refused:
        print(f"\n{len(found.refused)} refused: nothing of it can be applied")
    else:
        print(f"\n{len(found.changes)} to apply: tidewheel schema apply, or the next tidewheel run")


def _show_applied(recipe: str, number: int, done: SchemaPlan) -> None:
    if done.changes:
        _show_changes(done.changes)
    words = f"{len(done.changes)} registered" if done.changes else "nothing to register"
    print(f"{recipe}: {words}, record {number}, features {short(done.feature_digest)}")


def _show_features(records: tuple[SchemaRecord, ...]) -> None:
    """A row a feature with the record that last changed it, then who made these records and why."""
    changed: dict[FeatureSpec, int] = {}
    for record in records:
        for feature in record.features:
            changed.setdefault(feature, record.number)
    rows = [
        [
            str(feature.id),
            feature.name,
            "[yellow]deprecated[/]" if feature.deprecated else "",
            feature.kind.value,
            feature.dtype.value,
            feature.entity.value,
            str(changed[feature]),
        ]
        for feature in records[-1].features
    ]
    table(("id", "feature", "", "kind", "type", "of", "record"), rows)
    print()
    for record in records:
        print(f"record {record.number}, {record.time.date().isoformat()}, {record.by}: {record.reason}")
    print(f"features {records[-1].feature_digest}")


def _kind(kind: ChangeKind) -> str:
    return f"[{STYLES.get(kind, 'green')}]{kind.value}[/]"
