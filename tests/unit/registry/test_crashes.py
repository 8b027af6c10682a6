"""A decision whose process is killed between any two writes: `reconcile` makes up for the rest."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.unit.registry.memory import DyingRegistry, DyingStore, Fuse, Killed, MemoryRegistry
from tidewheel.contracts.bundle import BundleManifest
from tidewheel.contracts.ledger import AfterRollback
from tidewheel.contracts.verdict import Phase, Reason, Verdict
from tidewheel.ranker import OpenBundle
from tidewheel.registry import Ledger, MlflowRegistry, Registry, quarantine, reconcile, release, resume, rollback
from tidewheel.store import Verification

NOW = datetime(2026, 1, 12, tzinfo=UTC)
GOOD = Verdict(phase=Phase.SUCCESSFUL)
BAD = Verdict(phase=Phase.FAILED, reasons=(Reason(check="x", phase=Phase.FAILED, message="3 > limit 2"),))
UNCUT = 10_000

Act = Callable[[Ledger, Registry, BundleManifest], object]


def tried(bundle: str, verdict: Verdict = GOOD) -> Act:
    """A run's decision on its candidate after a canary; the run pins its baseline right before."""

    def act(ledger: Ledger, registry: Registry, manifest: BundleManifest) -> object:
        by = {"run_id": f"run-{bundle}", "retraining": AfterRollback.PAUSE, "clock": lambda: NOW}
        seen = len([entry for entry in ledger.entries() if entry.bundle != bundle])
        return release(
            ledger, registry, bundle=bundle, manifest=manifest, verdict=verdict, is_canaried=True, seen_number=seen, **by
        )

    return act


def reverted(ledger: Ledger, registry: Registry, manifest: BundleManifest) -> object:
    return rollback(ledger, registry, reason="complaints", clock=lambda: NOW)


def quarantined(ledger: Ledger, registry: Registry, manifest: BundleManifest) -> object:
    return quarantine(ledger, registry, bundle="a", reason="wrong labels", clock=lambda: NOW)


def resumed(ledger: Ledger, registry: Registry, manifest: BundleManifest) -> object:
    return resume(ledger, registry, reason="found it", clock=lambda: NOW)


# Decision -> what came before, and it.
CASES: dict[str, tuple[list[Act], Act]] = {
    "bootstrap": ([], tried("a")),
    "promoted": ([tried("a")], tried("b")),
    "rolled_back": ([tried("a"), tried("b")], tried("c", BAD)),
    "reverted": ([tried("a"), tried("b"), tried("c")], reverted),
    "quarantined": ([tried("a"), tried("b")], quarantined),
    "resumed": ([tried("a"), tried("b"), reverted], resumed),
}


@dataclass(frozen=True)
class Left:
    """Everything that follows from the ledger."""

    ledger: tuple[str, ...]
    assignment: str | None
    state: str | None
    versions: dict[str, dict[str, str]]
    aliases: dict[str, str]


def left(store: DyingStore, registry: Registry) -> Left:
    ledger, assignments = store.names("ledger/quickstart"), store.names("assignments/quickstart")
    return Left(
        ledger=tuple(store.get(name) or "" for name in ledger),
        assignment=store.get(assignments[-1]) if assignments else None,
        state=store.get("state/quickstart.json"),
        versions={
            bundle: {name: value for name, value in tags.items() if name != "tidewheel.digest"}  # a mark of MLflow's door
            for bundle, tags in registry.versions().items()
        },
        aliases=registry.aliases(),
    )


def turned(root: Path, registry: Registry, case: str, manifest: BundleManifest, writes: int) -> tuple[bool, DyingStore]:
    """The case with its last decision killed before the write after so many; whether it was, and its store."""
    store, fuse = DyingStore.at(root, Verification()), Fuse(UNCUT)
    store.fuse = fuse
    ledger, dying = Ledger(store, "quickstart"), DyingRegistry(registry, fuse)
    before, last = CASES[case]
    for act in before:
        act(ledger, dying, manifest)
    fuse.left = writes
    try:
        last(ledger, dying, manifest)
    except Killed:
        fuse.left = UNCUT
        return True, store
    fuse.left = UNCUT
    return False, store


def check_every_write(root: Path, case: str, manifest: BundleManifest, registry: Callable[[str], Registry]) -> int:
    """Returns how many writes the decision takes."""
    whole = registry("whole")
    was_killed, store = turned(root / "whole", whole, case, manifest, UNCUT)
    assert not was_killed
    want = left(store, whole)
    assert reconcile(Ledger(store, "quickstart"), whole) == []
    for writes in range(UNCUT):
        cut = registry(f"cut-{writes}")
        was_killed, store = turned(root / f"cut-{writes}", cut, case, manifest, writes)
        if not was_killed:
            return writes
        ledger = Ledger(store, "quickstart")
        reconcile(ledger, cut)
        if writes == 0:  # nothing was decided: deciding again is not the second decision
            CASES[case][1](ledger, cut, manifest)
        assert left(store, cut) == want, f"killed after {writes} writes"
        assert reconcile(ledger, cut) == []
    raise AssertionError("it writes for ever")


@pytest.mark.parametrize("case", CASES)
def test_reconcile_ends_what_a_killed_decision_began(tmp_path: Path, case: str, tiny_bundle: OpenBundle) -> None:
    writes = check_every_write(tmp_path, case, tiny_bundle.manifest, lambda name: MemoryRegistry())

    assert writes >= 3  # the entry, the assignment, the state, and what changes in the registry


@pytest.mark.slow
@pytest.mark.parametrize("case", ["reverted", "promoted"])
def test_reconcile_ends_it_in_the_real_registry_too(tmp_path: Path, case: str, tiny_bundle: OpenBundle) -> None:
    database = f"sqlite:///{tmp_path / 'registry.db'}"

    writes = check_every_write(
        tmp_path, case, tiny_bundle.manifest, lambda name: MlflowRegistry(database, name, str(tmp_path / "bundles"))
    )

    assert writes >= 6


@pytest.mark.parametrize("case", ["bootstrap", "promoted", "rolled_back"])
def test_a_retry_of_the_killed_decision_decides_nothing_new(tmp_path: Path, case: str, tiny_bundle: OpenBundle) -> None:
    whole, cut = MemoryRegistry(), MemoryRegistry()
    want = left(turned(tmp_path / "whole", whole, case, tiny_bundle.manifest, UNCUT)[1], whole)
    was_killed, store = turned(tmp_path / "cut", cut, case, tiny_bundle.manifest, 1)
    assert was_killed

    CASES[case][1](Ledger(store, "quickstart"), cut, tiny_bundle.manifest)

    assert left(store, cut) == want


@pytest.mark.parametrize("case", CASES)
def test_a_killed_reconcile_is_ended_by_the_next(tmp_path: Path, case: str, tiny_bundle: OpenBundle) -> None:
    whole = MemoryRegistry()
    want = left(turned(tmp_path / "whole", whole, case, tiny_bundle.manifest, UNCUT)[1], whole)
    for writes in range(UNCUT):
        cut = MemoryRegistry()
        _, store = turned(tmp_path / f"cut-{writes}", cut, case, tiny_bundle.manifest, 1)  # the entry alone
        store.fuse.left = writes
        was_killed = False
        try:
            reconcile(Ledger(store, "quickstart"), DyingRegistry(cut, store.fuse))
        except Killed:
            was_killed = True
        store.fuse.left = UNCUT
        reconcile(Ledger(store, "quickstart"), cut)
        assert left(store, cut) == want, f"reconcile killed after {writes} writes"
        if not was_killed:
            return
