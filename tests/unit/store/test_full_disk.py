"""A disk without room: one line that says so, nothing half-published, what was there before intact."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.store.backing import ROWS, publish
from tests.unit.store.unreliable import UnreliableStore
from tidewheel.contracts.dataset import DatasetManifest
from tidewheel.errors import ConfigError, ContractError
from tidewheel.store import Store
from tidewheel.store.disk import room_in

DISK_BYTES = 2**20


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of one MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(folder)]
    try:
        made = subprocess.run(mount, capture_output=True, text=True)
    except FileNotFoundError:
        pytest.skip("there is no mount here")
    if made.returncode:
        pytest.skip(f"a small file system cannot be mounted here: {made.stderr.strip()}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def fill(disk: Path) -> Path:
    """Write until nothing goes in any more; the file to delete for room."""
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as stream:
        for size in (4096, 1):
            try:
                while True:
                    stream.write(b"x" * size)
            except OSError as error:
                assert error.errno == errno.ENOSPC  # noqa: PT017
    return filler


def test_publishing_on_a_full_disk_says_so_and_can_be_repeated_with_room(disk: Path) -> None:
    store = Store.open(str(disk / "store"))
    old = publish(store, part="old rows")
    folder = store.staging("train")
    (folder / "part.parquet").write_text("new rows")
    filler = fill(disk)

    with pytest.raises(ConfigError, match=r"no room to write \(No space left on device\)"):
        store.publish("datasets", folder, ROWS)
    with pytest.raises(ConfigError, match="no room"):
        store.create("ledger/1.json", "entry")
    with pytest.raises(ConfigError, match="no room"):
        store.put("documents/1.json", "text")

    assert store.folders("datasets") == [old]
    assert store.get("ledger/1.json") is store.get("documents/1.json") is None
    store.load("datasets", old, DatasetManifest, full=True)
    filler.unlink()
    digest, manifest = store.publish("datasets", folder, ROWS)
    assert [entry.path for entry in manifest.files] == ["part.parquet"]
    store.load("datasets", digest, DatasetManifest, full=True)
    assert store.create("ledger/1.json", "entry")


def test_copying_a_folder_of_a_bucket_onto_a_full_disk(disk: Path, door: UnreliableStore, bucket: str, tmp_path: Path) -> None:
    small = publish(Store.open(bucket, tmp_path / "writer"), part="rows")
    large = publish(Store.open(bucket, tmp_path / "writer"), part="r" * 2 * DISK_BYTES)
    store = Store.open(bucket, disk / "cache")
    store.fetch("datasets", small)

    with pytest.raises(ConfigError, match="no room to write"):
        store.fetch("datasets", large)

    assert not store.folder("datasets", large).exists()
    assert list((disk / "cache" / "staging").iterdir()) == []
    store.fetch("datasets", small, full=True)


LIMITED = """
import resource, sys
from pathlib import Path
from tests.unit.store.backing import publish
from tidewheel.errors import ConfigError
from tidewheel.store import Store
store = Store.open(sys.argv[1])
resource.setrlimit(resource.RLIMIT_FSIZE, (200, 200))
try:
    publish(store, part="short")
except ConfigError as error:
    print(error)
"""


def test_a_limit_on_the_size_of_files_is_no_room_either(tmp_path: Path) -> None:
    """The part fits, the manifest does not."""
    root = tmp_path / "store"
    ended = subprocess.run([sys.executable, "-c", LIMITED, str(root)], capture_output=True, text=True, check=True)

    assert "no room to write (File too large); nothing was published" in ended.stdout
    assert ended.stdout.count("\n") == 1
    assert Store.open(str(root)).folders("datasets") == []


def test_engines_that_say_it_in_their_own_words_are_understood(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no room to write"), room_in(tmp_path):
        raise RuntimeError("Error while serializing: I/O error: No space left on device (os error 28)")
    with pytest.raises(ConfigError, match="Disk quota exceeded"), room_in(tmp_path):
        raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))


def test_other_errors_stay_what_they_are(tmp_path: Path) -> None:
    for error in (PermissionError(errno.EACCES, "denied"), ZeroDivisionError("x"), ContractError("No space left on device")):
        with pytest.raises(type(error)), room_in(tmp_path):
            raise error
