"""Verbs that change what serves or teaches: rollback, quarantine, reconcile; and serve, which serves it."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING

from tidewheel.cli.inspect import existing_home, ledger_of
from tidewheel.cli.output import emit, short
from tidewheel.contracts.ledger import untrusted
from tidewheel.errors import ConfigError
from tidewheel.ranker.bundle import BUNDLES, load_bundle
from tidewheel.registry.ledger import Ledger
from tidewheel.registry.projections import reconcile as repair
from tidewheel.registry.release import Release
from tidewheel.registry.release import quarantine as keep_from_teaching
from tidewheel.registry.release import rollback as take_back
from tidewheel.store.home import Home

if TYPE_CHECKING:
    from tidewheel.registry.mlflow import MlflowRegistry


def rollback(reason: str, to: str, name: str, home: str, as_json: bool) -> None:
    """Make an earlier production serve again: one ledger entry, then everything that follows from it."""
    place = existing_home(home)
    store, ledger = place.store(), ledger_of(place, name)
    done = take_back(
        ledger, _registry(place, ledger), reason=reason, to=to or None, check=lambda bundle: load_bundle(store, bundle)
    )
    told = f"production {short(done.entry.previous)} → {short(done.entry.production)}, ledger entry {done.entry.number}"
    _emit(done, [told], {}, as_json)


def quarantine(bundle: str, reason: str, name: str, home: str, as_json: bool) -> None:
    """Never again learn from a bundle, nor from what learned from it: one ledger entry."""
    place = existing_home(home)
    ledger = ledger_of(place, name)
    before = untrusted(ledger.entries())
    done = keep_from_teaching(ledger, _registry(place, ledger), bundle=bundle, reason=reason)
    new = {digest: why for digest, why in untrusted(ledger.entries()).items() if digest not in before}
    lines = [f"{short(digest)} teaches no more: {why}" for digest, why in new.items()]
    if done.entry.production in new:
        lines.append(f"{short(done.entry.production)} still serves; tidewheel rollback takes it back")
    _emit(done, lines, {"untrusted": new}, as_json)


def _emit(done: Release, lines: list[str], more: dict[str, object], as_json: bool) -> None:
    document = {
        "entry": done.entry.model_dump(mode="json", by_alias=True),
        "repaired": list(done.repaired),
        "unprojected": done.unprojected,
    }
    lines = [*lines, *done.repaired, *([done.unprojected] if done.unprojected else [])]
    emit(document | more, as_json, lambda: print("\n".join(lines)))


def reconcile(name: str, home: str, as_json: bool) -> None:
    """Make the registry say what the ledger says. Safe to repeat, and after a crash between any two writes."""
    place = existing_home(home)
    ledger = ledger_of(place, name)
    repaired = repair(ledger, _registry(place, ledger))
    emit({"repaired": repaired}, as_json, lambda: print("\n".join(repaired) or "nothing to repair"))


def serve(bundle: str, options: Mapping[str, object], name: str, home: str) -> None:
    """Serve production as it changes, or a bundle by its digest, over the Open Inference Protocol v2, until interrupted.

    Whoever follows begins with the newest assignment; where there is none yet, or it cannot be loaded, with production.
    """
    place = existing_home(home)
    ledger = None if bundle else ledger_of(place, name)
    digest = bundle or (ledger.production() if ledger else None)
    if digest is None:
        raise ConfigError("serve: nothing was released yet; name a bundle with --bundle, or make one with tidewheel run")
    arguments = ["-m", "tidewheel.serving", "--bundle", str(place.store().fetch(BUNDLES, digest))]
    if ledger is not None:
        arguments += ["--follow", place.store_url, ledger.recipe, "--cache", str(place.root / "cache")]
    for option, value in options.items():
        arguments += [option, str(value)]
    os.execv(sys.executable, [sys.executable, *arguments])


def _registry(home: Home, ledger: Ledger) -> MlflowRegistry:
    """The registered model of the ledger's recipe."""
    from tidewheel.registry.mlflow import MlflowRegistry

    return MlflowRegistry(home.registry_url, ledger.recipe, home.store().location(BUNDLES))
