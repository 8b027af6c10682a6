"""Judges every row of a log: valid, a repeat of another, or malformed with a reason. Nothing is dropped here."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from typing import TYPE_CHECKING

from tidewheel.contracts.schema import FeatureSpec, label_column
from tidewheel.logs.adapter import GIVEN_COLUMNS, RAW
from tidewheel.logs.fitting import UNFIT_PREFIX, fitted, unfit

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame

STATUS = "status"
VALID = "valid"
EXACT_DUPLICATE = "exact_duplicate"
CONFLICTING_DUPLICATE = "conflicting_duplicate"
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


def judge(rows: DataFrame, labels: Sequence[str], features: Sequence[FeatureSpec]) -> DataFrame:
    """Canonical rows in canonical types, each with `status`, `day` (days since 1970, UTC) and `raw`.

    Where a feature may lose values to its type, a column `_unfit_<feature>` says whether the row did.

    `status` is `valid`, the reason why the row is malformed (`raw` then holds the log's row as JSON, else null), or:
    - `exact_duplicate`: all its columns equal those of another row of the same impression;
    - `conflicting_duplicate`: its request, user, item and time equal those of a row that stays, its other columns do not.
      The row with the most positive labels stays: logs write an impression again once more is known of it (on KuaiRand, 3
      such pairs in 185,061 rows; in all three one row's positives contain the other's). Ties go to the smaller hash.
    """
    from pyspark.sql import Window
    from pyspark.sql import functions as F

    own = [feature for feature in features if feature.name not in GIVEN_COLUMNS]
    typed = rows.select(*_typed(rows, labels, features), *unfit(own, dict(rows.dtypes)), RAW)
    typed = typed.withColumn("reason", _reason(labels)).withColumn("row_key", F.xxhash64("request_id", "item_id", "event_time"))
    typed = typed.withColumn(RAW, F.when(F.col("reason").isNotNull(), F.to_json(RAW)))
    marks = [name for name in typed.columns if name.startswith(UNFIT_PREFIX)]
    content = [name for name in typed.columns if name not in (RAW, "reason", "row_key", *marks)]
    positives = reduce(lambda total, label: total + F.coalesce(F.col(label_column(label)), F.lit(0)), labels, F.lit(0))
    typed = typed.withColumn("positives", positives).withColumn("content", F.xxhash64(*content))
    typed = typed.withColumn("identity", F.xxhash64("item_id", "event_time", "request_id", F.col("reason").isNull()))
    # Neighbours in one long order a user: a window partition for each impression costs four times as much.
    of_user = Window.partitionBy("user_id").orderBy("identity", "item_id", "event_time", F.desc("positives"), "content")
    previous = {name: F.lag(name).over(of_user).alias(f"previous_{name}") for name in ("identity", "content")}
    neighbours = typed.select("*", *previous.values())
    status = (
        F.when(F.col("reason").isNotNull(), F.col("reason"))
        .when(F.col("previous_identity").isNull() | (F.col("previous_identity") != F.col("identity")), F.lit(VALID))
        .when(F.col("previous_content") == F.col("content"), F.lit(EXACT_DUPLICATE))
        .otherwise(F.lit(CONFLICTING_DUPLICATE))
    )
    day = F.unix_date(F.col("event_time").cast("date"))
    return neighbours.select("row_key", *content, *marks, day.alias("day"), status.alias(STATUS), RAW)


def _typed(rows: DataFrame, labels: Sequence[str], features: Sequence[FeatureSpec]) -> list[Column]:
    from pyspark.sql import functions as F

    found = dict(rows.dtypes)
    types = dict(_TYPES) | dict.fromkeys(map(label_column, labels), "tinyint")
    columns = {name: F.col(name).try_cast(kind) for name, kind in types.items() if name in GIVEN_COLUMNS}
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
    inclusion, propensity = F.col("inclusion_probability"), F.col("propensity")
    faults["inclusion_probability_outside_0_1"] = ~F.coalesce((inclusion > 0) & (inclusion <= 1), F.lit(False))
    faults["is_randomized_unknown"] = F.col("is_randomized").isNull()
    is_exact = F.coalesce((propensity > 0) & (propensity <= 1), F.lit(False))
    faults["propensity_outside_0_1"] = F.col("is_randomized") & ~is_exact
    return F.coalesce(*(F.when(is_wrong, F.lit(reason)) for reason, is_wrong in faults.items()))
