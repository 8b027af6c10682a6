"""`tidewheel gc`: bundles, datasets, rankers and run folders that nothing needs any more."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from tidewheel.cli.inspect import existing_home, ledger_of
from tidewheel.cli.output import emit, short, table
from tidewheel.cli.recipes import load_recipe
from tidewheel.cli.release import registry_of
from tidewheel.cli.unfinished import is_at_work
from tidewheel.contracts.base import digest_of
from tidewheel.contracts.bundle import BUNDLES
from tidewheel.contracts.dataset import DATASETS
from tidewheel.contracts.evidence import Baseline
from tidewheel.contracts.ledger import LedgerEntry
from tidewheel.contracts.recipe import Recipe
from tidewheel.errors import ConfigError
from tidewheel.ranker.bundle import MODELS
from tidewheel.registry.ledger import Ledger
from tidewheel.registry.retention import Folder, Sweep, Trace, advertised, carry_out, plan_sweep, retained
from tidewheel.steps.records import DOCUMENTS, document, end_of, report_of
from tidewheel.store.home import Home
from tidewheel.store.store import Listing, Store

SPLITS = tuple(("sample", name, DATASETS) for name in ("train", "calibration", "eval", "randomized"))
BUNDLE = ("distill", "bundle", BUNDLES)
MADE = (("ingest", "impressions", DATASETS), *SPLITS, ("train", "ranker", MODELS), BUNDLE)


def gc(
    recipe: Path | None, releases: int | None, days: int | None, is_dry_run: bool, name: str, home: str, as_json: bool
) -> None:
    """Remove what nothing needs, or only say what that is."""
    place = existing_home(home)
    ledger, now = ledger_of(place, name), datetime.now(UTC)
    entries = ledger.entries()
    chosen = load_recipe(recipe) if recipe is not None else _newest_recipe(place, ledger.recipe)
    asked = {"releases": releases, "days": days}
    rules = chosen.retention.model_copy(update={key: value for key, value in asked.items() if value is not None})
    aliases = registry_of(place, ledger).aliases()
    named = {bundle: f"the registry's alias {alias} names it" for alias, bundle in aliases.items() if bundle}
    kept = named | advertised(ledger.store, ledger.recipe) | retained(entries, rules, chosen.train.teaching, now)
    sweep = plan_sweep(entries, kept, traces(place, ledger, entries), rules, now)
    sizes = {folder: size for folder in sweep.folders if (size := _bytes(ledger.store, folder)) is not None}
    if not is_dry_run:
        carry_out(ledger, len(entries), sweep)
        _remove_runs(place, sweep.runs)
    told = {
        "recipe": ledger.recipe,
        "dry_run": is_dry_run,
        "retention": rules.model_dump(mode="json"),
        "removed": [{"kind": kind, "digest": digest, "bytes": size} for (kind, digest), size in sizes.items()],
        "runs": list(sweep.runs),
        "kept": sweep.kept,
    }
    emit(told, as_json, lambda: _show(sweep, sizes, is_dry_run))


def traces(home: Home, ledger: Ledger, entries: Sequence[LedgerEntry]) -> list[Trace]:
    """What every run of the store left. A run of another recipe, or of another home before its ending, counts as at work."""
    decided = {entry.run_id: entry.time for entry in entries}
    run_ids = {*ledger.store.folders(DOCUMENTS), *(folder.name for folder in home.runs.glob("*") if folder.is_dir())}
    return [_trace(home, ledger, run_id, decided.get(run_id)) for run_id in sorted(run_ids)]


def _trace(home: Home, ledger: Ledger, run_id: str, decided: datetime | None) -> Trace:
    def made(documents: Sequence[tuple[str, str, str]]) -> frozenset[Folder]:
        found = [(kind, document(ledger.store, run_id, step, name)) for step, name, kind in documents]
        return frozenset((kind, digest_of(json.loads(text))) for kind, text in found if text is not None)

    is_here = home.run(run_id).is_dir()
    ended = _ended(home.run(run_id), ledger.recipe) if is_here else decided or _ended_elsewhere(ledger, run_id)
    needed = _pinned(ledger.store, run_id) if ended is None else frozenset[str]()
    return Trace(run_id, ended, made(MADE), made((*SPLITS, BUNDLE)), needed)


def _pinned(store: Store, run_id: str) -> frozenset[str]:
    """The bundles that a run at work compares with and learns from."""
    text = document(store, run_id, "validate_data", "baseline")
    if text is None:
        return frozenset()
    baseline = Baseline.parse(text, f"baseline of {run_id}")
    named = (baseline.production, baseline.teaching.bundle, *baseline.earlier)
    return frozenset(bundle for bundle in named if bundle is not None)


def _ended(folder: Path, recipe: str) -> datetime | None:
    """When a run of this home wrote its last word; None while it is at work, and for a run of another recipe."""
    if is_at_work(folder) or _recipe_of(folder) != recipe:
        return None
    last = max((path.stat().st_mtime for path in folder.iterdir()), default=folder.stat().st_mtime)
    return datetime.fromtimestamp(last, UTC)


def _ended_elsewhere(ledger: Ledger, run_id: str) -> datetime | None:
    report = report_of(ledger.store, run_id)
    return end_of(report) if report is not None and report.recipe == ledger.recipe else None


def _recipe_of(folder: Path) -> str | None:
    path = folder / "recipe.json"
    return str(json.loads(path.read_text(encoding="utf-8"))["name"]) if path.exists() else None


def _newest_recipe(home: Home, name: str) -> Recipe:
    """The recipe of the newest run of that name here.

    Raises:
        ConfigError: this home has none.
    """
    paths = [folder / "recipe.json" for folder in home.runs.glob("*") if _recipe_of(folder) == name]
    if not paths:
        raise ConfigError(f"gc: home {home.root} has no run of {name} whose recipe says what to keep; name it with --recipe")
    return Recipe.read(max(paths, key=lambda path: path.stat().st_mtime))


def _remove_runs(home: Home, run_ids: Sequence[str]) -> None:
    """By way of the scratch folder, which is swept: a run is there whole or not at all."""
    home.scratch.mkdir(parents=True, exist_ok=True)
    for run_id in run_ids:
        if home.run(run_id).is_dir():
            gone = home.run(run_id).rename(home.scratch / f"removed-{run_id}")
            shutil.rmtree(gone, ignore_errors=True)


def _bytes(store: Store, folder: Folder) -> int | None:
    """Size of a folder of the store; None where it is not there."""
    text = store.manifest(*folder)
    return sum(entry.bytes for entry in Listing.parse(text, "/".join(folder)).files) if text is not None else None


def _show(sweep: Sweep, sizes: dict[Folder, int], is_dry_run: bool) -> None:
    table(("bundle", "stays because"), [[short(bundle), why] for bundle, why in sweep.kept.items()])
    kinds = sorted({kind for kind, _ in sizes})
    of = {kind: [size for (found, _), size in sizes.items() if found == kind] for kind in kinds}
    words = [f"{len(of[kind])} {kind} ({sum(of[kind]) / 1e6:,.1f} MB)" for kind in kinds] + [f"{len(sweep.runs)} run folders"]
    print(f"\n{'would remove' if is_dry_run else 'removed'} {', '.join(words)}")
