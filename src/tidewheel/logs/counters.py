"""As-of counters: what was known of a user, item or author before the day of an impression.

The definition is `tidewheel.contracts.recipe.CounterConfig`. Days are UTC. A row sees whole earlier days only: nothing of
its own day, so neither its own outcome nor what its session did next can reach it. Where the log says when a label became
known, the label counts from that day on and not from the impression's; and a row that only its engagement brought into the
log counts as an impression from that day on too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
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


def known_on(added: DataFrame, entity: str, days: Sequence[int], config: CounterConfig) -> DataFrame:
    """What is known of each key of an entity on each of some days: `key`, and sums in billionths named by `_named`.

    A sum a day, all in one pass over the rows: a window of so many days, however it is written, puts every key's rows in
    order first, which takes twice as long.

    Args:
        added: see `additions`; summed `by_day` or not.
        days: on which will be asked, days since 1970.
    """
    from pyspark.sql import functions as F

    nothing = F.lit(0).cast("bigint")
    sums = []
    for day in days:
        is_before = F.col("day").between(day - config.lookback_days, day - 1)
        for name in _names(config):
            sums.append(
                F.sum(F.when(is_before, F.col(name)).otherwise(nothing)).cast("bigint").alias(_named(entity, name, day))
            )
    return added.groupBy("key").agg(*sums)


def by_day(added: DataFrame, config: CounterConfig) -> DataFrame:
    """Additions summed by key and day: far fewer rows, where a day has many of a key."""
    from pyspark.sql import functions as F

    return added.groupBy("key", "day").agg(*(F.sum(name).cast("bigint").alias(name) for name in _names(config)))


def additions(history: DataFrame, entity: str, config: CounterConfig) -> DataFrame:
    """What each row adds to the counters and on which day: `key`, `day`, `impressions` and the labels, in billionths.

    Args:
        history: valid rows with the entity's id, `day`, `inclusion_probability` and the labels; and from logs that know
            when labels came, `known_at_<label>` (null where the label is 0) and `impression_rate` (null where only an
            engagement was logged).
    """
    from pyspark.sql import functions as F

    key, weight = F.col(f"{entity}_id").alias("key"), billionths(F.col("inclusion_probability"))
    if IMPRESSION_RATE not in history.columns:
        added = [weight.alias("impressions"), *(_where(_is_positive(x), weight).alias(x) for x in config.labels)]
        return history.select(key, "day", *added)

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
    return reduce(lambda a, b: a.unionByName(b), pieces)


def as_of(entity: str, days: Sequence[int], config: CounterConfig, priors: Mapping[str, float]) -> dict[str, Column]:
    """Counter -> its value on a row's `day` (float64), from the sums of `known_on` joined to the row."""
    from pyspark.sql import functions as F

    def on_its_day(name: str) -> Column:
        first, *others = days
        found = F.when(F.col("day") == first, F.col(_named(entity, name, first)))
        return reduce(lambda so_far, day: so_far.when(F.col("day") == day, F.col(_named(entity, name, day))), others, found)

    return {f"{entity}_{name}": column for name, column in _formula(on_its_day, config, priors).items()}


def snapshot(known: DataFrame, entity: str, day: int, config: CounterConfig, priors: Mapping[str, float]) -> DataFrame:
    """The counters that rows of `day` see: `entity`, `key` (int64), `impressions`, `<label>_rate`; keys seen in its lookback.

    What a server looks up while this snapshot is the newest; a key that is not in it has 0 impressions and its priors.
    """
    from pyspark.sql import functions as F

    sums = {name: F.col(_named(entity, name, day)) for name in _names(config)}
    is_seen = reduce(lambda a, b: a | b, (column != 0 for column in sums.values()))
    named = [column.alias(name) for name, column in _formula(sums.__getitem__, config, priors).items()]
    return known.filter(is_seen).select(F.lit(entity).alias("entity"), "key", *named)


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


def _names(config: CounterConfig) -> tuple[str, ...]:
    return ("impressions", *config.labels)


def _named(entity: str, name: str, day: int) -> str:
    return f"_{entity}_{name}_{day}"


def _formula(summed: Callable[[str], Column], config: CounterConfig, priors: Mapping[str, float]) -> dict[str, Column]:
    from pyspark.sql import functions as F

    def total(name: str) -> Column:
        return F.coalesce(summed(name).cast("double") / F.lit(float(BILLION)), F.lit(0.0))

    impressions, smoothing = total("impressions"), F.lit(config.smoothing)
    rates = {
        f"{label}_rate": (total(label) + smoothing * F.lit(priors[label])) / (impressions + smoothing)
        for label in config.labels
    }
    return {"impressions": impressions} | rates
