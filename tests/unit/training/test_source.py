"""From Parquet to parts of a table."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tidewheel.contracts.schema import Entity, FeatureKind, FeatureSpec
from tidewheel.errors import ContractError
from tidewheel.training.encode import encoded_rows, fitted_encoders
from tidewheel.training.rows import EncodedRows
from tidewheel.training.source import read_parts, weights_of

RATE = FeatureSpec(id=1, name="rate", kind=FeatureKind.NUMERIC, entity=Entity.ITEM)


def write(folder: Path, name: str, **columns: list) -> None:
    folder.mkdir(exist_ok=True)
    pq.write_table(pa.table(columns), folder / name)


def encoded(folder: Path) -> EncodedRows:
    encoders = fitted_encoders(folder, (RATE,), ("click",), folder / "encoded")
    return encoded_rows(folder, encoders, ("click",), folder / "encoded")


def test_files_are_read_in_the_order_of_their_names(tmp_path: Path):
    write(tmp_path / "data", "b.parquet", rate=[2.0], label_click=[1], weight=[1.0], other=["x"])
    write(tmp_path / "data", "a.parquet", rate=[1.0], label_click=[0], weight=[1.0])
    table = pa.concat_tables(read_parts(tmp_path / "data", [RATE], ["click"]))
    assert table.column("rate").to_pylist() == [1.0, 2.0]
    assert table.column_names == ["rate", "label_click", "weight"]


def test_a_truncated_file_is_named(tmp_path: Path):
    write(tmp_path, "part-0.parquet", rate=[1.0] * 100, label_click=[0] * 100, weight=[1.0] * 100)
    path = tmp_path / "part-0.parquet"
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(ContractError, match=r"part-0\.parquet: is not readable Parquet"):
        list(read_parts(tmp_path, [RATE], ["click"]))


def test_a_missing_column_is_named(tmp_path: Path):
    write(tmp_path, "part-0.parquet", rate=[1.0], weight=[1.0])
    with pytest.raises(ContractError, match="column label_click is missing"):
        list(read_parts(tmp_path, [RATE], ["click"]))


def test_a_folder_without_rows_is_refused(tmp_path: Path):
    with pytest.raises(ContractError, match="no rows to train on"):
        list(read_parts(tmp_path, [RATE], ["click"]))


@pytest.mark.parametrize("weights", [[1.0, float("nan")], [1.0, -1.0], [1.0, None]])
def test_weights_that_cannot_weigh_are_refused(weights: list, tmp_path: Path):
    with pytest.raises(ContractError, match="weights must be finite"):
        weights_of(pa.table({"weight": pa.array(weights, pa.float64())}), tmp_path)


def test_weights_that_are_all_zero_are_refused(tmp_path: Path):
    write(tmp_path, "part-0.parquet", rate=[1.0, 2.0], label_click=[0, 1], weight=[0.0, 0.0])
    with pytest.raises(ContractError, match=r"no training row has a value|not all 0"):
        encoded(tmp_path)


def test_a_column_with_nan_is_named_with_the_share_of_its_rows(tmp_path: Path):
    rates = [1.0, float("nan"), None, float("inf")] * 50
    write(tmp_path, "part-0.parquet", rate=rates, label_click=[0, 1] * 100, weight=[1.0] * 200)
    with pytest.raises(ContractError, match=r"NaN or infinite: rate in 100 of 200 rows \(50\.00%\); expected numbers or null"):
        encoded(tmp_path)


def test_a_column_without_a_value_is_named(tmp_path: Path):
    write(tmp_path, "part-0.parquet", rate=pa.array([None] * 9, pa.float64()), label_click=[0] * 9, weight=[1.0] * 9)
    with pytest.raises(ContractError, match="feature rate: no training row has a value"):
        encoded(tmp_path)


def test_a_label_that_is_null_is_refused(tmp_path: Path):
    write(tmp_path, "part-0.parquet", rate=[1.0, 2.0], label_click=pa.array([0, None], pa.int8()), weight=[1.0, 1.0])
    with pytest.raises(ContractError, match="a label is null"):
        encoded(tmp_path)


def test_rows_are_what_was_in_the_files(tmp_path: Path):
    random = np.random.default_rng(0)
    rates, clicks = random.normal(5.0, 2.0, 300), random.integers(0, 2, 300)
    weights = random.choice([1.0, 4.0], 300)
    for at in (0, 1, 2):
        part = slice(100 * at, 100 * at + 100)
        write(tmp_path, f"part-{at}.parquet", rate=rates[part], label_click=clicks[part], weight=weights[part])
    rows = encoded(tmp_path)
    (batch,) = rows.in_order(300)
    mean = np.average(rates, weights=weights)
    deviation = np.sqrt(np.average((rates - mean) ** 2, weights=weights))
    np.testing.assert_allclose(batch.numbers[:, 0], (rates - mean) / deviation, atol=1e-5)
    np.testing.assert_array_equal(batch.labels[:, 0], clicks)
    np.testing.assert_allclose(batch.weights, weights / weights.mean(), rtol=1e-6)
    assert rows.rates.tolist() == pytest.approx([np.average(clicks, weights=weights)])
