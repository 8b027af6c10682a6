"""What a store promises, whether it is a folder or a bucket, of moto or of SeaweedFS."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pytest

from tests.unit.store.backing import Backing, BucketBacking, FolderBacking, publish
from tests.unit.store.conftest import client
from tidewheel.contracts.dataset import DatasetManifest
from tidewheel.contracts.evidence import Baseline
from tidewheel.errors import ConfigError, ContractError
from tidewheel.store import MANIFEST, Store, Verification


@dataclass(frozen=True)
class Place:
    """A store, who opens it from another machine, and what lies behind it."""

    open: Callable[[str], Store]
    store: Store
    behind: Backing


@pytest.fixture(params=["folder", "moto", "seaweedfs"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    if request.param == "folder":
        root = tmp_path / "store"
        return Place(lambda machine: Store.open(str(root)), Store.open(str(root)), FolderBacking(root))
    if request.param == "seaweedfs":
        bucket, behind = request.getfixturevalue("weed_place")
    else:
        bucket = request.getfixturevalue("bucket")
        behind = BucketBacking(client(request.getfixturevalue("object_server")), *bucket.removeprefix("s3://").split("/"))
    return Place(lambda machine: Store.open(bucket, tmp_path / machine), Store.open(bucket, tmp_path / "this machine"), behind)


def test_a_folder_is_named_by_its_content(place: Place) -> None:
    assert publish(place.store, part="one") == publish(place.store, part="one")
    assert publish(place.store, part="one") != publish(place.store, part="two")


def test_publishing_again_leaves_nothing_in_staging(place: Place) -> None:
    publish(place.store)
    before = place.behind.names()
    publish(place.store)

    assert place.behind.names() == before
    assert not any(name.startswith("staging") for name in before)
    probe = place.store.staging("train")
    assert list(probe.parent.iterdir()) == [probe]


def test_what_was_published_loads_with_its_files(place: Place) -> None:
    digest = publish(place.store, a="rows", b="more rows")

    folder, manifest = place.store.load("datasets", digest, DatasetManifest, full=True)

    assert [(entry.path, entry.bytes) for entry in manifest.files] == [("a.parquet", 4), ("b.parquet", 9)]
    assert (folder / "a.parquet").read_text() == "rows"
    assert folder == place.store.folder("datasets", digest)


def test_another_machine_reads_the_same_bytes(place: Place) -> None:
    digest = publish(place.store, a="rows", b="more rows")

    folder, _ = place.open("another machine").load("datasets", digest, DatasetManifest)

    assert {path.name: path.read_text() for path in folder.glob("*.parquet")} == {"a.parquet": "rows", "b.parquet": "more rows"}


def test_a_manifest_of_another_contract_is_refused(place: Place) -> None:
    digest = publish(place.store)

    with pytest.raises(ContractError, match=r"manifest\.json"):
        place.store.load("datasets", digest, Baseline)


def test_what_a_killed_step_left_is_swept_and_what_is_at_work_is_not(place: Place) -> None:
    left, at_work = place.store.staging("train"), place.store.staging("train")
    os.utime(left, (0, 0))

    assert place.store.sweep(at_work.stat().st_mtime) == 1
    assert not left.exists()
    assert at_work.exists()


def test_work_that_ended_well_leaves_nothing_to_sweep(place: Place) -> None:
    publish(place.store)

    assert place.store.sweep(now=4e9) == 0


def test_a_folder_that_was_removed_is_not_listed_any_more(place: Place) -> None:
    stays, goes = publish(place.store, part="one"), publish(place.store, part="two")

    place.store.remove("datasets", goes)
    place.store.remove("datasets", goes)

    assert place.store.folders("datasets") == [stays]
    assert place.open("another machine").folders("datasets") == [stays]


def test_what_a_failed_step_staged_is_given_back_and_what_it_published_stays(place: Place) -> None:
    store = place.store
    digest, left, others = publish(store), store.staging("train"), place.open("this machine").staging("train")

    store.abandon()

    assert not left.exists()
    assert others.exists()
    store.load("datasets", digest, DatasetManifest)


def test_a_folder_without_a_manifest_is_not_there(place: Place) -> None:
    digest = publish(place.store)
    place.behind.delete(f"datasets/{digest}/{MANIFEST}")

    for look in (place.store.verify, place.store.fetch):
        with pytest.raises(ContractError, match=r"manifest\.json"):
            look("datasets", digest)


def test_a_folder_left_half_made_is_made_whole_by_publishing_again(place: Place) -> None:
    digest = publish(place.store)
    place.behind.delete(f"datasets/{digest}/{MANIFEST}")

    assert publish(place.store) == digest
    place.store.verify("datasets", digest)


def flip(data: bytes) -> bytes:
    return bytes([data[0] ^ 1]) + data[1:]


DAMAGE = {
    "is missing": lambda behind, name: behind.delete(name),
    "has 3 bytes, expected 4": lambda behind, name: behind.write(name, behind.read(name)[:3]),
    "does not match its digest": lambda behind, name: behind.write(name, flip(behind.read(name))),
}


@pytest.mark.parametrize("said", DAMAGE)
def test_damage_behind_its_back_is_noticed_and_healed_by_publishing_again(place: Place, said: str) -> None:
    digest = publish(place.store)
    DAMAGE[said](place.behind, f"datasets/{digest}/part.parquet")

    with pytest.raises(ContractError, match=rf"part\.parquet {said}"):
        place.store.verify("datasets", digest)
    with pytest.raises(ContractError, match=r"part\.parquet"):
        place.open("another machine").load("datasets", digest, DatasetManifest)

    assert publish(place.store) == digest
    place.store.verify("datasets", digest)
    assert place.behind.read(f"datasets/{digest}/part.parquet") == b"rows"


def test_a_manifest_that_was_edited_is_refused(place: Place) -> None:
    digest = publish(place.store)
    name = f"datasets/{digest}/{MANIFEST}"
    place.behind.write(name, place.behind.read(name).replace(b'"rows": 2', b'"rows": 3'))

    for look in (place.store.verify, place.store.fetch):
        with pytest.raises(ContractError, match="digest in the folder's name"):
            look("datasets", digest)


def test_of_many_writers_of_one_record_exactly_one_wins(place: Place) -> None:
    store = place.store
    won: list[int] = []

    def write(number: int) -> None:
        if store.create("ledger/000001.json", str(number)):
            won.append(number)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(won) == 1
    assert store.get("ledger/000001.json") == str(won[0])
    assert store.names("ledger") == ["ledger/000001.json"]


def test_records_are_replaced_listed_and_missed(place: Place) -> None:
    store = place.store
    for name in ("ledger/b/2.json", "ledger/b/1.json", "ledger/a/1.json"):
        store.put(name, "old")
    store.put("ledger/b/1.json", "new")

    assert store.get("ledger/b/1.json") == "new"
    assert store.folders("ledger") == ["a", "b"]
    assert store.get("ledger/c/1.json") is None
    assert store.names("ledger/b") == ["ledger/b/1.json", "ledger/b/2.json"]
    place.behind.delete("ledger/a/1.json")
    assert store.names("ledger/a") == []
    assert store.names("ledger/c") == store.names("ledger") == []
    assert store.folders("documents") == []


def test_a_listing_of_all_records_tells_when_each_was_written(place: Place) -> None:
    store = place.store
    for name in ("documents/a/1.json", "documents/a/b/2.json", "ledger/1.json"):
        store.put(name, "text")

    found = store.written("documents")

    assert set(found) == {"documents/a/1.json", "documents/a/b/2.json"}
    assert all(moment.utcoffset() == timedelta(0) for moment in found.values())
    assert store.written("nothing") == {}


def test_a_store_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("in the way")

    with pytest.raises(ConfigError, match="cannot be written"):
        Store.open(str(blocked / "store"))


def test_an_unsupported_scheme_is_refused_by_name() -> None:
    with pytest.raises(ConfigError, match=r"gs://bucket/x: this scheme is not supported"):
        Store.open("gs://bucket/x")


def test_a_store_may_be_opened_to_check_every_digest(place: Place, tmp_path: Path) -> None:
    assert place.store.verification == Verification()
    assert Store.open(str(tmp_path), verification=Verification.of("full")).verification.is_full
