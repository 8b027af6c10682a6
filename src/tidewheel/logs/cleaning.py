"""Judges every row of a log: valid, a repeat of another, or malformed with a reason. Nothing is dropped here."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING

from tidewheel.contracts.schema import FeatureSpec, label_column
from tidewheel.logs.adapter import FAULT, IMPRESSION_RATE, LABEL_TIME_PREFIX, RAW, day_number
from tidewheel.logs.fitting import UNFIT_PREFIX, fitted, unfit

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame

STATUS = "status"
VALID = "valid"
EXACT_DUPLICATE = "exact_duplicate"
CONFLICTING_DUPLICATE = "conflicting_duplicate"
AFTER_HORIZON = "after_horizon"  # known only through an engagement after its label horizon: not there, had we looked in time
REPEATED = "repeated"  # one of several rows of an impression, before `settle`
# Any other status is why a row is in quarantine.
FINE = (VALID, EXACT_DUPLICATE, CONFLICTING_DUPLICATE, AFTER_HORIZON, REPEATED)
_IDS = ("request_id", "user_id", "item_id", "author_id")
_TYPES = {
    "request_id": "string",
    "user_id": "bigint",
    "item_id": "bigint",
    "author_id": "bigint",
    "event_time": "timestamp",
    "position": "int",
    "is_randomized": "boolean",
    "propensity": "double",
    "inclusion_probability": "double",
}


def judge(
    rows: DataFrame,
    labels: Sequence[str],
    features: Sequence[FeatureSpec],
    key: Sequence[str],
    scratch: Path,
    is_unique: bool = False,
) -> DataFrame:
    """Canonical rows in canonical types, each with `row_key`, `status`, `day` (days since 1970, UTC) and `raw`.

    Where a feature may lose values to its type, a column `_unfit_<feature>` says whether the row did.

    `status` is `valid`, `after_horizon`, the reason why the row is malformed (`raw` then holds the log's row as JSON, else
    null), or `repeated`: which of the rows of its impression stays is for `settle` to say.

    Args:
        key: the columns that name one impression.
        scratch: a folder that is not there yet (see `mark_repeats`).
        is_unique: the rows that are not at fault have distinct keys already.
    """
    from pyspark.sql import functions as F

    given = [name for name in (FAULT, "day") if name in rows.columns]
    own = [feature for feature in features if feature.name not in _TYPES]
    typed = rows.select(*_typed(rows, labels, features), *unfit(own, dict(rows.dtypes)), RAW, *given)
    if "day" not in given:
        typed = typed.withColumn("day", day_number(F.col("event_time")))
    found = F.coalesce(F.col(FAULT), _reason(labels)) if FAULT in given else _reason(labels)
    typed = typed.withColumn("reason", found).withColumn("row_key", F.xxhash64(*key))
    if is_unique:
        judged = typed.withColumn(STATUS, F.coalesce(F.col("reason"), F.lit(VALID)))
    else:
        judged = mark_repeats(typed, scratch)
    judged = judged.withColumn(RAW, F.when(~F.col(STATUS).isin(*FINE), F.to_json(RAW)))
    return judged.select("row_key", *(name for name in judged.columns if name not in ("row_key", "reason", FAULT)))


def mark_repeats(rows: DataFrame, scratch: Path) -> DataFrame:
    """Rows with `status`: their `reason` where they have one, `repeated` where others have the same `row_key`, else `valid`.

    Repeats are rare: the keys that occur twice are found first, and only their rows will be put in order. A window over
    all rows, or a partition for each impression, costs several times as much.

    Args:
        scratch: a folder that is not there yet, for the keys; gone with what is read from it.
    """
    import pyarrow.parquet as pq
    from pyspark.sql import functions as F

    usable = rows.filter(F.col("reason").isNull()).groupBy("row_key").agg(F.count(F.lit(1)).alias("times"))
    usable.filter(F.col("times") > 1).select(F.col("row_key").alias("repeated_key")).write.parquet(scratch.as_posix())
    paths = sorted(path.as_posix() for path in scratch.glob("*.parquet"))
    if not sum(pq.read_metadata(path).num_rows for path in paths):
        return rows.withColumn(STATUS, F.coalesce(F.col("reason"), F.lit(VALID)))
    repeated = F.broadcast(rows.sparkSession.read.parquet(*paths))
    marked = rows.join(repeated, F.col("row_key") == F.col("repeated_key"), "left")
    is_repeated = F.when(F.col("repeated_key").isNotNull(), F.lit(REPEATED))
    return marked.withColumn(STATUS, F.coalesce(F.col("reason"), is_repeated, F.lit(VALID))).drop("repeated_key")


def settle(repeated: DataFrame, key: Sequence[str], labels: Sequence[str]) -> DataFrame:
    """The `repeated` rows of some judged rows with what they are: `valid` once for each key, else

    - `exact_duplicate`: all its columns equal those of another row of the same impression;
    - `conflicting_duplicate`: its `key` equals that of a row that stays, its other columns do not. The row with the most
      positive labels stays: logs write an impression again once more is known of it (on KuaiRand, 3 such pairs in 185,061
      rows; in all three one row's positives contain the other's). Then the latest; ties go to the smaller hash.
    """
    from pyspark.sql import functions as F

    positives = reduce(lambda total, label: total + F.col(label_column(label)).cast("int"), labels, F.lit(0))
    content = [x for x in repeated.columns if x not in (RAW, STATUS, "row_key", "day") and not x.startswith(UNFIT_PREFIX)]
    return in_order(repeated.withColumn("positives", positives), key, content, ("positives", "event_time")).drop("positives")


def in_order(repeated: DataFrame, key: Sequence[str], content: Sequence[str], latest: Sequence[str]) -> DataFrame:
    """Repeated rows with their `status`: of the rows of one key, the one with the highest values of `latest` stays.

    Args:
        content: the columns in which an exact repeat equals another row.
    """
    from pyspark.sql import Window
    from pyspark.sql import functions as F

    of_key = Window.partitionBy("row_key", *key).orderBy(*(F.desc(name) for name in latest), "content")
    ranked = repeated.withColumn("content", F.xxhash64(*content)).withColumn("rank", F.row_number().over(of_key))
    ranked = ranked.withColumn("previous", F.lag("content").over(of_key))
    status = (
        F.when(F.col("rank") == 1, F.lit(VALID))
        .when(F.col("previous") == F.col("content"), F.lit(EXACT_DUPLICATE))
        .otherwise(F.lit(CONFLICTING_DUPLICATE))
    )
    return ranked.withColumn(STATUS, status).drop("rank", "previous", "content")


def _typed(rows: DataFrame, labels: Sequence[str], features: Sequence[FeatureSpec]) -> list[Column]:
    from pyspark.sql import functions as F

    found = dict(rows.dtypes)
    types = dict(_TYPES)
    types |= {name: "timestamp" for name in found if name.startswith(LABEL_TIME_PREFIX)}
    types |= {IMPRESSION_RATE: "double"} if IMPRESSION_RATE in found else {}
    columns = {name: F.col(name).try_cast(kind) for name, kind in types.items() if name in found}
    for name in map(label_column, labels):
        # Anything but 0 and 1 becomes null; without this 0.5 would be cast to 0.
        number = F.col(name).try_cast("double")
        columns[name] = F.when(number.isin(0.0, 1.0), number.cast("tinyint"))
    for feature in features:
        if feature.name in columns:
            continue
        columns[feature.name] = fitted(feature, found[feature.name])
    return [column.alias(name) for name, column in columns.items()]


def _reason(labels: Sequence[str]) -> Column:
    """The first thing that is wrong with a row, or null."""
    from pyspark.sql import functions as F

    faults = {f"no_{name}": F.col(name).isNull() for name in (*_IDS, "event_time")}
    faults |= {f"{label_column(label)}_not_0_or_1": F.col(label_column(label)).isNull() for label in labels}
    inclusion = F.col("inclusion_probability")
    faults["inclusion_probability_outside_0_1"] = ~is_probability(inclusion)
    faults["is_randomized_unknown"] = F.col("is_randomized").isNull()
    faults["propensity_outside_0_1"] = F.col("is_randomized") & ~is_probability(F.col("propensity"))
    return first_fault(faults)


def is_probability(column: Column) -> Column:
    """In (0, 1]; false for null and NaN."""
    from pyspark.sql import functions as F

    return F.coalesce((column > 0) & (column <= 1), F.lit(False))


def first_fault(faults: dict[str, Column]) -> Column:
    """The name of the first fault that is true, or null."""
    from pyspark.sql import functions as F

    return F.coalesce(*(F.when(is_wrong, F.lit(reason)) for reason, is_wrong in faults.items()))
