"""From Parquet to batches."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tidewheel.contracts.schema import Entity, FeatureKind, FeatureSpec
from tidewheel.errors import ContractError
from tidewheel.training.loader import Rows, batches, num_batches, order, read_table, weights_of

RATE = FeatureSpec(id=1, name="rate", kind=FeatureKind.NUMERIC, entity=Entity.ITEM)


def numbered(count: int) -> Rows:
    """Rows whose weight is their number."""
    number = torch.arange(count)
    return Rows(number[:, None], number[:, None].float(), number[:, None].float(), number.float())


def write(folder: Path, name: str, **columns: list) -> None:
    folder.mkdir(exist_ok=True)
    pq.write_table(pa.table(columns), folder / name)


@given(st.integers(1, 300), st.integers(1, 64), st.integers(0, 5), st.integers(0, 5))
def test_every_row_is_in_one_batch_of_an_epoch(rows: int, batch_size: int, seed: int, epoch: int):
    seen = torch.cat([batch.weights for batch in batches(numbered(rows), batch_size, seed, epoch)])
    assert sorted(seen.tolist()) == list(range(rows))


def test_the_order_depends_on_seed_and_epoch_alone():
    assert torch.equal(order(50, 1, 2), order(50, 1, 2))
    assert not torch.equal(order(50, 1, 2), order(50, 1, 3))
    assert not torch.equal(order(50, 1, 2), order(50, 2, 2))


@given(st.integers(1, 200), st.integers(1, 40), st.integers(0, 5))
def test_skipping_batches_gives_the_rest_of_the_epoch(rows: int, batch_size: int, skip: int):
    whole = [batch.weights.tolist() for batch in batches(numbered(rows), batch_size, 0, 0)]
    assert [batch.weights.tolist() for batch in batches(numbered(rows), batch_size, 0, 0, skip)] == whole[skip:]


def test_workers_share_each_batch_and_see_as_many():
    whole = [set(batch.weights.tolist()) for batch in batches(numbered(41), 8, 0, 0)]
    shares = [[set(b.weights.tolist()) for b in batches(numbered(41), 8, 0, 0, rank=rank, workers=2)] for rank in (0, 1)]
    assert len(shares[0]) == len(shares[1]) == num_batches(41, 8) == 6
    assert [a | b for a, b in zip(*shares, strict=True)] == whole


def test_files_are_read_in_the_order_of_their_names(tmp_path: Path):
    write(tmp_path / "data", "b.parquet", rate=[2.0], label_click=[1], weight=[1.0], other=["x"])
    write(tmp_path / "data", "a.parquet", rate=[1.0], label_click=[0], weight=[1.0])
    table = read_table(tmp_path / "data", [RATE], ["click"])
    assert table.column("rate").to_pylist() == [1.0, 2.0]
    assert table.column_names == ["rate", "label_click", "weight"]


def test_a_truncated_file_is_named(tmp_path: Path):
    write(tmp_path, "part-0.parquet", rate=[1.0] * 100, label_click=[0] * 100, weight=[1.0] * 100)
    path = tmp_path / "part-0.parquet"
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(ContractError, match=r"part-0\.parquet: is not readable Parquet"):
        read_table(tmp_path, [RATE], ["click"])


def test_a_missing_column_is_named(tmp_path: Path):
    write(tmp_path, "part-0.parquet", rate=[1.0], weight=[1.0])
    with pytest.raises(ContractError, match="column label_click is missing"):
        read_table(tmp_path, [RATE], ["click"])


def test_a_folder_without_rows_is_refused(tmp_path: Path):
    with pytest.raises(ContractError, match="no rows to train on"):
        read_table(tmp_path, [RATE], ["click"])


@pytest.mark.parametrize("weights", [[1.0, float("nan")], [1.0, -1.0], [0.0, 0.0], [1.0, None]])
def test_weights_that_cannot_weigh_are_refused(weights: list, tmp_path: Path):
    with pytest.raises(ContractError, match="weights must be finite"):
        weights_of(pa.table({"weight": pa.array(weights, pa.float64())}), tmp_path)
