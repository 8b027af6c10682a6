from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.store.backing import publish
from tidewheel.contracts.dataset import DatasetManifest, FileEntry
from tidewheel.errors import ConfigError, ContractError
from tidewheel.store import Store, Verification


def files(*sizes: int) -> list[FileEntry]:
    return [
        FileEntry(path=f"part-{number}.parquet", bytes=size, sha256=hashlib.sha256(b"rows").hexdigest())
        for number, size in enumerate(sizes)
    ]


def test_full_chooses_every_file() -> None:
    assert Verification.of("full").chosen(files(1, 2**40, 3), "digest") == tuple(files(1, 2**40, 3))


@given(sizes=st.lists(st.integers(0, 100), min_size=1, max_size=30), seed=st.text(), limit=st.integers(0, 200))
def test_a_sample_reads_one_file_or_as_many_as_fit(sizes: list[int], seed: str, limit: int) -> None:
    check = Verification(seed=seed, sample_bytes=limit)
    chosen = check.chosen(files(*sizes), "digest")

    assert len(chosen) == 1 or sum(entry.bytes for entry in chosen) <= limit
    assert len({entry.path for entry in chosen}) == len(chosen) >= 1
    assert check.chosen(files(*sizes), "digest") == chosen, "a run looks at the same files again"


def test_a_folder_without_files_needs_no_digest() -> None:
    assert Verification().chosen([], "digest") == ()


def test_many_runs_together_read_every_file_about_equally_often() -> None:
    """2 of 10 files a run: each is read in 400 of 2,000 runs, give or take 4 standard deviations of 17.9."""
    read = dict.fromkeys((entry.path for entry in files(*[10] * 10)), 0)
    for run in range(2000):
        for entry in Verification(seed=f"run-{run}", sample_bytes=20).chosen(files(*[10] * 10), "digest"):
            read[entry.path] += 1

    assert sum(read.values()) == 4000
    assert all(abs(times - 400) <= 72 for times in read.values())


def test_an_unknown_verification_is_refused_by_name() -> None:
    with pytest.raises(ConfigError, match="--verify none: expected sampled or full"):
        Verification.of("none")


def test_a_flipped_byte_escapes_the_runs_that_do_not_draw_its_file_and_never_a_full_check(tmp_path: Path) -> None:
    digest = publish(Store.open(str(tmp_path)), a="rows", b="rows", c="rows", d="rows")
    (tmp_path / "datasets" / digest / "c.parquet").write_text("rowz")

    def notices(check: Verification) -> bool:
        try:
            Store.open(str(tmp_path), verification=check).load("datasets", digest, DatasetManifest)
        except ContractError:
            return True
        return False

    sampled = [notices(Verification(seed=f"run-{run}", sample_bytes=4)) for run in range(40)]
    assert any(sampled)
    assert not all(sampled)
    assert notices(Verification.of("full"))


@pytest.mark.parametrize("check", [Verification(sample_bytes=0), Verification.of("full")], ids=["sampled", "full"])
def test_a_lost_or_shortened_file_is_noticed_by_every_check(tmp_path: Path, check: Verification) -> None:
    digest = publish(Store.open(str(tmp_path)), a="rows", b="rows")
    store = Store.open(str(tmp_path), verification=check)
    part = tmp_path / "datasets" / digest / "b.parquet"

    part.write_text("row")
    with pytest.raises(ContractError, match=r"b\.parquet has 3 bytes, expected 4"):
        store.verify("datasets", digest)
    part.unlink()
    with pytest.raises(ContractError, match=r"b\.parquet is missing"):
        store.verify("datasets", digest)
