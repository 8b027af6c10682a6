from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tidewheel.sampling.dataframe import uniform_column
from tidewheel.sampling.hash import uniform, xxhash64

INT64 = st.integers(-(2**63), 2**63 - 1)
EXTREMES = [0, 1, -1, 2**63 - 1, -(2**63), 2**32, -(2**32) - 1]


def test_the_hash_of_one_and_two_is_what_spark_documents_for_a_chain() -> None:
    # xxhash64(1L, 2L) as Spark and Sail give it.
    chained = xxhash64(np.array([2]), seed=xxhash64(np.array([1])))
    assert chained.tolist() == [-8198029865082835910]


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(keys=st.lists(INT64, min_size=1, max_size=200), salt=INT64)
@example(keys=EXTREMES, salt=2**63 - 1)
@example(keys=EXTREMES, salt=-(2**63))
def test_numpy_and_the_engine_draw_the_same_numbers(spark, keys: list[int], salt: int) -> None:
    frame = spark.createDataFrame(pa.table({"key": pa.array(keys, pa.int64())}))
    drawn = frame.select("key", uniform_column(frame["key"], salt).alias("u")).toArrow()
    want = dict(zip(keys, uniform(np.array(keys, dtype=np.int64), salt).tolist(), strict=True))
    assert dict(zip(drawn["key"].to_pylist(), drawn["u"].to_pylist(), strict=True)) == want


def test_the_numbers_are_uniform_and_salts_are_independent() -> None:
    keys = np.arange(200_000)
    one, other = uniform(keys, 1), uniform(keys, 2)
    # Standard error of a share at 0.5 and of a correlation over n rows is below 1 / sqrt(n): 5 of them.
    tolerance = 5 / np.sqrt(len(keys))
    assert one.min() >= 0.0
    assert one.max() < 1.0
    for quantile in (0.1, 0.5, 0.9):
        assert abs((one < quantile).mean() - quantile) < tolerance
    assert abs(np.corrcoef(one, other)[0, 1]) < tolerance


@pytest.mark.slow
def test_numpy_and_real_spark_draw_the_same_numbers(spark_itself) -> None:
    frame = spark_itself.createDataFrame(pa.table({"key": pa.array(EXTREMES, pa.int64())}))
    for salt in (0, 1, -7, 2**63 - 1, -(2**63)):
        drawn = frame.select("key", uniform_column(frame["key"], salt).alias("u")).toArrow()
        want = dict(zip(EXTREMES, uniform(np.array(EXTREMES, dtype=np.int64), salt).tolist(), strict=True))
        assert dict(zip(drawn["key"].to_pylist(), drawn["u"].to_pylist(), strict=True)) == want
