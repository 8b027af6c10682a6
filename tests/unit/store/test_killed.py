"""A writer killed at any moment: readers find the old or the new, never half, and whoever writes next makes it whole."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.unit.store.backing import BucketBacking, publish
from tests.unit.store.conftest import client
from tests.unit.store.dying import NEW_ENTRY, NEW_TEXT, write
from tests.unit.store.unreliable import UnreliableStore
from tidewheel.contracts.dataset import DatasetManifest
from tidewheel.errors import ContractError
from tidewheel.store import MANIFEST, Store, Verification

FULL = Verification.of("full")
DRIVER = [sys.executable, "-m", "tests.unit.store.dying"]


def loads(store: Store, digest: str) -> bool:
    """Whether the folder is there; if it is, every byte must be."""
    try:
        store.verify("datasets", digest)
    except ContractError as error:
        if MANIFEST not in str(error):
            raise  # a manifest without its files
        return False
    store.load("datasets", digest, DatasetManifest, full=True)
    return True


def new_digest(tmp_path: Path) -> str:
    """What the killed writer's folder is called, from a store where nobody was killed."""
    return publish(Store.open(str(tmp_path / "elsewhere")), a="new rows", b="more new rows")


def made_before(store: Store) -> str:
    store.put("documents/1.json", "old")
    store.create("ledger/1.json", "first entry")
    return publish(store, part="old rows")


def check_what_is_left(store: Store, old: str, new: str) -> tuple[bool, bool, bool]:
    """The old stands, the new is whole or not there, and writing again ends as if nobody had died; what was new already."""
    assert loads(store, old)
    assert store.get("ledger/1.json") == "first entry"
    assert store.get("documents/1.json") in ("old", NEW_TEXT)
    assert store.get("ledger/2.json") in (None, NEW_ENTRY)
    assert store.names("ledger")[0] == "ledger/1.json"
    found = loads(store, new), store.get("documents/1.json") == NEW_TEXT, store.get("ledger/2.json") == NEW_ENTRY

    write(store)

    assert loads(store, new)
    assert loads(store, old)
    assert (store.get("documents/1.json"), store.get("ledger/2.json")) == (NEW_TEXT, NEW_ENTRY)
    return found


@pytest.mark.parametrize("damage", [None, "lost", "shortened"])
def test_a_folder_store_whose_writer_is_killed_at_any_line_or_call(tmp_path: Path, damage: str | None) -> None:
    root, new = tmp_path / "store", new_digest(tmp_path)
    store = Store.open(str(root))
    old = made_before(store)
    if damage is not None:  # the folder is there already and has to be healed
        publish(store, a="new rows", b="more new rows")
        part = root / "datasets" / new / "a.parquet"
        part.unlink() if damage == "lost" else part.write_text("new")

    subprocess.run([*DRIVER, "lines", str(root)], check=True, timeout=300)

    left = sorted(root.parent.glob("store.*"), key=lambda path: int(path.suffix[1:]))
    assert len(left) > 50
    found = []
    for copy in left:
        killed = Store.open(str(copy), verification=FULL)
        if damage is None:
            found.append(check_what_is_left(killed, old, new))
        else:
            assert loads(killed, old)
            write(killed)
            assert loads(killed, new)
        killed.sweep(now=4e9)
        assert list((copy / "staging").iterdir()) == []
    if damage is None:
        assert found[0] == (False, False, False)
        assert found[-1] == (True, True, True)
        assert found == sorted(found), "what was written once is not lost when the writer dies later"


@pytest.fixture
def object_server(weed: dict[str, str]) -> tuple[str, int]:
    """SeaweedFS in place of moto: what is left has to be whole where clusters keep it."""
    place = urlsplit(weed["AWS_ENDPOINT_URL"])
    assert place.hostname is not None
    assert place.port is not None
    return place.hostname, place.port


@pytest.fixture
def bucket() -> str:
    return "s3://wheel/killed"


@pytest.fixture
def driver(door: UnreliableStore, bucket: str) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen([*DRIVER, "told", bucket], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0)
    yield process
    process.stdin.close()
    process.wait(60)


@pytest.mark.slow
def test_a_bucket_whose_writer_is_killed_before_or_after_any_request(
    door: UnreliableStore,
    bucket: str,
    object_server: tuple[str, int],
    driver: subprocess.Popen[bytes],
    tmp_path: Path,
) -> None:
    new = new_digest(tmp_path)
    behind = BucketBacking(client(object_server), *bucket.removeprefix("s3://").split("/"))
    store = Store.open(bucket, tmp_path / "survivor", FULL)
    old = made_before(store)
    before = {name: behind.read(name) for name in behind.names()}

    found, died, request = [], True, 0
    while died:
        request += 1
        for is_before in (True, False):
            for name in behind.names() - set(before):
                behind.delete(name)
            for name, data in before.items():
                behind.write(name, data)
            os.write(driver.stdin.fileno(), b"\n")
            door.kill = (int(driver.stdout.readline()), len(door.seen) + request, is_before)
            os.write(driver.stdin.fileno(), b"\n")
            died = int(driver.stdout.readline()) == signal.SIGKILL
            door.kill = None
            found.append(check_what_is_left(store, old, new))

    assert request > 10  # the look at the store, a note, two parts, a listing, the manifest, the note removed, two records
    assert found[0] == (False, False, False)
    assert found[-1] == (True, True, True)
    assert found == sorted(found)
