"""Sequences: the last items that a user engaged with before the day of an impression, newest first, with their ages.

The definition is `tidewheel.contracts.schema.FeatureSpec`; the days are those of the as-of counters. A row of day D (UTC) sees
what was known by the end of day D - 1 and happened within `lookback_days`: an engagement counts from the moment it became
known, and from the impression's where the log does not say. An age is in whole hours before the start of day D, so it is a
property of the user and the day, and a server may keep it for a day.

A user's sequence changes only on days on which the user engages. So it is written down once for each of those days, as the
state that later days see until the next one, and a row looks up the one state that holds on its day: nothing is multiplied by
the days of the window, and no more than `length` items of a user are held at a time.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from typing import TYPE_CHECKING

from tidewheel.contracts.schema import FeatureSpec, label_column
from tidewheel.logs.adapter import IMPRESSION_RATE, LABEL_TIME_PREFIX, day_number

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame

MICROSECONDS_A_DAY = 86_400_000_000
MICROSECONDS_AN_HOUR = 3_600_000_000
# Columns of a state; no feature's name begins so.
_KEY, _SINCE, _UNTIL, _ITEMS = "_state_of", "_since", "_until", "_items"


def states(history: DataFrame, feature: FeatureSpec) -> DataFrame:
    """The sequences of all users after each day on which they engaged, of the days that see it: from `_since` + 1 to `_until`.

    `_until` is null while nothing came later. Items that became known at the same moment are in the order of their row key.

    Args:
        history: as for `tidewheel.logs.counters.additions`, with `row_key`, `event_time` and the column `feature.of`.
    """
    from pyspark.sql import Window
    from pyspark.sql import functions as F

    engaged = history.select(
        F.col("user_id").alias(_KEY),
        _engaged_at(history, feature.label).alias("time"),
        "row_key",
        F.col(feature.of).cast("bigint").alias("item"),
    )
    engaged = engaged.filter(F.col("time").isNotNull() & F.col("item").isNotNull())
    engaged = engaged.withColumn(_SINCE, day_number(F.col("time"))).withColumn("time", F.unix_micros("time"))
    newest_first = Window.partitionBy(_KEY).orderBy(F.desc("time"), F.desc("row_key"))
    of_last = newest_first.rowsBetween(Window.currentRow, feature.length - 1)
    listed = engaged.select(
        _KEY,
        _SINCE,
        F.lag(_SINCE).over(newest_first).alias(_UNTIL),
        F.collect_list(F.struct("time", "item")).over(of_last).alias(_ITEMS),
    )
    # Only after a day's last engagement: what comes before it in this order is of a later day.
    return listed.filter(F.col(_UNTIL).isNull() | (F.col(_UNTIL) > F.col(_SINCE)))


def with_sequence(rows: DataFrame, found: DataFrame, feature: FeatureSpec, lookback_days: int) -> DataFrame:
    """Rows, each with the columns of a sequence as known on its `day`; empty lists where nothing was.

    Args:
        rows: with `user_id` and `day`, days since 1970.
        found: see `states`.
    """
    from pyspark.sql import functions as F

    day = F.col("day")
    sees = (F.col(_SINCE) < day) & (F.col(_UNTIL).isNull() | (day <= F.col(_UNTIL)))
    joined = rows.join(found, (F.col("user_id") == F.col(_KEY)) & sees, "left")
    start = day.cast("bigint") * F.lit(MICROSECONDS_A_DAY)
    first = start - F.lit(lookback_days * MICROSECONDS_A_DAY)
    joined = joined.withColumn(_ITEMS, F.filter(_ITEMS, lambda item: item["time"] >= first))
    hours = F.transform(_ITEMS, lambda item: F.floor((start - item["time"]) / F.lit(MICROSECONDS_AN_HOUR)).cast("int"))
    name, ages = feature.columns
    return joined.select(
        *rows.columns,
        F.coalesce(F.col(f"{_ITEMS}.item"), F.array().cast("array<bigint>")).alias(name),
        F.coalesce(hours, F.array().cast("array<int>")).alias(ages),
    )


def snapshot(users: DataFrame, found: Sequence[tuple[FeatureSpec, DataFrame]], day: int, lookback_days: int) -> DataFrame:
    """The sequences that rows of `day` see: the columns of `users` and of the features; users who have any.

    What a server looks up while this snapshot is the newest; of a user that is not in it all sequences are empty.

    Args:
        users: one row a user, with `user_id`.
    """
    from pyspark.sql import functions as F

    asked = users.withColumn("day", F.lit(day))
    for feature, of_feature in found:
        asked = with_sequence(asked, of_feature, feature, lookback_days)
    is_there = reduce(lambda a, b: a | b, (F.size(feature.name) > 0 for feature, _ in found))
    return asked.filter(is_there).drop("day")


def _engaged_at(history: DataFrame, label: str) -> Column:
    """When a row counts, as for the counters: null where its label is 0; without a label, every impression counts."""
    from pyspark.sql import functions as F

    time = F.col("event_time")
    known = [name for name in history.columns if name.startswith(LABEL_TIME_PREFIX)]
    if label and known:
        came = F.col(LABEL_TIME_PREFIX + label)
        return F.when(came.isNotNull(), F.greatest(came, time))  # a client's clock may be behind ours
    if label:
        return F.when(F.col(label_column(label)) == 1, time)
    if not known:
        return time
    # A row that only its engagement brought into the log.
    alone = F.greatest(F.least(*map(F.col, known), F.lit(None).cast("timestamp")), time)
    return F.when(F.col(IMPRESSION_RATE).isNotNull(), time).otherwise(alone)
