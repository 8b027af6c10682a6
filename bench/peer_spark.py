"""The work of `ingest` and `sample` as one plain PySpark job, written by hand for KuaiRand and recipes/kuairand.yaml.

A peer of bench/data_plane.py, which says what the work is. Its rows are ours, row keys and draws included.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import reduce
from pathlib import Path
from typing import Any

from pyspark.sql import Column, DataFrame, SparkSession, Window
from pyspark.sql import functions as F

from bench.work import COUNTED, LABELS, RATE_LABELS, Work, phase
from tidewheel.sampling.rules import calibration_salt

DRIVER_MEMORY = "8g"
_USER = ("user_active_degree", "follow_user_num_range", "fans_user_num_range", "friend_user_num_range", "register_days_range")
_VIDEO = ("video_type", "upload_type", "music_type", "tag")
_ORDER = ("row_key", "event_time", "request_id", "item_id", "user_id")
_DUPLICATES = ("exact_duplicate", "conflicting_duplicate")


def main(work: Work) -> dict[str, Any]:
    with local_spark(work.cores, work.out / "spill") as spark:
        with phase("stage"):
            staged = _judged(_typed(spark, work), work).cache()
            here = staged.filter("in_window")
            counts = {row["status"]: row["count"] for row in here.groupBy("status").count().collect()}
        valid = staged.filter("status = 'valid'")
        with phase("impressions"):
            rows = valid.filter("in_window")
            for entity in COUNTED:
                rows = rows.join(_as_of(valid, entity, work), [f"{entity}_id", "day"], "left")
            rows = rows.drop("day", "in_window", "status", "raw")
            rows.orderBy(*_ORDER).write.parquet(str(work.out / "impressions"))
        with phase("counters, quarantine"):
            _snapshot(valid, work).orderBy("entity", "key").write.parquet(str(work.out / "counters"))
            if set(counts) - {"valid", *_DUPLICATES}:
                malformed = here.filter("raw IS NOT NULL").select(F.col("status").alias("reason"), F.col("raw").alias("row"))
                malformed.write.parquet(str(work.out / "quarantine"))
            staged.unpersist()
        with phase("sample"):
            return _sample(spark, work)


@contextmanager
def local_spark(cores: int, local: Path, master: str = "") -> Iterator[SparkSession]:
    """Classic Spark on this machine's JVM: `local[cores]`, or another master."""
    builder = SparkSession.builder.master(master or f"local[{cores}]").appName("bench")
    settings = {
        "spark.driver.memory": DRIVER_MEMORY,
        "spark.local.dir": str(local),
        "spark.sql.shuffle.partitions": str(4 * cores),
        "spark.sql.session.timeZone": "UTC",
        "spark.sql.ansi.enabled": "false",
        "spark.sql.parquet.compression.codec": "zstd",
        "spark.sql.parquet.outputTimestampType": "TIMESTAMP_MICROS",
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "false",
        "spark.driver.host": "127.0.0.1",
        "spark.driver.bindAddress": "127.0.0.1",
    }
    for key, value in settings.items():
        builder = builder.config(key, value)
    spark = builder.getOrCreate()
    spark.sparkContext.setLogLevel("ERROR")
    try:
        yield spark
    finally:
        spark.stop()


def _typed(spark: SparkSession, work: Work) -> DataFrame:
    log = spark.read.parquet(f"{work.data}/log_*.parquet")
    users = spark.read.parquet(f"{work.data}/user_features.parquet").select("user_id", *_USER)
    videos = spark.read.parquet(f"{work.data}/video_features_basic.parquet").select(
        "video_id", "author_id", "upload_dt", *_VIDEO
    )
    raw = F.struct(*log.columns).alias("raw")
    time = F.when(F.col("time_ms").between(0, 253_402_300_799_999), F.timestamp_millis("time_ms"))
    log = log.select("*", raw, time.alias("event_time"))
    joined = log.join(users, "user_id", "left").join(F.broadcast(videos), "video_id", "left")
    age = F.datediff(F.col("event_time").cast("date"), F.try_to_date("upload_dt"))
    labels = [F.when(F.col(column).isin(0, 1), F.col(column).cast("tinyint")).alias(f"label_{name}") for name, column in LABELS]
    return joined.select(
        F.concat(F.lit("u"), F.col("user_id"), F.lit("-"), F.floor(F.unix_seconds("event_time") / 3600).cast("string")).alias(
            "request_id"
        ),
        F.col("user_id").cast("bigint"),
        F.col("video_id").cast("bigint").alias("item_id"),
        F.col("author_id").cast("bigint"),
        "event_time",
        F.lit(None).cast("int").alias("position"),
        (F.col("is_rand") == 1).alias("is_randomized"),
        F.lit(None).cast("double").alias("propensity"),
        F.lit(1.0).alias("inclusion_probability"),
        *labels,
        F.col("tab").cast("bigint"),
        F.hour("event_time").cast("bigint").alias("hour"),
        *_USER,
        *(F.col(name).cast("string" if name != "music_type" else "bigint") for name in _VIDEO),
        F.when(F.col("duration_ms") > 0, F.col("duration_ms").cast("double")).alias("duration_ms"),
        F.when(age >= 0, age.cast("double")).alias("item_age_days"),
        "raw",
    )


def _judged(typed: DataFrame, work: Work) -> DataFrame:
    """Rows of the window and its lookback, each with its status."""
    faults = {f"no_{name}": F.col(name).isNull() for name in ("request_id", "user_id", "item_id", "author_id", "event_time")}
    faults |= {f"label_{name}_not_0_or_1": F.col(f"label_{name}").isNull() for name, _ in LABELS}
    faults |= {"is_randomized_unknown": F.col("is_randomized").isNull(), "propensity_outside_0_1": F.col("is_randomized")}
    reason = F.coalesce(*(F.when(is_wrong, F.lit(name)) for name, is_wrong in faults.items()))
    content = F.xxhash64(*(name for name in typed.columns if name != "raw"))
    day = F.unix_date(F.col("event_time").cast("date"))
    positives = reduce(lambda total, label: total + F.coalesce(F.col(f"label_{label[0]}"), F.lit(0)), LABELS, F.lit(0))
    start, end = (F.timestamp_micros(F.lit(moment)) for moment in (work.start_us, work.end_us))
    rows = (
        typed.withColumn("reason", reason)
        .withColumn("raw", F.when(F.col("reason").isNotNull(), F.to_json("raw")))
        .withColumn("row_key", F.xxhash64("user_id", "item_id", "event_time"))
        .withColumn("content", content)
        .withColumn("positives", positives)
        .withColumn("is_whole", F.col("reason").isNull())
        .withColumn("day", day)
        .withColumn("in_window", F.coalesce((F.col("event_time") >= start) & (F.col("event_time") < end), F.lit(True)))
        .filter(F.col("day").isNull() | F.col("day").between(work.first_day, work.end_day - 1))
    )
    same = Window.partitionBy("user_id", "item_id", "event_time", "is_whole").orderBy(F.desc("positives"), "content")
    previous = F.lag("content").over(same)
    status = (
        F.when(F.col("reason").isNotNull(), F.col("reason"))
        .when(F.col("previous").isNull(), F.lit("valid"))
        .when(F.col("previous") == F.col("content"), F.lit("exact_duplicate"))
        .otherwise(F.lit("conflicting_duplicate"))
    )
    judged = rows.withColumn("previous", previous).withColumn("status", status)
    return judged.drop("reason", "content", "positives", "is_whole", "previous")


def _weighted() -> list[Column]:
    weight = F.lit(1.0) / F.col("inclusion_probability")
    counted = [F.sum(F.when(F.col(f"label_{label}") == 1, weight).otherwise(0.0)).alias(label) for label in RATE_LABELS]
    return [F.sum(weight).alias("impressions"), *counted]


def _rates(work: Work, prefix: str) -> list[Column]:
    seen = F.coalesce(F.col("impressions"), F.lit(0.0))
    rates = [
        (F.coalesce(F.col(label), F.lit(0.0)) + work.smoothing * work.priors[label]) / (seen + work.smoothing)
        for label in RATE_LABELS
    ]
    named = [rate.alias(f"{prefix}{label}_rate") for label, rate in zip(RATE_LABELS, rates, strict=True)]
    return [*named, seen.alias(f"{prefix}impressions")]


def _as_of(valid: DataFrame, entity: str, work: Work) -> DataFrame:
    key = f"{entity}_id"
    before = Window.partitionBy(key).orderBy("day").rangeBetween(-work.lookback_days, -1)
    daily = valid.groupBy(key, "day").agg(*_weighted())
    sums = daily.select(key, "day", *(F.sum(name).over(before).alias(name) for name in ("impressions", *RATE_LABELS)))
    return sums.select(key, "day", *_rates(work, f"{entity}_"))


def _snapshot(valid: DataFrame, work: Work) -> DataFrame:
    recent = valid.filter(F.col("day").between(work.end_day - work.lookback_days, work.end_day - 1))
    each = [
        recent.groupBy(F.col(f"{entity}_id").alias("key"))
        .agg(*_weighted())
        .select(F.lit(entity).alias("entity"), "key", *_rates(work, ""))
        for entity in COUNTED
    ]
    return reduce(DataFrame.unionByName, each)


def _sample(spark: SparkSession, work: Work) -> dict[str, Any]:
    def uniform(salt: int) -> Column:
        return F.shiftrightunsigned(F.xxhash64("row_key", F.lit(salt).cast("bigint")), 11).cast("double") / F.lit(2.0**53)

    impressions = spark.read.parquet(str(work.out / "impressions"))
    eval_start, calibration_start = (F.timestamp_micros(F.lit(x)) for x in (work.eval_start_us, work.calibration_start_us))
    is_drawn = uniform(calibration_salt(work.salt)) < work.calibration_share
    split = (
        F.when(F.col("is_randomized"), "randomized")
        .when(F.col("event_time") >= eval_start, "eval")
        .when((F.col("event_time") >= calibration_start) & is_drawn, "calibration")
        .otherwise("train")
    )
    is_positive = reduce(lambda found, label: found | (F.col(f"label_{label[0]}") == 1), LABELS, F.lit(False))
    rate = F.when((F.col("split") != "train") | is_positive, 1.0).otherwise(work.negative_rate)
    chosen = (
        impressions.withColumn("split", split)
        .withColumn("rate", rate)
        .withColumn("is_kept", uniform(work.salt) < F.col("rate"))
        .withColumn("weight", F.lit(1.0) / (F.col("inclusion_probability") * F.col("rate")))
    )
    kept = F.col("is_kept").cast("int")
    positives = [F.sum(F.col(f"label_{name}") * kept).alias(f"positives.{name}") for name, _ in LABELS]
    weight_sum = F.sum(F.when(F.col("is_kept"), F.col("weight"))).alias("weight_sum")
    seen, rows = F.count("*").alias("rows_seen"), F.sum(kept).alias("rows")
    counts = chosen.groupBy("split").agg(seen, rows, weight_sum, *positives).collect()
    written = chosen.filter("is_kept").drop("rate", "is_kept").repartitionByRange("split", "row_key")
    written.sortWithinPartitions("split", *_ORDER).write.partitionBy("split").parquet(str(work.out / "splits"))
    return {row["split"]: {name: float(row[name]) for name in ("rows_seen", "rows", "weight_sum")} for row in counts}
