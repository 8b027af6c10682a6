"""Verbs that change what serves, teaches or runs: rollback, quarantine, resume, reconcile; and serve, which serves it."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING

from tidewheel.cli.inspect import existing_home, ledger_of
from tidewheel.cli.output import emit, short
from tidewheel.contracts.ledger import AfterRollback, untrusted
from tidewheel.contracts.retraining import RetrainingPhase, retraining_after
from tidewheel.errors import ConfigError
from tidewheel.ranker.bundle import BUNDLES, load_bundle
from tidewheel.registry.ledger import Ledger
from tidewheel.registry.projections import reconcile as repair
from tidewheel.registry.release import Release
from tidewheel.registry.release import quarantine as keep_from_teaching
from tidewheel.registry.release import resume as go_on
from tidewheel.registry.release import rollback as take_back
from tidewheel.registry.removed import manifest_of
from tidewheel.steps.served import follow, followed
from tidewheel.store.home import Home
from tidewheel.store.store import Store

if TYPE_CHECKING:
    from tidewheel.registry.mlflow import MlflowRegistry


NEXT_RUN = {
    RetrainingPhase.OPEN: "retraining goes on as before",
    RetrainingPhase.REANCHORED: "the next run learns from labels alone",
    RetrainingPhase.PAUSED: "no run begins until tidewheel resume --reason WHY",
}


def rollback(reason: str, to: str, retraining: str, name: str, home: str, as_json: bool) -> None:
    """Make an earlier production serve again: one ledger entry, then everything that follows from it."""
    if unknown := {retraining} - {"", *AfterRollback}:
        raise ConfigError(f"--retraining {unknown.pop()}: expected one of {', '.join(AfterRollback)}")
    place = existing_home(home)
    store, ledger = place.store(), ledger_of(place, name)
    done = take_back(
        ledger,
        registry_of(place, ledger),
        reason=reason,
        to=to or None,
        check=lambda bundle: _check(store, bundle),
        retraining=AfterRollback(retraining) if retraining else None,
    )
    told = f"production {short(done.entry.previous)} → {short(done.entry.production)}, ledger entry {done.entry.number}"
    held, served = retraining_after(ledger.entries()), followed(ledger)
    more: dict[str, object] = {"retraining": held.model_dump(mode="json"), "served": served}
    _emit(done, [told, NEXT_RUN[held.phase], *served], more, as_json)


def _check(store: Store, bundle: str) -> None:
    """Refuse to let a bundle serve that cannot.

    Raises:
        ConfigError: its bytes were removed.
        ContractError: they are damaged.
    """
    if store.manifest(BUNDLES, bundle) is None and manifest_of(store, BUNDLES, bundle) is not None:
        raise ConfigError(f"rollback: {short(bundle)} was removed by tidewheel gc; tidewheel history shows what else served")
    load_bundle(store, bundle)


def resume(reason: str, name: str, home: str, as_json: bool) -> None:
    """Let runs begin and teachers teach again, which a rollback held up: one ledger entry."""
    place = existing_home(home)
    ledger = ledger_of(place, name)
    done = go_on(ledger, registry_of(place, ledger), reason=reason)
    _emit(done, [f"runs begin and teachers teach again, ledger entry {done.entry.number}"], {}, as_json)


def quarantine(bundle: str, reason: str, name: str, home: str, as_json: bool) -> None:
    """Never again learn from a bundle, nor from what learned from it: one ledger entry."""
    place = existing_home(home)
    ledger = ledger_of(place, name)
    before = untrusted(ledger.entries())
    done = keep_from_teaching(ledger, registry_of(place, ledger), bundle=bundle, reason=reason)
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
    """Make traffic, state and registry say what the ledger says. Safe to repeat, and after a crash between any two writes."""
    place = existing_home(home)
    ledger = ledger_of(place, name)
    repaired = repair(ledger, registry_of(place, ledger)) + follow(ledger)
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


def registry_of(home: Home, ledger: Ledger) -> MlflowRegistry:
    """The registered model of the ledger's recipe."""
    from tidewheel.registry.mlflow import MlflowRegistry

    return MlflowRegistry(home.registry_url, ledger.recipe, home.store().location(BUNDLES))
