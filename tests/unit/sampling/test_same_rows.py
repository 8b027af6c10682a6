"""One definition, three executors: Arrow, Sail and Spark keep the same rows with the same weights, bit by bit."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.unit.sampling.tables import DAYS, LABELS, RECIPES, WINDOW, counter_of, impressions, read, slices, write
from tidewheel.contracts.sampling import Cap, Group, NicheBoost, Range, Rule, SampleConfig, SamplePlan
from tidewheel.sampling import SPLITS, make_plan, read_groups, sample, select
from tidewheel.sampling.dataframe import FrameCounter, keep
from tidewheel.sampling.dataframe import sample as sample_on_spark

Row = tuple[int, bytes]
EVERYTHING = SampleConfig(
    salt=5,
    exclude=(Group(name="bots", where={"surface": ("search",)}),),
    never_downsample=("hate",),
    rules=(
        Rule(name="shallow", all_of=("click",), none_of=("like",), rate=0.5),
        Rule(name="young", where={"age": Range(below=1, or_null=True)}, rate=0.7),
    ),
    preset=NicheBoost(niche_share=0.4),
    caps=(Cap(column="user_id", rows=20), Cap(column="surface", rows=200)),
    calibration_share=0.3,
    calibration_days=2,
)


def rows_of(kept: pa.Table) -> list[Row]:
    """Key and weight of every row, the weight as its bits, sorted."""
    weights = kept["weight"].to_numpy().astype(">f8")
    return sorted((key, weight.tobytes()) for key, weight in zip(kept["row_key"].to_pylist(), weights, strict=True))


def kept_by_loader(tables: Sequence[pa.Table], config: SampleConfig) -> tuple[SamplePlan, list[Row]]:
    """Each partition selected on its own, with the plan of all of them."""
    counter = counter_of(tables)
    plan = make_plan(config, DAYS, WINDOW, LABELS, counter)
    groups = counter.groups(plan)
    return plan, rows_of(pa.concat_tables([select(table, plan, groups) for table in tables]))


def kept_by_engine(spark, table: pa.Table, partitions: int, config: SampleConfig) -> tuple[SamplePlan, list[Row]]:
    frame = spark.createDataFrame(table).repartition(partitions)
    counter = FrameCounter(frame)
    plan = make_plan(config, DAYS, WINDOW, LABELS, counter)
    return plan, rows_of(keep(frame, plan, counter.groups(plan)).select("row_key", "weight").toArrow())


@settings(max_examples=25, deadline=None)
@given(config=RECIPES, seed=st.integers(0, 1000), count=st.integers(1, 250))
def test_the_loader_selects_the_same_rows_from_any_partitioning(config: SampleConfig, seed: int, count: int) -> None:
    table = impressions(count, seed)
    whole = kept_by_loader([table], config)

    assert [kept_by_loader(slices(table, partitions), config) == whole for partitions in (7, 64)] == [True, True]


@pytest.mark.slow
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(config=RECIPES, seed=st.integers(0, 1000), partitions=st.sampled_from([1, 7, 64]))
def test_sail_keeps_the_rows_of_the_loader(spark, config: SampleConfig, seed: int, partitions: int) -> None:
    table = impressions(300, seed)

    assert kept_by_engine(spark, table, partitions, config) == kept_by_loader([table], config)


@pytest.mark.slow
@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], derandomize=True)
@given(config=RECIPES, seed=st.integers(0, 1000), partitions=st.sampled_from([1, 7, 64]))
def test_spark_keeps_the_rows_of_the_loader(spark_itself, config: SampleConfig, seed: int, partitions: int) -> None:
    table = impressions(300, seed)

    assert kept_by_engine(spark_itself, table, partitions, config) == kept_by_loader([table], config)


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["spark", "spark_itself"])
def test_engines_write_the_splits_that_the_stream_writes(engine: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    source = write(impressions(3000), tmp_path / "in", files=3)
    want = sample(source, EVERYTHING, DAYS, WINDOW, LABELS, tmp_path / "want")

    session = request.getfixturevalue(engine)
    got = sample_on_spark(session, source, EVERYTHING, DAYS, WINDOW, LABELS, tmp_path / "got")

    assert (got.plan, got.splits) == (want.plan, want.splits)
    for split in SPLITS:
        one, other = (read(tmp_path / out / split).sort_by("row_key") for out in ("want", "got"))
        assert rows_of(one) == rows_of(other)
        assert (
            one.select(["row_key", "user_id", "surface", "age"])
            .to_pandas()
            .equals(other.select(["row_key", "user_id", "surface", "age"]).to_pandas())
        )
    for name, tally in want.rules.items():
        assert (got.rules[name].rows_in, got.rules[name].rows_out) == (tally.rows_in, tally.rows_out)
        assert got.rules[name].effective_rows == pytest.approx(tally.effective_rows)
    groups = [read_groups(tmp_path / out / "train", want.plan) for out in ("want", "got")]
    assert groups[0] == groups[1]
    assert [table.num_rows > 0 for table in groups[0]] == [True, True, True]
