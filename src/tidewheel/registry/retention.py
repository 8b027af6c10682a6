"""What nobody needs any more, judged by the ledger and by what runs left; and its removal."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from tidewheel.contracts.assignment import ASSIGNMENTS, Assignment
from tidewheel.contracts.bundle import BUNDLES
from tidewheel.contracts.ledger import LedgerEntry, earlier_productions, production_after
from tidewheel.contracts.retention import RetentionRules
from tidewheel.contracts.teacher import RELEASED, TeacherRules, standings
from tidewheel.errors import RetryableError
from tidewheel.registry.ledger import Ledger
from tidewheel.registry.removed import remove
from tidewheel.store import Store

Folder = tuple[str, str]  # kind and digest


@dataclass(frozen=True)
class Trace:
    """What one run left in the store.

    Attributes:
        ended: None: it is at work, or nobody here can tell; then all of it stays.
        made: every folder.
        lasting: those of them that a bundle in production is asked about later: the splits that it was made and judged on.
        needed: bundles that it compares with or learns from while it is at work.
    """

    run_id: str
    ended: datetime | None
    made: frozenset[Folder] = frozenset()
    lasting: frozenset[Folder] = frozenset()
    needed: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Sweep:
    """`kept`: bundle -> why it stays. `folders` and `runs` may go: nothing that stays needs them."""

    kept: dict[str, str]
    folders: tuple[Folder, ...]
    runs: tuple[str, ...]


def retained(entries: Sequence[LedgerEntry], rules: RetentionRules, teaching: TeacherRules, now: datetime) -> dict[str, str]:
    """Bundle -> why it stays, by the ledger alone.

    What an ancestor knew is in its pupils' weights already: only its entries and its manifest are needed, and those outlive its
    bytes. The direct teacher of production stays all the same: whoever looks into production looks there.
    """
    kept: dict[str, str] = {}
    if (serving := production_after(entries)) is not None:
        kept[serving] = "production"
    for bundle in earlier_productions(entries)[: rules.releases]:
        kept.setdefault(bundle, "can be gone back to")
    for bundle in _may_teach(entries, teaching):
        kept.setdefault(bundle, "may teach the next model")
    taught = next(
        (entry.teacher for entry in reversed(entries) if entry.bundle == serving and entry.decision in RELEASED), None
    )
    if taught is not None:
        kept.setdefault(taught, "taught production")
    for entry in reversed(entries):
        if now - entry.time <= timedelta(days=rules.days):
            for recent in (entry.bundle, entry.production, entry.previous):
                if recent is not None:
                    kept.setdefault(recent, f"decided about, or served, within {rules.days} days")
    return kept


def _may_teach(entries: Sequence[LedgerEntry], teaching: TeacherRules) -> list[str]:
    """Every bundle that `choose_teacher` could choose for a window that ends no earlier than the newest one, newest first.

    Not the newest alone: it may turn out not to fit, or to be quarantined, and then the one before it teaches.
    """
    ends = {entry.bundle: entry.window.end for entry in entries if entry.window is not None}
    newest = max(ends.values(), default=None)
    age = timedelta(days=teaching.max_age_days)
    eligible = (bundle for bundle, why in standings(entries).items() if why is None)
    return [bundle for bundle in eligible if newest is not None and newest - ends[bundle] <= age]


def plan_sweep(
    entries: Sequence[LedgerEntry], kept: Mapping[str, str], traces: Iterable[Trace], rules: RetentionRules, now: datetime
) -> Sweep:
    """What may go.

    Only what a run of this ledger is known to have made can go: folders that nobody tells of are somebody else's. Datasets and
    rankers stay as long as their run is young; after that the splits of a run that released a bundle that stays.

    Args:
        kept: bundle -> why it stays; more than `retained` says where somebody else names bundles.
    """
    known = list(traces)
    released = {entry.run_id for entry in entries if entry.bundle in kept and entry.decision in RELEASED}
    newest = max((trace.ended for trace in known if trace.ended is not None), default=None)
    bundles, stays, goes, runs = dict(kept), set[Folder](), {(BUNDLES, entry.bundle) for entry in entries}, []
    for trace in known:
        is_young = trace.ended is None or now - trace.ended <= timedelta(days=rules.days) or trace.ended == newest
        if is_young:
            stays |= trace.made
        if trace.ended is None:
            bundles |= {bundle: f"run {trace.run_id} needs it" for bundle in trace.needed if bundle not in bundles}
        if not is_young:
            goes |= trace.made
            if trace.run_id in released:
                stays |= trace.lasting
            else:
                runs.append(trace.run_id)
    stays |= {(BUNDLES, bundle) for bundle in bundles}
    return Sweep(kept=bundles, folders=tuple(sorted(goes - stays)), runs=tuple(sorted(runs)))


def advertised(store: Store, recipe: str) -> dict[str, str]:
    """Bundle -> why it stays: servers are told to serve it.

    Raises:
        ContractError: the newest assignment is damaged.
    """
    newest = store.names(f"{ASSIGNMENTS}/{recipe}")[-1:]
    found = [Assignment.parse(store.get(name) or "", name) for name in newest]
    return {share.bundle: "servers are told to serve it" for assignment in found for share in assignment.shares}


def carry_out(ledger: Ledger, seen_number: int, sweep: Sweep) -> list[Folder]:
    """Remove the folders that may go; returns those that were there. Safe to repeat, also after a crash at any point.

    Raises:
        RetryableError: the ledger has grown since entry `seen_number`: what was right to remove then may be needed now.
    """
    there = {kind: set(ledger.store.folders(kind)) for kind in {kind for kind, _ in sweep.folders}}
    removed: list[Folder] = []
    for kind, digest in sweep.folders:
        if digest not in there[kind]:
            continue
        if ledger.last_number() != seen_number:
            raise RetryableError(f"gc: the ledger grew after entry {seen_number}; {len(removed)} folders removed, run again")
        if remove(ledger.store, kind, digest):
            removed.append((kind, digest))
    return removed
