"""Columns of a log in the types that features declare."""

from __future__ import annotations

import datetime
import math
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tidewheel.contracts.recipe import CounterConfig, IngestConfig, LabelConfig, ParquetSource
from tidewheel.contracts.schema import FeatureSpec
from tidewheel.contracts.window import Window, parse_time
from tidewheel.errors import ContractError
from tidewheel.logs import ingest
from tidewheel.logs.fitting import fitted, unfit

KINDS = {"string": "vocabulary", "int32": "vocabulary", "int64": "vocabulary", "float32": "numeric", "float64": "numeric"}


def feature(dtype: str) -> FeatureSpec:
    return FeatureSpec.model_validate({"id": 7, "name": "x", "kind": KINDS[dtype], "entity": "item", "dtype": dtype})


def read(spark, column: pa.Array, folder: Path):
    pq.write_table(pa.table({"x": column}), folder / "log.parquet")
    return spark.read.parquet((folder / "log.parquet").as_posix())


@pytest.mark.parametrize(
    ("column", "dtype", "want", "want_unfit"),
    [
        (pa.array([1, None, 2], pa.int8()), "int64", [1, None, 2], 0),
        (pa.array([2**31 - 1, 2**31, None]), "int32", [2**31 - 1, None, None], 1),
        (pa.array([3.0, 3.5, math.nan, None, 1e30]), "int64", [3, None, None, None, None], 2),
        (pa.array([-(2.0**31), 2.0**31]), "int32", [-(2**31), None], 1),
        (pa.array([Decimal("2.00"), Decimal("2.50")]), "int64", [2, None], 1),
        (pa.array([True, False, None]), "int64", [1, 0, None], 0),
        (pa.array([0.5, 1e39, None]), "float32", [0.5, None, None], 1),
        (pa.array([0.5, math.nan, math.inf, -math.inf, None]), "float32", [0.5, None, None, None, None], 2),
        (pa.array([0.5, math.nan, math.inf, -math.inf, 1e308]), "float64", [0.5, None, None, None, 1e308], 0),
        # Two values at least: of a file with one value and NaN its statistics make Sail believe that all rows have it.
        (pa.array([0.5, math.nan, 0.25], pa.float32()), "float64", [0.5, None, 0.25], 0),
        (pa.array([1, 2**40]), "float64", [1.0, 2.0**40], 0),
        (pa.array([0.25, None], pa.float32()), "float64", [0.25, None], 0),
        (pa.array([3, None]), "string", ["3", None], 0),
        (pa.array([3.0, 2.5, None]), "string", ["3", "2.5", None], 0),
        (pa.array(["a", None], pa.large_string()), "string", ["a", None], 0),
        (pa.array([datetime.date(2026, 1, 5)]), "string", ["2026-01-05"], 0),
        (pa.nulls(2), "int64", [None, None], 0),
    ],
)
def test_a_value_is_kept_or_null_and_its_loss_counted(
    spark, tmp_path: Path, column: pa.Array, dtype: str, want: list, want_unfit: int
) -> None:
    log = read(spark, column, tmp_path)
    types = dict(log.dtypes)

    table = log.select(fitted(feature(dtype), types["x"]).alias("x"), *unfit([feature(dtype)], types)).toArrow()

    assert table["x"].to_pylist() == want
    assert table["x"].type == pa.type_for_alias(dtype)
    lost = table["_unfit_x"].to_pylist() if "_unfit_x" in table.column_names else []
    assert sum(lost) == want_unfit


@pytest.mark.parametrize(
    ("column", "dtype", "found"),
    [
        (pa.array(["12"]), "int64", "string"),
        (pa.array(["1.5"]), "float64", "string"),
        (pa.array([[1]]), "string", "array<bigint>"),
        (pa.array([{"a": 1}]), "int32", "struct<a:bigint>"),
        (pa.array([0], pa.timestamp("us")), "int64", "timestamp"),
    ],
)
def test_a_column_of_another_sort_is_refused_by_name(spark, tmp_path: Path, column: pa.Array, dtype: str, found: str) -> None:
    types = dict(read(spark, column, tmp_path).dtypes)

    with pytest.raises(ContractError, match=rf"column x of the log: found {found}.*, expected {dtype} \(feature 7\)"):
        fitted(feature(dtype), types["x"])


def test_ingest_counts_what_did_not_fit_and_keeps_the_row(spark, tmp_path: Path) -> None:
    start = parse_time("2026-01-05")
    log = pa.table(
        {
            "user": [1, 1, 2, 2],
            "item": [1, 2, 3, 4],
            "time": pa.array([start + datetime.timedelta(hours=hour) for hour in range(4)], pa.timestamp("us", tz="UTC")),
            "clicked": [1, 0, 1, 0],
            "x": [1.0, 2.5, None, 2.0**40],
        }
    )
    (tmp_path / "log").mkdir()
    pq.write_table(log, tmp_path / "log" / "part-0.parquet")
    source = ParquetSource(
        kind="parquet", columns={"user_id": "user", "item_id": "item", "event_time": "time"}, labels={"click": "clicked"}
    )

    found = ingest(
        spark,
        source,
        (LabelConfig(name="click"),),
        (feature("int32"),),
        IngestConfig(counters=CounterConfig(labels=("click",))),
        Window(start=start, end=start + datetime.timedelta(days=1)),
        tmp_path / "out",
        tmp_path / "log",
    )

    rows = pa.concat_tables(pq.read_table(path) for path in (tmp_path / "out" / "impressions").glob("*.parquet"))
    assert found.rows == 4
    assert found.statistics["unfit.x"] == 2
    assert rows["x"].type == pa.int32()
    assert dict(zip(rows["item_id"].to_pylist(), rows["x"].to_pylist(), strict=True)) == {1: 1, 2: None, 3: None, 4: None}
