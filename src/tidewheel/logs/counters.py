"""As-of counters: what was known of a user, item or author before the day of an impression.

The definition is `tidewheel.contracts.recipe.CounterConfig`. Days are UTC. A row sees whole earlier days only: nothing of
its own day, so neither its own outcome nor what its session did next can reach it. Where the log says when a label became
known, the label counts from that day on and not from the impression's; and a row that only its engagement brought into the
log counts as an impression from that day on too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import reduce
from typing import TYPE_CHECKING

from tidewheel.contracts.recipe import CounterConfig
from tidewheel.contracts.schema import label_column
from tidewheel.logs.adapter import IMPRESSION_RATE, LABEL_TIME_PREFIX, day_number

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame

# Weights are summed in billionths: sums of integers do not depend on the order of the rows, sums of doubles do, and equal
# logs must give equal files. The sum of one key over a lookback fits as long as it stands for fewer than 9e9 impressions.
BILLION = 1_000_000_000


def increments(history: DataFrame, entity: str, config: CounterConfig) -> DataFrame:
    """What each day added to the counters of an entity: `key`, `day`, `impressions` and the labels, in billionths.

    Every (key, day) of an impression is there, also where nothing was added.

    Args:
        history: valid rows with the entity's id, `day`, `inclusion_probability` and the labels; and from logs that know
            when labels came, `known_at_<label>` (null where the label is 0) and `impression_rate` (null where only an
            engagement was logged).
    """
    from pyspark.sql import functions as F

    names = ("impressions", *config.labels)
    key, weight = F.col(f"{entity}_id").alias("key"), billionths(F.col("inclusion_probability"))
    if IMPRESSION_RATE not in history.columns:
        added = [weight.alias("impressions"), *(_where(_is_positive(x), weight).alias(x) for x in config.labels)]
        return history.select(key, "day", *added).groupBy("key", "day").agg(*_sums(names))

    known = {label: day_number(F.col(LABEL_TIME_PREFIX + label)) for label in _timed_labels(history)}
    first_known = F.least(*known.values(), F.lit(None).cast("int"))  # null where no label is 1
    alone = F.coalesce(billionths(F.col(IMPRESSION_RATE)), F.lit(0))
    on_day = [
        F.when(first_known <= F.col("day"), weight).otherwise(alone).alias("impressions"),
        *(_where(known[label] <= F.col("day"), weight).alias(label) for label in config.labels),
    ]
    pieces = [history.select(key, "day", *on_day)]
    late = history.filter(reduce(lambda a, b: a | b, (F.coalesce(day > F.col("day"), F.lit(False)) for day in known.values())))
    nothing = F.lit(0).cast("bigint")
    turned = [(weight - alone).alias("impressions"), *(nothing.alias(label) for label in config.labels)]
    pieces.append(late.filter(first_known > F.col("day")).select(key, first_known.alias("day"), *turned))
    for label in config.labels:
        came = [nothing.alias("impressions"), *((weight if x == label else nothing).alias(x) for x in config.labels)]
        pieces.append(late.filter(known[label] > F.col("day")).select(key, known[label].alias("day"), *came))
    return reduce(lambda a, b: a.unionByName(b), pieces).groupBy("key", "day").agg(*_sums(names))


def as_of(
    added: DataFrame, entity: str, first: int, last: int, config: CounterConfig, priors: Mapping[str, float]
) -> DataFrame:
    """`<entity>_id`, `day` and the counters that its rows of that day see (float64), for every key and day of `added`.

    What a day added is taken away again when it leaves the lookback: then a running sum is enough, in one pass, where a
    window of so many days would look back from every row.

    Args:
        first: the earliest day of `added`, days since 1970.
        last: the latest day whose rows will ask.
    """
    from pyspark.sql import Window
    from pyspark.sql import functions as F

    names = ("impressions", *config.labels)
    net = {name: f"net_{name}" for name in names}
    flows = added.select("key", "day", *names, *(F.col(name).alias(net[name]) for name in names))
    leaves = config.lookback_days + 1
    if first + leaves <= last:
        nothing = F.lit(0).cast("bigint")
        gone = added.filter(F.col("day") + leaves <= last).select(
            "key",
            (F.col("day") + leaves).alias("day"),
            *(nothing.alias(name) for name in names),
            *((-F.col(name)).alias(net[name]) for name in names),
        )
        flows = flows.unionByName(gone).groupBy("key", "day").agg(*_sums((*names, *net.values())))
    so_far = Window.partitionBy("key").orderBy("day").rowsBetween(Window.unboundedPreceding, 0)
    sums = flows.select("key", "day", *((F.sum(net[name]).over(so_far) - F.col(name)).alias(name) for name in names))
    counters = [column.alias(f"{entity}_{name}") for name, column in _formula(config, priors).items()]
    return sums.select(F.col("key").alias(f"{entity}_id"), "day", *counters)


def snapshot(added: DataFrame, entity: str, day: int, config: CounterConfig, priors: Mapping[str, float]) -> DataFrame:
    """The counters that rows of `day` see: `entity`, `key` (int64), `impressions`, `<label>_rate`; keys seen in its lookback.

    What a server looks up while this snapshot is the newest; a key that is not in it has 0 impressions and its priors.
    """
    from pyspark.sql import functions as F

    recent = added.filter((F.col("day") >= day - config.lookback_days) & (F.col("day") < day))
    sums = recent.groupBy("key").agg(*_sums(("impressions", *config.labels)))
    named = [column.alias(name) for name, column in _formula(config, priors).items()]
    return sums.select(F.lit(entity).alias("entity"), "key", *named)


def billionths(probability: Column) -> Column:
    """1 / probability in billionths, as an integer."""
    from pyspark.sql import functions as F

    return F.round(F.lit(float(BILLION)) / probability).cast("bigint")


def _is_positive(label: str) -> Column:
    from pyspark.sql import functions as F

    return F.col(label_column(label)) == 1


def _timed_labels(history: DataFrame) -> list[str]:
    return [name.removeprefix(LABEL_TIME_PREFIX) for name in history.columns if name.startswith(LABEL_TIME_PREFIX)]


def _where(condition: Column, value: Column) -> Column:
    from pyspark.sql import functions as F

    return F.when(condition, value).otherwise(F.lit(0).cast("bigint"))


def _sums(names: Sequence[str]) -> list[Column]:
    from pyspark.sql import functions as F

    return [F.sum(name).cast("bigint").alias(name) for name in names]


def _formula(config: CounterConfig, priors: Mapping[str, float]) -> dict[str, Column]:
    from pyspark.sql import functions as F

    def summed(name: str) -> Column:
        return F.coalesce(F.col(name).cast("double") / F.lit(float(BILLION)), F.lit(0.0))

    impressions, smoothing = summed("impressions"), F.lit(config.smoothing)
    rates = {
        f"{label}_rate": (summed(label) + smoothing * F.lit(priors[label])) / (impressions + smoothing)
        for label in config.labels
    }
    return {"impressions": impressions} | rates
