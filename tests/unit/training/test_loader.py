"""From encoded rows to batches."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tidewheel.errors import ContractError
from tidewheel.ranker.encoding import Encoded
from tidewheel.training import loader
from tidewheel.training.loader import RandomRows, ShuffledRows, Worker, ahead, num_batches
from tidewheel.training.rows import FILE, MANIFEST, EncodedRows, Layout, RowsWriter

ONE = Layout(ids=1, numbers=1, labels=1)


def numbered(folder: Path, count: int) -> EncodedRows:
    """Rows whose id is their number."""
    number = np.arange(count)
    with RowsWriter(folder, ONE, "numbers") as writer:
        for part in np.array_split(number, 3):
            encoded = Encoded(part[:, None], part[:, None].astype(np.float32))
            writer.add(encoded, (part[:, None] % 2).astype(np.float32), np.ones(len(part)))
        writer.finish()
    return EncodedRows.open(folder)


@pytest.fixture(scope="module", autouse=True)
def small_blocks() -> Iterator[None]:
    """Blocks of 8 rows and pools of 3, so that a few hundred rows have many of both."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loader, "BLOCK_ROWS", 8)
        patch.setattr(loader, "POOL_BLOCKS", 3)
        patch.setattr(loader, "PIECE_ROWS", 10)
        yield


def epoch(rows: EncodedRows, batch: int, seed: int = 0, epoch: int = 0, skip: int = 0, worker: Worker = loader.ALONE):
    return [b.ids[:, 0].tolist() for b in ShuffledRows(rows).batches(batch, seed, epoch, skip, worker, "cpu")]


@settings(deadline=None, max_examples=40)
@given(st.integers(3, 300), st.integers(1, 64), st.integers(0, 5), st.integers(0, 5))
def test_every_row_is_in_one_batch_of_an_epoch(count: int, batch: int, seed: int, number: int):
    with tempfile.TemporaryDirectory() as folder:
        found = epoch(numbered(Path(folder), count), batch, seed, number)
    assert sorted(row for rows in found for row in rows) == list(range(count))
    assert [len(rows) for rows in found[:-1]] == [batch] * (num_batches(count, batch) - 1)


@settings(deadline=None, max_examples=40)
@given(st.integers(3, 300), st.integers(1, 64), st.integers(0, 8))
def test_skipping_batches_gives_the_rest_of_the_epoch(count: int, batch: int, skip: int):
    with tempfile.TemporaryDirectory() as folder:
        rows = numbered(Path(folder), count)
        assert epoch(rows, batch, 1, 2, skip) == epoch(rows, batch, 1, 2)[skip:]


@settings(deadline=None, max_examples=40)
@given(st.integers(3, 200), st.integers(1, 40), st.integers(1, 5))
def test_workers_share_each_batch_and_see_as_many(count: int, batch: int, size: int):
    with tempfile.TemporaryDirectory() as folder:
        rows = numbered(Path(folder), count)
        whole = epoch(rows, batch)
        shares = [epoch(rows, batch, worker=Worker(rank, size)) for rank in range(size)]
    assert {len(share) for share in shares} == {len(whole)}
    for parts, together in zip(zip(*shares, strict=True), whole, strict=True):
        assert set().union(*parts) == set(together)
        assert len(together) < size or sum(map(len, parts)) == len(together)


def test_the_order_depends_on_seed_and_epoch_alone(tmp_path: Path):
    rows = numbered(tmp_path, 100)
    assert epoch(rows, 7, 1, 2) == epoch(rows, 7, 1, 2)
    assert epoch(rows, 7, 1, 2) != epoch(rows, 7, 1, 3)
    assert epoch(rows, 7, 1, 2) != epoch(rows, 7, 2, 2)


def test_rows_up_to_a_pool_are_shuffled_as_one(tmp_path: Path):
    """Over many seeds the first row of the epoch is any of them equally often: chi-square within five deviations."""
    rows = numbered(tmp_path, 24)
    first = [epoch(rows, 24, seed)[0][0] for seed in range(1200)]
    chi_square = sum((first.count(row) - 50) ** 2 / 50 for row in range(24))
    assert chi_square < 23 + 5 * np.sqrt(2 * 23)


def test_random_rows_have_the_shape_and_the_marginals_of_real_ones(tmp_path: Path):
    rows = numbered(tmp_path, 96)
    made = RandomRows.like(rows, 16, seed=0, device="cpu", batches=6)
    batches = list(made.batches(16, 0, 0, 0, loader.ALONE, "cpu"))
    assert [len(batch) for batch in batches] == [16] * 6
    numbers = torch.cat([batch.numbers[:, 0] for batch in batches])
    ids = torch.cat([batch.ids[:, 0] for batch in batches])
    assert set(ids.tolist()) <= set(range(96))
    assert ids.tolist() != numbers.int().tolist()  # columns are drawn on their own


def test_rows_that_were_not_finished_are_no_rows(tmp_path: Path):
    with RowsWriter(tmp_path, ONE, "x") as writer:
        writer.add(Encoded(np.zeros((2, 1), dtype=np.int64), np.zeros((2, 1), dtype=np.float32)), np.ones((2, 1)), np.ones(2))
    with pytest.raises(ContractError, match=r"rows\.json: cannot be read"):
        EncodedRows.open(tmp_path)


def test_writing_again_takes_the_manifest_away_first(tmp_path: Path):
    numbered(tmp_path, 9)
    with RowsWriter(tmp_path, ONE, "x"):
        assert not (tmp_path / MANIFEST).exists()


def test_a_file_that_was_cut_is_refused(tmp_path: Path):
    numbered(tmp_path, 9)
    with (tmp_path / FILE).open("r+b") as file:
        file.truncate(100)
    with pytest.raises(ContractError, match=r"rows\.bin: has 100 bytes, expected 144"):
        EncodedRows.open(tmp_path)


def test_reading_ahead_gives_the_items_and_then_the_error():
    def items() -> Iterator[int]:
        yield from (1, 2, 3)
        raise ContractError("the file ended")

    reader = ahead(items(), 2)
    assert [next(reader), next(reader), next(reader)] == [1, 2, 3]
    with pytest.raises(ContractError, match="the file ended"):
        next(reader)


def test_reading_ahead_ends_with_its_reader():
    made = []

    def items() -> Iterator[int]:
        for item in range(1000):
            made.append(item)
            yield item

    reader = ahead(items(), 2)
    assert next(reader) == 0
    reader.close()
    assert len(made) <= 5
