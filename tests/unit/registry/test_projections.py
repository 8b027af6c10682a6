"""What follows from the ledger, each projection by itself."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.unit.contracts.test_ledger import history
from tests.unit.registry.memory import MemoryRegistry
from tidewheel.contracts.assignment import Assignment
from tidewheel.contracts.ledger import Decision, LedgerEntry
from tidewheel.contracts.state import ReleaseState
from tidewheel.errors import ContractError, RetryableError
from tidewheel.ranker import OpenBundle
from tidewheel.registry import Ledger, reconcile
from tidewheel.registry.assignment import assignment_after
from tidewheel.registry.projections import project
from tidewheel.registry.state import StateProjection, state_after
from tidewheel.registry.traffic import AssignmentProjection
from tidewheel.registry.versions import RegistryProjection, wanted_versions
from tidewheel.store import Store

ENTRIES = history([("bootstrap", "a", None), ("promoted", "b", "a"), ("rejected", "x", "b"), ("rolled_back", "y", "b")])


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(str(tmp_path))


@pytest.fixture
def ledger(store: Store) -> Ledger:
    made = Ledger(store, "quickstart")
    for entry in ENTRIES:
        made.append(entry)
    return made


# --- traffic ---


def test_production_serves_everybody_and_before_the_first_release_nobody_does() -> None:
    found = assignment_after(ENTRIES)

    assert found is not None
    assert (found.number, [(share.bundle, share.share) for share in found.shares]) == (4, [("b", 1.0)])
    assert assignment_after(()) is None
    assert assignment_after(history([("rejected", "x", None)])) is None


def test_the_assignment_of_the_last_entry_is_written_once_and_made_right(store: Store) -> None:
    projection = AssignmentProjection(store)
    assert projection.repair(ENTRIES) == ["assignment 4: b serves 100%"]
    assert projection.repair(ENTRIES) == []
    store.put("assignments/quickstart/000004.json", "{")
    assert projection.repair(ENTRIES) == ["assignment 4: written over; b serves 100%"]
    assert Assignment.parse(store.get("assignments/quickstart/000004.json") or "", "x").bundle_of(7) == "b"


def test_an_assignment_that_is_ahead_of_the_ledger_is_not_passed_over(store: Store) -> None:
    store.create("assignments/quickstart/000009.json", "{}")

    with pytest.raises(ContractError, match=r"000009.json: the ledger ends with entry 4; remove the record"):
        AssignmentProjection(store).repair(ENTRIES)


# --- the state ---


def test_the_state_names_what_serves_what_it_takes_and_who_teaches(tiny_bundle: OpenBundle) -> None:
    found = state_after(ENTRIES, tiny_bundle.manifest)

    assert (found.number, found.production, found.previous) == (4, "b", "a")
    assert found.teachers == ("b", "a")
    assert found.not_teaching == {"y": "rolled back by its canary (entry 4)"}
    assert found.served is not None
    assert found.served.feature_digest == tiny_bundle.manifest.feature_digest
    assert found.served.features[:2] == ("user_id", "user_segment")
    calibrators = next(file for file in tiny_bundle.manifest.files if file.path == "ranker/calibrators.json")
    assert found.served.calibrators == {"ranker": calibrators.sha256}


def test_the_state_says_that_the_manifest_of_production_is_lost(store: Store) -> None:
    assert StateProjection(store).repair(ENTRIES) == ["state: entry 4, b serves, retraining open"]
    assert ReleaseState.parse(store.get("state/quickstart.json") or "", "x").served is None
    assert StateProjection(store).repair(ENTRIES) == []


# --- the registry ---


def test_a_version_says_whether_its_bundle_teaches() -> None:
    found = wanted_versions(history([("bootstrap", "a", None), ("promoted", "b", "a"), ("quarantined", "a", None)]))

    assert found["a"]["tidewheel.teaches"].startswith("no: quarantined (entry 3")
    assert found["b"]["tidewheel.teaches"].startswith("no: learned from a, which was quarantined")
    assert (found["b"]["tidewheel.decision"], found["b"]["tidewheel.ledger"]) == ("promoted", "2")


def test_a_candidate_without_traffic_is_no_version() -> None:
    assert list(wanted_versions(ENTRIES)) == ["a", "b", "y"]


def test_a_tag_is_no_longer_than_a_registry_takes() -> None:
    chain: list[tuple[str, str, str | None]] = [("bootstrap", "b0", None)]
    chain += [("promoted", f"b{number}", f"b{number - 1}") for number in range(1, 60)]

    found = wanted_versions(history([*chain, ("quarantined", "b0", None)]))

    assert len(found["b59"]["tidewheel.teaches"]) == 500


def test_versions_come_before_aliases_and_only_what_is_wrong_is_changed() -> None:
    registry = MemoryRegistry()
    projection = RegistryProjection(registry)
    assert projection.repair(ENTRIES) == [
        "version a: registered, teaches yes",
        "version b: registered, teaches yes",
        "version y: registered, teaches no: rolled back by its canary (entry 4)",
        "alias production: none → b",
        "alias previous: none → a",
    ]
    registry.known["a"]["tidewheel.teaches"] = "no"
    registry.known["b"]["tidewheel.run_id"] = "somebody"
    assert projection.repair(ENTRIES) == ["version a: teaches yes", "version b: tags of entry 2"]


# --- all of them ---


def test_one_that_fails_holds_up_no_other_and_is_named(ledger: Ledger, store: Store) -> None:
    registry = MemoryRegistry()
    registry.dies_at = "aliases"
    store.create("assignments/quickstart/000009.json", "{}")

    with pytest.raises(RetryableError, match=r"assignment: ContractError: .*registry: ConnectionError: .*repaired: state"):
        reconcile(ledger, registry)

    assert store.get("state/quickstart.json") is not None
    assert set(registry.known) == {"a", "b", "y"}


def test_an_entry_that_another_process_appends_meanwhile_is_projected_too(ledger: Ledger, store: Store) -> None:
    class Rival:
        """Decides while we project."""

        name = "rival"

        def repair(self, entries: Sequence[LedgerEntry]) -> list[str]:
            if len(entries) == 4:
                ledger.append(
                    entries[-1].model_copy(
                        update={"number": 5, "decision": Decision.REVERTED, "bundle": "a", "production": "a"}
                    )
                )
            return []

    repaired, faults = project(ledger, [StateProjection(store), Rival()])

    assert faults == []
    assert repaired == ["state: entry 4, b serves, retraining open", "state: entry 5, a serves, retraining open"]
