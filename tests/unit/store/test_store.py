from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from tidewheel.contracts.dataset import DatasetManifest
from tidewheel.contracts.window import Window, parse_time
from tidewheel.errors import ConfigError, ContractError
from tidewheel.store import MANIFEST, Store

MANIFEST_OF = DatasetManifest(
    kind="train",
    window=Window.ending(parse_time("2026-01-12"), 7),
    rows=2,
    weight_sum=2.0,
    features=(),
    labels=("click",),
)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(str(tmp_path / "store"))


def publish(store: Store, text: str = "rows") -> str:
    folder = store.staging("train")
    (folder / "part-0.parquet").write_text(text)
    return store.publish("datasets", folder, MANIFEST_OF)[0]


def test_a_folder_is_named_by_its_content(store: Store) -> None:
    assert publish(store, "one") == publish(store, "one")
    assert publish(store, "one") != publish(store, "two")


def test_publishing_again_leaves_nothing_in_staging(store: Store) -> None:
    publish(store)
    publish(store)

    assert list((store.root / "staging").iterdir()) == []


def test_what_was_published_loads_with_its_files(store: Store) -> None:
    folder, manifest = store.load("datasets", publish(store), DatasetManifest, full=True)

    assert [entry.path for entry in manifest.files] == ["part-0.parquet"]
    assert (folder / "part-0.parquet").read_text() == "rows"


def test_what_a_killed_step_left_is_swept_and_what_is_at_work_is_not(store: Store) -> None:
    left, at_work = store.staging("train"), store.staging("train")
    os.utime(left, (0, 0))
    now = at_work.stat().st_mtime

    assert store.sweep(now) == 1
    assert not left.exists()
    assert at_work.exists()


def test_a_folder_without_a_manifest_is_not_there(store: Store) -> None:
    digest = publish(store)
    (store.folder("datasets", digest) / MANIFEST).unlink()

    with pytest.raises(ContractError, match=r"manifest\.json"):
        store.load("datasets", digest, DatasetManifest)


def test_a_folder_left_half_made_is_made_whole_by_publishing_again(store: Store) -> None:
    digest = publish(store)
    (store.folder("datasets", digest) / MANIFEST).unlink()

    assert publish(store) == digest
    store.load("datasets", digest, DatasetManifest, full=True)


def test_a_deleted_file_is_noticed(store: Store) -> None:
    digest = publish(store)
    (store.folder("datasets", digest) / "part-0.parquet").unlink()

    with pytest.raises(ContractError, match=r"part-0\.parquet is missing"):
        store.verify("datasets", digest)


def test_one_flipped_byte_is_noticed_by_a_full_check(store: Store) -> None:
    digest = publish(store, "rows")
    (store.folder("datasets", digest) / "part-0.parquet").write_text("rowz")

    store.load("datasets", digest, DatasetManifest)
    with pytest.raises(ContractError, match="does not match its digest"):
        store.load("datasets", digest, DatasetManifest, full=True)


def test_a_manifest_that_was_edited_is_refused(store: Store) -> None:
    digest = publish(store)
    path = store.folder("datasets", digest) / MANIFEST
    path.write_text(path.read_text().replace('"rows": 2', '"rows": 3'))

    with pytest.raises(ContractError, match="digest in the folder's name"):
        store.load("datasets", digest, DatasetManifest)


def test_of_many_writers_of_one_record_exactly_one_wins(store: Store) -> None:
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


def test_a_store_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("in the way")

    with pytest.raises(ConfigError, match="cannot be written"):
        Store.open(str(blocked / "store"))


def test_an_unsupported_scheme_is_refused_by_name() -> None:
    with pytest.raises(ConfigError, match="s3://bucket"):
        Store.open("s3://bucket/x")
