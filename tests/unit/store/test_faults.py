"""A store that errs, breaks off or falls silent: asked again with patience, then given up in one line. Nothing is lost or
doubled. What is slept is noted, not slept; only silence takes real time."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.store.backing import BucketBacking, publish
from tests.unit.store.conftest import client
from tests.unit.store.unreliable import Fault, UnreliableStore
from tidewheel.contracts.base import digest_of
from tidewheel.contracts.dataset import DatasetManifest, FileEntry
from tidewheel.errors import ConfigError, ContractError, RetryableError
from tidewheel.store import MANIFEST, Store, Verification
from tidewheel.store.objects import Patience
from tidewheel.store.s3 import S3Store

ATTEMPTS = 4
ERRORS = [Fault.INTERNAL_ERROR, Fault.UNAVAILABLE, Fault.SLOW_DOWN]
BREAKS = [Fault.RESET, Fault.LOST_ANSWER]  # on a connection that was used before, the transport itself asks once more
PASSING = [*ERRORS, *BREAKS]
SILENT = [Fault.STALL, Fault.DEAF]


@pytest.fixture
def waits() -> list[float]:
    return []


Open = Callable[..., Store]


@pytest.fixture
def open_store(bucket: str, tmp_path: Path, waits: list[float]) -> Open:
    """Opens the store with four attempts and waits that are noted; `patience`: what else differs."""

    def open_store(machine: str = "this machine", **patience: float) -> Store:
        patient = Patience(attempts=ATTEMPTS, sleep=waits.append, **patience)
        return S3Store.at(bucket, tmp_path / machine, Verification(), patient)

    return open_store


@pytest.fixture
def behind(bucket: str, object_server: tuple[str, int]) -> BucketBacking:
    name, prefix = bucket.removeprefix("s3://").split("/")
    return BucketBacking(client(object_server), name, prefix)


@pytest.mark.parametrize("failures", [1, ATTEMPTS - 1])
@pytest.mark.parametrize("fault", PASSING, ids=lambda fault: fault.name.lower())
def test_a_store_that_fails_for_a_while_loses_and_doubles_nothing(
    door: UnreliableStore, open_store: Open, behind: BucketBacking, waits: list[float], fault: Fault, failures: int
) -> None:
    def troubled(verb: Callable[[], object]) -> object:
        door.fail_next(*[fault] * failures)
        return verb()

    store = troubled(open_store)
    digest = troubled(lambda: publish(store, a="rows", b="more rows"))
    assert troubled(lambda: store.create("ledger/1.json", "first")) is True
    assert troubled(lambda: store.create("ledger/1.json", "second")) is False
    troubled(lambda: store.put("documents/1.json", "text"))
    folder, manifest = troubled(lambda: open_store("another machine").load("datasets", digest, DatasetManifest))

    assert {path.name: path.read_text() for path in folder.glob("*.parquet")} == {"a.parquet": "rows", "b.parquet": "more rows"}
    assert len(manifest.files) == 2
    assert troubled(lambda: store.get("ledger/1.json")) == "first"
    assert troubled(lambda: store.names("ledger")) == ["ledger/1.json"]
    assert behind.names() == {
        "store.json",
        "ledger/1.json",
        "documents/1.json",
        *(f"datasets/{digest}/{name}" for name in ("a.parquet", "b.parquet", MANIFEST)),
    }
    assert len(waits) == 8 * failures if fault in ERRORS else len(waits) <= 8 * failures


@pytest.mark.parametrize("fault", [*PASSING, Fault.HALF_ANSWER], ids=lambda fault: fault.name.lower())
def test_a_store_that_never_recovers_is_given_up_in_one_line(
    door: UnreliableStore, open_store: Open, bucket: str, fault: Fault
) -> None:
    store = open_store()
    store.put("documents/1.json", "text")
    door.fail_always(fault)
    before = len(door.seen)

    with pytest.raises(RetryableError) as raised:
        store.get("documents/1.json")

    asked = len(door.seen) - before
    assert asked == ATTEMPTS if fault in ERRORS else ATTEMPTS <= asked <= 2 * ATTEMPTS
    assert str(raised.value).startswith(f"store {bucket}: read documents/1.json failed in 4 attempts (")
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("fault", SILENT, ids=lambda fault: fault.name.lower())
def test_a_silent_store_is_waited_for_so_long_and_no_longer(door: UnreliableStore, open_store: Open, fault: Fault) -> None:
    store = open_store(silence_seconds=0.2, attempt_seconds=1.0)
    door.fail_always(fault)

    for verb in (lambda: store.get("ledger/1.json"), lambda: store.names("ledger"), lambda: store.create("ledger/1.json", "x")):
        with pytest.raises(RetryableError, match="in 4 attempts"):
            verb()


def test_a_store_that_reads_nothing_of_a_large_upload_is_given_up(door: UnreliableStore, open_store: Open) -> None:
    store = open_store(attempt_seconds=0.2, slowest_bytes_per_second=2.0**30)
    door.rule = lambda method, path: Fault.DEAF if "parquet" in path else None

    with pytest.raises(RetryableError, match=r"upload datasets/.*part\.parquet failed in 4 attempts \(no answer in time\)"):
        publish(store, part="r" * 2**24)


def test_a_download_that_falls_silent_halfway_is_begun_again(door: UnreliableStore, open_store: Open) -> None:
    digest = publish(open_store(), part="rows" * 1000)
    reader = open_store("another machine", silence_seconds=0.5)
    faults = [Fault.STALLED_ANSWER, Fault.HALF_ANSWER]
    door.rule = lambda method, path: faults.pop() if faults and method == "GET" and "part" in path else None

    folder = reader.fetch("datasets", digest, full=True)

    assert (folder / "part.parquet").read_text() == "rows" * 1000
    assert faults == []


def test_a_folder_given_up_halfway_is_not_there_and_is_whole_after_another_try(
    door: UnreliableStore, open_store: Open, behind: BucketBacking
) -> None:
    store = open_store()
    door.rule = lambda method, path: Fault.SLOW_DOWN if path.endswith("b.parquet") else None

    with pytest.raises(RetryableError, match=r"b\.parquet failed in 4 attempts \(SlowDown, HTTP 503\)"):
        publish(store, a="rows", b="more rows")
    assert not any(name.endswith(MANIFEST) for name in behind.names())

    door.recover()
    digest = publish(store, a="rows", b="more rows")
    store.verify("datasets", digest)


def test_uploads_that_nobody_finished_are_swept_and_finished_ones_are_not(
    door: UnreliableStore, open_store: Open, behind: BucketBacking
) -> None:
    store = open_store()
    whole = publish(store)
    door.rule = lambda method, path: Fault.SLOW_DOWN if path.endswith(MANIFEST) else None
    with pytest.raises(RetryableError):
        publish(store, unfinished="rows")
    door.rule = lambda method, path: Fault.SLOW_DOWN if method == "DELETE" else None
    with pytest.raises(RetryableError):
        publish(store, noted="rows")  # whole, only the note that it was at work is left
    door.recover()
    parts = {name.rsplit("/", 1)[1]: name.rsplit("/", 1)[0] for name in behind.names() if name.endswith(".parquet")}
    assert set(parts) == {"part.parquet", "unfinished.parquet", "noted.parquet"}

    assert store.sweep(now=0.0) == 0
    assert store.sweep(now=4e9) == 2

    left = [f"{parts[name]}/{file}" for name in ("part.parquet", "noted.parquet") for file in (name, MANIFEST)]
    assert behind.names() == {"store.json", *left}
    store.verify("datasets", whole)


def test_waits_double_up_to_a_limit_and_are_drawn_at_random(
    door: UnreliableStore, bucket: str, tmp_path: Path, waits: list[float]
) -> None:
    patient = Patience(attempts=9, first_wait_seconds=1.0, longest_wait_seconds=10.0, sleep=waits.append)
    store = S3Store.at(bucket, tmp_path, Verification(), patient)
    door.fail_always(Fault.SLOW_DOWN)

    with pytest.raises(RetryableError, match="in 9 attempts"):
        store.get("x.json")

    limits = [1.0, 2.0, 4.0, 8.0, 10.0, 10.0, 10.0, 10.0]
    assert len(waits) == len(limits)
    assert all(0.0 <= wait <= limit for wait, limit in zip(waits, limits, strict=True))
    assert len(set(waits)) == len(waits)


def test_a_refusal_is_not_asked_again(door: UnreliableStore, open_store: Open, waits: list[float]) -> None:
    store = open_store()
    door.fail_always(Fault.DENIED)

    with pytest.raises(ConfigError, match=r"refuses to write documents/1\.json \(AccessDenied, HTTP 403\)"):
        store.put("documents/1.json", "text")
    assert waits == []


def test_a_name_that_is_taken_is_no_refusal_however_the_store_says_so(door: UnreliableStore, open_store: Open) -> None:
    store = open_store()
    assert store.create("ledger/1.json", "first")
    door.rule = lambda method, path: Fault.TAKEN if method == "PUT" else None

    assert not store.create("ledger/1.json", "second")
    assert open_store("another machine").get("ledger/1.json") == "first"


def test_a_store_that_overwrites_despite_the_condition_is_no_store(door: UnreliableStore, open_store: Open) -> None:
    door.honours_conditions = False

    with pytest.raises(ConfigError, match="If-None-Match"):
        open_store()


def test_a_bucket_that_is_not_there_and_an_address_without_one_are_named(
    door: UnreliableStore, tmp_path: Path, bucket: str
) -> None:
    with pytest.raises(ConfigError, match=r"s3://nowhere/x: .*NoSuchBucket"):
        Store.open("s3://nowhere/x", tmp_path)
    with pytest.raises(ConfigError, match="names no bucket"):
        Store.open("s3:///x", tmp_path)


def test_a_manifest_may_not_lead_out_of_its_folder(open_store: Open, behind: BucketBacking) -> None:
    manifest = open_store().load("datasets", publish(open_store()), DatasetManifest)[1]
    entry = FileEntry(path="../../escaped", bytes=4, sha256="0" * 64)
    leading = manifest.model_copy(update={"files": (entry,)})
    behind.write(f"datasets/{digest_of(leading)}/{MANIFEST}", leading.to_json().encode())

    with pytest.raises(ContractError, match=r"\.\./\.\./escaped leads out of the folder"):
        open_store("another machine").fetch("datasets", digest_of(leading))


troubles = st.lists(st.sampled_from([None, *PASSING, Fault.HALF_ANSWER]), max_size=25)


def test_whatever_fails_in_whatever_order_each_entry_has_one_writer(
    door: UnreliableStore, open_store: Open, behind: BucketBacking
) -> None:
    """Two writers race for two entries through a store that fails at will; a writer who gave up may have written or not."""
    writers = [open_store("one"), open_store("two")]

    @settings(max_examples=25, deadline=None)
    @given(faults=troubles, tries=st.lists(st.tuples(st.integers(0, 1), st.integers(1, 2)), min_size=1, max_size=6))
    def race(faults: list[Fault | None], tries: list[tuple[int, int]]) -> None:
        for name in behind.names():
            behind.delete(name)
        left = list(faults)
        door.rule = lambda method, path: left.pop() if left else None
        won: dict[str, list[str]] = {"ledger/1.json": [], "ledger/2.json": []}
        in_doubt: dict[str, list[str]] = {"ledger/1.json": [], "ledger/2.json": []}
        for number, (writer, entry) in enumerate(tries):
            name, text = f"ledger/{entry}.json", f"try {number}"
            try:
                if writers[writer].create(name, text):
                    won[name].append(text)
            except RetryableError:
                in_doubt[name].append(text)
        door.recover()

        for name, winners in won.items():
            assert len(winners) <= 1
            assert writers[0].get(name) in (winners or [*in_doubt[name], None])

    race()
