"""Verbs that change what serves: rollback, reconcile; and serve, which serves it."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from tidewheel.cli.inspect import existing_home
from tidewheel.cli.output import emit, short
from tidewheel.errors import ConfigError
from tidewheel.ranker.bundle import BUNDLES, load_bundle
from tidewheel.registry.ledger import Ledger
from tidewheel.registry.projections import reconcile as repair
from tidewheel.registry.release import rollback as take_back
from tidewheel.store.home import Home

if TYPE_CHECKING:
    from tidewheel.registry.mlflow import MlflowRegistry


def rollback(reason: str, to: str, home: str, as_json: bool) -> None:
    """Make an earlier production serve again: one ledger entry, then everything that follows from it."""
    place = existing_home(home)
    store = place.store()
    done = take_back(
        Ledger(store), _registry(place), reason=reason, to=to or None, check=lambda bundle: load_bundle(store, bundle)
    )
    document = {
        "entry": done.entry.model_dump(mode="json", by_alias=True),
        "repaired": list(done.repaired),
        "unprojected": done.unprojected,
    }
    lines = [f"production {short(done.entry.previous)} → {short(done.entry.production)}, ledger entry {done.entry.number}"]
    lines += [*done.repaired, *([done.unprojected] if done.unprojected else [])]
    emit(document, as_json, lambda: print("\n".join(lines)))


def reconcile(home: str, as_json: bool) -> None:
    """Make the registry say what the ledger says. Safe to repeat, and after a crash between any two writes."""
    place = existing_home(home)
    repaired = repair(Ledger(place.store()), _registry(place))
    emit({"repaired": repaired}, as_json, lambda: print("\n".join(repaired) or "nothing to repair"))


def serve(bundle: str, host: str, port: int, home: str) -> None:
    """Serve production, or a bundle by its digest, over the Open Inference Protocol v2, until interrupted."""
    store = existing_home(home).store()
    digest = bundle or Ledger(store).production()
    if digest is None:
        raise ConfigError("serve: nothing was released yet; name a bundle with --bundle, or make one with tidewheel run")
    folder = store.folder(BUNDLES, digest)
    arguments = ["-m", "tidewheel.serving", "--bundle", str(folder), "--host", host, "--port", str(port)]
    os.execv(sys.executable, [sys.executable, *arguments])


def _registry(home: Home) -> MlflowRegistry:
    """The registered model of the recipe that the ledger's last decision was about.

    Raises:
        ConfigError: nothing was decided yet.
    """
    from tidewheel.registry.mlflow import MlflowRegistry

    entries = Ledger(home.store()).entries()
    if not entries:
        raise ConfigError(f"home {home.root}: its ledger is empty; nothing was ever released")
    bundles = Path(home.store().root) / BUNDLES
    return MlflowRegistry(home.registry_url, entries[-1].recipe, bundles)
