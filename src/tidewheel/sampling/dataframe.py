"""The sampler on dataframes: splits by time, keeps training rows by hash, weighs every row. Any Spark engine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tidewheel.contracts.recipe import SampleConfig, WindowConfig
from tidewheel.contracts.schema import WEIGHT, label_column
from tidewheel.contracts.window import Window, iso
from tidewheel.errors import RejectedError
from tidewheel.sampling.parts import write_splits
from tidewheel.sampling.rules import ColumnKind, Rule, calibration_salt, check_columns, keep_rules

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame, SparkSession

SPLITS = ("train", "calibration", "eval", "randomized")


@dataclass(frozen=True)
class SplitResult:
    """One split. `statistics`: `rows_seen` before selection and `positives.<label>` in the rows that were kept."""

    rows: int
    weight_sum: float
    statistics: dict[str, float] = field(default_factory=dict)


def sample(
    spark: SparkSession,
    impressions: Path,
    config: SampleConfig,
    window_config: WindowConfig,
    window: Window,
    labels: Sequence[str],
    out: Path,
) -> dict[str, SplitResult]:
    """Write `out/{train,calibration,eval,randomized}/part-*.parquet`: the impressions' columns and `weight`.

    Rows of randomized requests are in `randomized` and nowhere else. Of the others, the last `eval_days` are `eval`; a
    share of the `calibration_days` before is `calibration`; the rest is `train`, where `keep` selects. Every row weighs
    1 / (inclusion_probability x its rate), the rate being 1 outside `train`: train and calibration together estimate
    the totals of the days before `eval`.

    Raises:
        ConfigError: a slice of the recipe names a column that the impressions do not have.
        RejectedError: no row is left to train on, or none to evaluate on.
    """
    from pyspark.sql import functions as F

    frame = spark.read.parquet(*(path.as_posix() for path in sorted(impressions.glob("*.parquet"))))
    check_columns(keep_rules(config, labels), frame.columns)
    split = split_column(config, window_config, window)
    rate = F.when(F.col("split") == F.lit("train"), rate_column(frame, config, labels)).otherwise(F.lit(1.0))
    judged = frame.withColumn("split", split).withColumn("rate", rate)
    judged = judged.withColumn("is_kept", uniform_column(F.col("row_key"), config.salt) < F.col("rate"))
    judged = judged.withColumn(WEIGHT, F.lit(1.0) / (F.col("inclusion_probability") * F.col("rate")))
    results = _count(judged, labels)
    for name, place in (("train", "before"), ("eval", "in")):
        if not results[name].rows:
            day = iso(_eval_start(window_config, window))
            raise RejectedError(
                f"window {window}: no {name} rows {place} its last {window_config.eval_days} day(s), from {day}; "
                "expected at least one: move --window-end, or check that the log is complete"
            )
    kept = judged.filter("is_kept").select(*frame.columns, WEIGHT, "split")
    write_splits(kept, out, SPLITS, sum(result.rows for result in results.values()))
    return results


def keep(frame: DataFrame, config: SampleConfig, labels: Sequence[str]) -> DataFrame:
    """The training rows that the recipe keeps, with `weight`: what `tidewheel.sampling.loader.select` does to a table."""
    from pyspark.sql import functions as F

    check_columns(keep_rules(config, labels), frame.columns)
    rated = frame.withColumn("rate", rate_column(frame, config, labels))
    kept = rated.filter(uniform_column(F.col("row_key"), config.salt) < F.col("rate"))
    return kept.withColumn(WEIGHT, F.lit(1.0) / (F.col("inclusion_probability") * F.col("rate"))).drop("rate")


def uniform_column(row_key: Column, salt: int) -> Column:
    """`tidewheel.sampling.hash.uniform` as an expression: a double in [0, 1)."""
    from pyspark.sql import functions as F

    hashed = F.xxhash64(row_key, F.lit(salt).cast("bigint"))
    return F.shiftrightunsigned(hashed, 11).cast("double") / F.lit(2.0**53)


def rate_column(frame: DataFrame, config: SampleConfig, labels: Sequence[str]) -> Column:
    """The probability with which a training row is kept: the first rule it meets."""
    from pyspark.sql import functions as F

    *rules, last = keep_rules(config, labels)
    types = dict(frame.dtypes)
    return reduce(
        lambda otherwise, rule: F.when(_meets(rule, types), F.lit(rule.rate)).otherwise(otherwise),
        reversed(rules),
        F.lit(last.rate),
    )


def split_column(config: SampleConfig, window_config: WindowConfig, window: Window) -> Column:
    """Which split a row belongs to, before any selection."""
    from pyspark.sql import functions as F

    eval_start = _eval_start(window_config, window)
    calibration_start = eval_start - timedelta(days=config.calibration_days)
    is_drawn = uniform_column(F.col("row_key"), calibration_salt(config.salt)) < F.lit(config.calibration_share)
    return (
        F.when(F.col("is_randomized"), F.lit("randomized"))
        .when(F.col("event_time") >= _moment(eval_start), F.lit("eval"))
        .when((F.col("event_time") >= _moment(calibration_start)) & is_drawn, F.lit("calibration"))
        .otherwise(F.lit("train"))
    )


def _eval_start(window_config: WindowConfig, window: Window) -> datetime:
    return window.end - timedelta(days=window_config.eval_days)


def _moment(moment: datetime) -> Column:
    from pyspark.sql import functions as F

    # As a count: a literal datetime would pass through the time zone of this machine.
    return F.timestamp_micros(F.lit(round(moment.timestamp() * 1_000_000)).cast("bigint"))


def _meets(rule: Rule, types: dict[str, str]) -> Column:
    from pyspark.sql import functions as F

    assert rule.column is not None
    kind = _kind_of(types[rule.column])
    values = rule.values_as(kind)
    if not values:
        return F.lit(False)
    spark_type = {"integer": "bigint", "real": "double", "text": "string"}[kind]
    found = F.col(rule.column).cast(spark_type).isin([F.lit(value).cast(spark_type) for value in values])
    return F.coalesce(found, F.lit(False))


def _kind_of(spark_type: str) -> ColumnKind:
    if spark_type in {"tinyint", "smallint", "int", "bigint"}:
        return "integer"
    return "real" if spark_type in {"float", "double"} else "text"


def _count(judged: DataFrame, labels: Sequence[str]) -> dict[str, SplitResult]:
    from pyspark.sql import functions as F

    kept = F.col("is_kept").cast("int")
    # Decimals: their sum does not depend on the order of the rows, so neither does the dataset's digest.
    weight = F.when(F.col("is_kept"), F.col(WEIGHT).cast("decimal(28,9)"))
    positives = [F.sum(F.col(label_column(label)).cast("int") * kept).alias(label) for label in labels]
    counts = judged.groupBy("split").agg(
        F.count(F.lit(1)).alias("rows_seen"), F.sum(kept).alias("kept"), F.sum(weight).alias("weight_sum"), *positives
    )
    found: dict[str, Any] = {row["split"]: row for row in counts.collect()}
    results = {split: SplitResult(0, 0.0, {"rows_seen": 0.0}) for split in SPLITS}
    for split, row in found.items():
        statistics = {"rows_seen": float(row["rows_seen"])} | {f"positives.{label}": float(row[label]) for label in labels}
        results[split] = SplitResult(int(row["kept"]), float(row["weight_sum"] or 0), statistics)
    return results
