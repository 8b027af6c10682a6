from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tidewheel.contracts.ledger import Decision, LedgerEntry
from tidewheel.contracts.verdict import Phase, Verdict
from tidewheel.errors import ContractError, RetryableError
from tidewheel.registry import Ledger
from tidewheel.store import Store


def an_entry(number: int, bundle: str, previous: str | None) -> LedgerEntry:
    """The release of `bundle` in hour `number`."""
    return LedgerEntry(
        number=number,
        time=datetime(2026, 1, 5, tzinfo=UTC) + timedelta(hours=number),
        decision=Decision.PROMOTED if previous else Decision.BOOTSTRAP,
        recipe="quickstart",
        run_id=f"run-{number}",
        window=None,
        bundle=bundle,
        production=bundle,
        previous=previous,
        teacher=previous,
        generation=number - 1,
        feature_digest="f",
        verdict=Verdict(phase=Phase.SUCCESSFUL),
        reason="",
    )


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(str(tmp_path))


def test_entries_come_back_in_order(store: Store) -> None:
    ledger = Ledger(store, "quickstart")
    assert ledger.entries() == ()
    assert ledger.production() is None
    made = [ledger.append(an_entry(1, "a", None)), ledger.append(an_entry(2, "b", "a"))]
    assert Ledger(store, "quickstart").entries() == tuple(made)
    assert ledger.production() == "b"
    assert ledger.at(made[0].time) == "a"


def test_a_number_is_given_once(store: Store) -> None:
    ledger = Ledger(store, "quickstart")
    ledger.append(an_entry(1, "a", None))
    with pytest.raises(RetryableError, match="exists already"):
        ledger.append(an_entry(1, "b", None))
    assert ledger.production() == "a"


def test_of_many_writers_at_once_one_wins_and_the_others_are_told(store: Store) -> None:
    results: list[str] = []
    barrier = threading.Barrier(8)

    def write(name: str) -> None:
        barrier.wait()
        try:
            results.append(Ledger(store, "quickstart").append(an_entry(1, name, None)).bundle)
        except RetryableError:
            results.append("")

    threads = [threading.Thread(target=write, args=(name,)) for name in "abcdefgh"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 8
    assert [bundle for bundle in results if bundle] == [Ledger(store, "quickstart").production()]


def test_an_entry_that_skips_a_number_or_another_production_is_refused(store: Store) -> None:
    ledger = Ledger(store, "quickstart")
    with pytest.raises(ContractError, match="does not follow"):
        ledger.append(an_entry(2, "a", None))
    ledger.append(an_entry(1, "a", None))
    with pytest.raises(ContractError, match="served before it, found a"):
        ledger.append(an_entry(2, "c", "b"))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / "000001.json").unlink(), "000001.json is missing"),
        (lambda folder: (folder / "000002.json").write_text('{"schema": "tid'), "000002.json"),
        (lambda folder: (folder / "000002.json").write_text((folder / "000001.json").read_text()), "holds entry 1"),
        (lambda folder: (folder / "notes.txt").write_text("x"), "notes.txt is no entry"),
    ],
)
def test_nothing_is_decided_on_a_damaged_ledger(store: Store, damage, message: str) -> None:
    ledger = Ledger(store, "quickstart")
    ledger.append(an_entry(1, "a", None))
    ledger.append(an_entry(2, "b", "a"))
    damage(store.root / "ledger" / "quickstart")
    with pytest.raises(ContractError, match=message):
        ledger.production()
    with pytest.raises(ContractError, match=message):
        ledger.append(an_entry(3, "c", "b"))
