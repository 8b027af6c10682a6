"""The sampler on dataframes: splits by time, keeps training rows by hash, weighs every row. Any Spark engine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tidewheel.contracts.recipe import WindowConfig
from tidewheel.contracts.sampling import AGE, MICRO, Condition, PlanRule, SampleConfig, SamplePlan
from tidewheel.contracts.schema import WEIGHT, label_column
from tidewheel.contracts.window import Window
from tidewheel.sampling.loader import DAY_MICROSECONDS, EXPECTED, GROUP, SPLITS
from tidewheel.sampling.parts import write_splits
from tidewheel.sampling.plan import make_plan
from tidewheel.sampling.published import write_groups
from tidewheel.sampling.rules import ColumnKind, calibration_salt, check_columns, criterion
from tidewheel.sampling.tally import WEIGHT_UNITS, RuleTally, Sampled, SplitResult, check_splits, rule_statistics

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame, SparkSession

_TYPES: dict[ColumnKind, str] = {"integer": "bigint", "real": "double", "text": "string"}


def sample(
    spark: SparkSession,
    impressions: Path,
    config: SampleConfig,
    window_config: WindowConfig,
    window: Window,
    labels: Sequence[str],
    out: Path,
) -> Sampled:
    """What `tidewheel.sampling.stream.sample` does, on an engine that may be many machines: the same rows and weights.

    Equal rows give equal files on the same engine, whatever the partitioning.

    Raises:
        ConfigError, RejectedError: as there.
    """
    from pyspark.sql import functions as F

    frame = spark.read.parquet(*(path.as_posix() for path in sorted(impressions.glob("*.parquet"))))
    counter = FrameCounter(frame)
    plan = make_plan(config, window_config, window, labels, counter)
    groups = counter.groups(plan)
    judged = frame.withColumn("split", split_column(plan)).transform(lambda rows: with_rates(rows, plan, groups))
    is_population = F.col("rate") > F.lit(0.0)
    rate = F.when((F.col("split") == F.lit(SPLITS[0])) | ~is_population, F.col("rate")).otherwise(F.lit(1.0))
    judged = judged.withColumn("rate", rate)
    judged = judged.withColumn("is_kept", uniform_column(F.col("row_key"), plan.salt) < F.col("rate"))
    judged = judged.withColumn(WEIGHT, _weight())
    splits, rules = _count(judged, plan, labels)
    check_splits(splits, window, window_config, plan)
    kept = judged.filter("is_kept").select(*frame.columns, WEIGHT, "split")
    write_splits(kept, out, SPLITS, sum(result.rows for result in splits.values()))
    write_groups(out / SPLITS[0], [table.orderBy(GROUP).toArrow() for table in groups])
    return Sampled(splits, plan, rules)


def keep(frame: DataFrame, plan: SamplePlan, groups: Sequence[DataFrame] = ()) -> DataFrame:
    """The training rows that the plan keeps, with `weight`: what `tidewheel.sampling.loader.select` does to a table."""
    from pyspark.sql import functions as F

    rated = with_rates(frame, plan, groups)
    kept = rated.filter(uniform_column(F.col("row_key"), plan.salt) < F.col("rate"))
    return kept.select(*frame.columns, _weight().alias(WEIGHT))


def with_rates(frame: DataFrame, plan: SamplePlan, groups: Sequence[DataFrame]) -> DataFrame:
    """The rows with `rule`, its position in the plan, and `rate`: the probability with which a training row is kept."""
    from pyspark.sql import functions as F

    rates = F.array(*(F.lit(rule.rate) for rule in plan.rules))
    rated = frame.withColumn("rule", rule_column(frame, plan)).withColumn("rate", F.element_at(rates, F.col("rule") + 1))
    for cap, over in zip(plan.caps, groups, strict=True):
        group = F.col(cap.column).cast(_TYPES[_kind(frame, cap.column)])
        rated = rated.withColumn("cap_group", group).join(
            F.broadcast(over.select(F.col(GROUP).alias("cap_group"), EXPECTED)), "cap_group", "left"
        )
        factor = F.least(F.lit(1.0), F.lit(float(cap.rows * MICRO)) / F.col(EXPECTED).cast("double"))
        factor = F.coalesce(F.greatest(F.lit(cap.min_factor), factor), F.lit(1.0))
        acts = F.col("rule").isin([number for number, rule in enumerate(plan.rules) if rule.name in cap.rules])
        rated = rated.withColumn("rate", F.when(acts, F.col("rate") * factor).otherwise(F.col("rate")))
        rated = rated.drop("cap_group", EXPECTED)
    return rated


def uniform_column(row_key: Column, salt: int) -> Column:
    """`tidewheel.sampling.hash.uniform` as an expression: a double in [0, 1)."""
    from pyspark.sql import functions as F

    hashed = F.xxhash64(row_key, F.lit(salt).cast("bigint"))
    return F.shiftrightunsigned(hashed, 11).cast("double") / F.lit(2.0**53)


def rule_column(frame: DataFrame, plan: SamplePlan) -> Column:
    """The position in the plan of the first rule that a row meets.

    Raises:
        ConfigError: a rule names a column that the frame does not have, or cannot compare.
    """
    from pyspark.sql import functions as F

    kinds = {name: _kind_of(kind) for name, kind in frame.dtypes}
    check_columns(plan, kinds)
    *rules, _ = enumerate(plan.rules)
    return reduce(
        lambda otherwise, rule: F.when(_meets(rule[1], kinds, plan.window_end), F.lit(rule[0])).otherwise(otherwise),
        reversed(rules),
        F.lit(len(plan.rules) - 1),
    )


def split_column(plan: SamplePlan) -> Column:
    """Which split a row belongs to, before any selection."""
    from pyspark.sql import functions as F

    is_drawn = uniform_column(F.col("row_key"), calibration_salt(plan.salt)) < F.lit(plan.calibration_share)
    train, calibration, evaluation, randomized = map(F.lit, SPLITS)
    return (
        F.when(F.col("is_randomized"), randomized)
        .when(F.col("event_time") >= _moment(plan.eval_start), evaluation)
        .when((F.col("event_time") >= _moment(plan.calibration_start)) & is_drawn, calibration)
        .otherwise(train)
    )


@dataclass(frozen=True)
class FrameCounter:
    """Counts the training rows of a frame: the numbers of `tidewheel.sampling.loader.ArrowCounter`."""

    frame: DataFrame

    @property
    def kinds(self) -> Mapping[str, ColumnKind | None]:
        return {name: _kind_of(kind) for name, kind in self.frame.dtypes}

    def rows_by_rule(self, plan: SamplePlan) -> Mapping[str, int]:
        found = self._train(plan).groupBy("rule").count().collect()
        return {plan.rules[row["rule"]].name: int(row["count"]) for row in found}

    def group_sizes(self, plan: SamplePlan, column: str, rule: str) -> Mapping[int, int]:
        amounts = [int(entry.name == rule) for entry in plan.rules]
        sizes = self._sums(plan, column, amounts).groupBy(EXPECTED).count().collect()
        return {int(row[EXPECTED]): int(row["count"]) for row in sizes}

    def groups(self, plan: SamplePlan) -> list[DataFrame]:
        """For each cap, its groups over it: `value` and `expected_micro`, millionths of expected rows."""
        from pyspark.sql import functions as F

        found = []
        for cap in plan.caps:
            micro = [rule.rate_micro if rule.name in cap.rules else 0 for rule in plan.rules]
            found.append(self._sums(plan, cap.column, micro).filter(F.col(EXPECTED) > F.lit(cap.rows * MICRO)))
        return found

    def _sums(self, plan: SamplePlan, column: str, amounts: Sequence[int]) -> DataFrame:
        from pyspark.sql import functions as F

        group = F.col(column).cast(_TYPES[_kind(self.frame, column)]).alias(GROUP)
        amount = F.element_at(F.array(*(F.lit(value).cast("bigint") for value in amounts)), F.col("rule") + 1)
        rows = self._train(plan).select(group, amount.alias(EXPECTED)).filter(F.col(GROUP).isNotNull() & (F.col(EXPECTED) > 0))
        return rows.groupBy(GROUP).agg(F.sum(EXPECTED).alias(EXPECTED))

    def _train(self, plan: SamplePlan) -> DataFrame:
        from pyspark.sql import functions as F

        train = self.frame.filter(split_column(plan) == F.lit(SPLITS[0]))
        return train.withColumn("rule", rule_column(self.frame, plan))


def _weight() -> Column:
    from pyspark.sql import functions as F

    # Spark divides by 0 loudly, and excluded rows have rate 0.
    return F.when(F.col("rate") > F.lit(0.0), F.lit(1.0) / (F.col("inclusion_probability") * F.col("rate")))


def _moment(moment: datetime) -> Column:
    from pyspark.sql import functions as F

    # As a count: a literal datetime would pass through the time zone of this machine.
    return F.timestamp_micros(F.lit(round(moment.timestamp() * 1_000_000)).cast("bigint"))


def _meets(rule: PlanRule, kinds: Mapping[str, ColumnKind | None], window_end: datetime) -> Column:
    from pyspark.sql import functions as F

    def has(label: str) -> Column:
        return F.coalesce(F.col(label_column(label)) == F.lit(1), F.lit(False))

    met = [has(label) for label in rule.all_of] + [~has(label) for label in rule.none_of]
    if rule.any_of:
        met.append(reduce(lambda one, other: one | other, map(has, rule.any_of)))
    for column, condition in rule.where.items():
        if column == AGE:
            met.append(_fits(_age(window_end), "integer", column, condition))
        else:
            kind = kinds[column]
            assert kind is not None
            met.append(_fits(F.col(column), kind, column, condition))
    return reduce(lambda one, other: one & other, met)


def _age(window_end: datetime) -> Column:
    """Whole days to the end of the window, in integers: 0 on the last day."""
    from pyspark.sql import functions as F

    left = F.lit(round(window_end.timestamp() * 1_000_000) - 1).cast("bigint") - F.unix_micros("event_time")
    return ((left - F.pmod(left, F.lit(DAY_MICROSECONDS).cast("bigint"))) / F.lit(DAY_MICROSECONDS)).cast("bigint")


def _fits(column: Column, kind: ColumnKind, name: str, condition: Condition) -> Column:
    from pyspark.sql import functions as F

    test = criterion(name, condition, kind)
    values = column.cast(_TYPES[kind])
    is_missing = values.isNull()
    if kind == "real":
        values = values + F.lit(0.0)  # -0.0 becomes 0.0: engines differ on whether they are equal
        is_missing = is_missing | F.isnan(values)

    def literal(value: Any) -> Column:
        return F.lit(value).cast(_TYPES[kind])

    if test.values is not None:
        meets = values.isin([literal(value) for value in test.values]) if test.values else F.lit(False)
    else:
        lower = F.lit(True) if test.at_least is None else values >= literal(test.at_least)
        meets = lower if test.below is None else lower & (values < literal(test.below))
    return F.when(is_missing, F.lit(test.takes_null)).otherwise(F.coalesce(meets, F.lit(False)))


def _kind(frame: DataFrame, column: str) -> ColumnKind:
    kind = _kind_of(dict(frame.dtypes)[column])
    assert kind is not None
    return kind


def _kind_of(spark_type: str) -> ColumnKind | None:
    if spark_type in {"boolean", "tinyint", "smallint", "int", "bigint"}:
        return "integer"
    if spark_type in {"float", "double"}:
        return "real"
    return "text" if spark_type == "string" else None


def _count(judged: DataFrame, plan: SamplePlan, labels: Sequence[str]) -> tuple[dict[str, SplitResult], dict[str, RuleTally]]:
    """One pass: counts by split and rule, small enough to add up here."""
    from pyspark.sql import functions as F

    kept, weight = F.col("is_kept").cast("int"), F.when(F.col("is_kept"), F.col(WEIGHT))
    # Units of a weight are integers below 2^53 or so: as decimals, their sum is exact in any order.
    units = F.rint(weight * F.lit(float(WEIGHT_UNITS))).cast("decimal(38,0)")
    positives = [F.sum((F.col(label_column(label)) == F.lit(1)).cast("int") * kept).alias(label) for label in labels]
    counts = judged.groupBy("split", "rule").agg(
        F.count(F.lit(1)).alias("rows_in"),
        F.sum(kept).alias("rows_out"),
        F.sum(units).alias("units"),
        F.sum(weight).alias("weight_sum"),
        F.sum(weight * weight).alias("squares_sum"),
        F.min(weight).alias("weight_min"),
        F.max(weight).alias("weight_max"),
        *positives,
    )
    rows: list[Any] = counts.collect()
    splits = {split: _split([row for row in rows if row["split"] == split], plan, labels) for split in SPLITS}
    tallies = dict.fromkeys((rule.name for rule in plan.rules), RuleTally())
    for row in rows:
        if row["split"] == SPLITS[0]:
            sums = [row[name] for name in ("weight_sum", "squares_sum", "weight_min", "weight_max")] if row["rows_out"] else []
            tallies[plan.rules[row["rule"]].name] = RuleTally(int(row["rows_in"]), int(row["rows_out"]), *sums)
    splits[SPLITS[0]].statistics.update(rule_statistics(tallies))
    return splits, tallies


def _split(rows: Sequence[Any], plan: SamplePlan, labels: Sequence[str]) -> SplitResult:
    excluded = sum(row["rows_in"] for row in rows if plan.rules[row["rule"]].rate == 0.0)
    statistics = {"rows_seen": float(sum(row["rows_in"] for row in rows)), "excluded": float(excluded)}
    statistics |= {f"positives.{label}": float(sum(row[label] or 0 for row in rows)) for label in labels}
    return SplitResult(
        sum(row["rows_out"] for row in rows), sum(int(row["units"] or 0) for row in rows) / WEIGHT_UNITS, statistics
    )
