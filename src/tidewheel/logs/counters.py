"""As-of counters: what was known of a user, item or author before the day of an impression.

The definition is `tidewheel.contracts.recipe.CounterConfig`. Days are UTC. A row sees whole earlier days only: nothing of
its own day, so neither its own outcome nor what its session did next can reach it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from tidewheel.contracts.recipe import CounterConfig
from tidewheel.contracts.schema import label_column
from tidewheel.logs.sources import COUNTED

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame

# Sums of decimals do not depend on the order of the rows, sums of doubles do: equal logs must give equal files.
_SUMMED = "decimal(28,9)"


def with_counters(rows: DataFrame, history: DataFrame, config: CounterConfig, priors: Mapping[str, float]) -> DataFrame:
    """`rows` with `<entity>_<label>_rate` and `<entity>_impressions` (float64) as of before each row's day.

    Args:
        rows: rows with the entities' ids and `day` (days since 1970); every one of them is in `history` too.
        history: valid rows with ids, `day`, `inclusion_probability` and the labels, `lookback_days` further back.
        config: what is counted.
        priors: label -> its rate in a counter that has seen nothing yet.
    """
    from pyspark.sql import Window
    from pyspark.sql import functions as F

    for entity in COUNTED:
        key = f"{entity}_id"
        before = Window.partitionBy(key).orderBy("day").rangeBetween(-config.lookback_days, -1)
        sums = [F.sum(name).over(before).alias(f"{name}_before") for name in ("impressions", *config.labels)]
        earlier = _daily(history, key, config).select(key, "day", *sums)
        counters = _counters(entity, "_before", config, priors)
        rows = rows.join(earlier.select(key, "day", *counters), [key, "day"], "left")
    return rows


def snapshot(history: DataFrame, day: int, config: CounterConfig, priors: Mapping[str, float]) -> DataFrame:
    """The counters that rows of `day` see: `entity`, `key` (int64), `impressions`, `<label>_rate`; keys seen in its lookback.

    What a server looks up while this snapshot is the newest; a key that is not in it has 0 impressions and its priors.
    """
    from pyspark.sql import functions as F

    recent = history.filter((F.col("day") >= day - config.lookback_days) & (F.col("day") < day))
    frames = []
    for entity in COUNTED:
        sums = recent.groupBy(f"{entity}_id").agg(*_weighted(config)).withColumnRenamed(f"{entity}_id", "key")
        named = [column.alias(name) for name, column in _formula("", config, priors).items()]
        frames.append(sums.select(F.lit(entity).alias("entity"), "key", *named))
    users, items, authors = frames
    return users.unionByName(items).unionByName(authors)


def _daily(history: DataFrame, key: str, config: CounterConfig) -> DataFrame:
    return history.groupBy(key, "day").agg(*_weighted(config))


def _weighted(config: CounterConfig) -> list[Column]:
    from pyspark.sql import functions as F

    weight = (F.lit(1.0) / F.col("inclusion_probability")).cast(_SUMMED)
    counted = [F.sum(F.when(F.col(label_column(label)) == 1, weight)).alias(label) for label in config.labels]
    return [F.sum(weight).alias("impressions"), *counted]


def _counters(entity: str, suffix: str, config: CounterConfig, priors: Mapping[str, float]) -> list[Column]:
    return [column.alias(f"{entity}_{name}") for name, column in _formula(suffix, config, priors).items()]


def _formula(suffix: str, config: CounterConfig, priors: Mapping[str, float]) -> dict[str, Column]:
    from pyspark.sql import functions as F

    def summed(name: str) -> Column:
        return F.coalesce(F.col(name + suffix).cast("double"), F.lit(0.0))

    impressions = summed("impressions")
    smoothing = F.lit(config.smoothing)
    rates = {
        f"{label}_rate": (summed(label) + smoothing * F.lit(priors[label])) / (impressions + smoothing)
        for label in config.labels
    }
    return {"impressions": impressions} | rates
