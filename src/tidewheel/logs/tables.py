"""The tables of one window, from judged days: impressions with their counters, the counters' snapshot, the quarantine.

Rows are laid out by the hash of their user, so that a part can be made from the files of its own users alone: on the laptop's
engine one part after the other, which bounds the memory; on a distributed engine all at once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from tidewheel.contracts.recipe import CounterConfig, LabelConfig
from tidewheel.contracts.schema import KEY_COLUMNS, Entity, FeatureSpec, label_column
from tidewheel.contracts.window import Window
from tidewheel.logs.adapter import EPOCH, RAW, Adapter, Request, day_of
from tidewheel.logs.cleaning import FINE, STATUS, VALID
from tidewheel.logs.counters import as_of, increments, snapshot
from tidewheel.logs.days import JudgedDay, bucket_of
from tidewheel.logs.fitting import fitted
from tidewheel.logs.parts import num_parts, write_parts
from tidewheel.logs.session import is_embedded

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame, SparkSession

# Where a row lies.
BEFORE, WITHIN, IMMATURE, AFTER = "before", "window", "immature", "after"
SHARED = (Entity.ITEM.value, "author")  # counted over all users' rows; joined whole
_ORDER = ("row_key", "event_time", "request_id", "item_id", "user_id")


@dataclass(frozen=True)
class WindowPlan:
    """What the tables are made from. `mature_until`: rows after it do not have their labels yet; None: all have."""

    adapter: Adapter
    request: Request
    labels: Sequence[LabelConfig]
    features: Sequence[FeatureSpec]
    counters: CounterConfig
    window: Window
    mature_until: datetime | None
    days: Sequence[JudgedDay]

    def rows(self, spark: SparkSession, parts: Sequence[int] = (0,), of: int = 1) -> DataFrame | None:
        """The judged rows of some of `of` parts, with `place` and `part`; None where there are none."""
        paths = dict.fromkeys(path for day in self.days for part in parts for path in day.files(part, of))
        if not paths:
            return None
        frame = spark.read.parquet(*(path.as_posix() for path in paths)).withColumn("place", self._place())
        if of == 1:
            return frame.withColumn("part", _zero())
        frame = frame.withColumn("part", bucket_of(of))
        return frame if len(parts) == of else frame.filter(_is_one_of("part", parts))

    @property
    def priors(self) -> Mapping[str, float]:
        return {label.name: label.prior for label in self.labels}

    def as_of(self, added: DataFrame, entity: str) -> DataFrame:
        """`tidewheel.logs.counters.as_of` for the rows of this window."""
        first = min(((day.manifest.day or EPOCH) - EPOCH).days for day in self.days)
        return as_of(added, entity, first, self.end_day, self.counters, self.priors)

    @property
    def end_day(self) -> int:
        """The day of the window's end, on which the snapshot is what rows see."""
        return (day_of(self.window.end) - EPOCH).days

    def _place(self) -> Column:
        """`window` (also without a time), `immature`, `before` or `after`."""
        from pyspark.sql import functions as F

        time = F.col("event_time")
        place = F.when(time < moment(self.window.start), F.lit(BEFORE)).when(time >= moment(self.window.end), F.lit(AFTER))
        if self.mature_until is not None:
            place = place.when((time > moment(self.mature_until)) & (F.col(STATUS) == VALID), F.lit(IMMATURE))
        return place.otherwise(F.lit(WITHIN))


def write_tables(spark: SparkSession, plan: WindowPlan, out: Path, scratch: Path, rows: int, quarantined: int) -> None:
    """Write `out/impressions`, `out/counters` and `out/quarantine`. `rows` and `quarantined` size the parts."""
    of = num_parts(rows)
    batches = [[part] for part in range(of)] if is_embedded(spark) else [list(range(of))]
    keep = _Scratch(spark, scratch, is_used=len(batches) > 1)
    shared = {}
    everything = plan.rows(spark)
    assert everything is not None
    for entity in SHARED:
        added = keep(f"{entity}-added", increments(_history(everything), entity, plan.counters))
        shared[entity] = keep(entity, _of_window(plan.as_of(added, entity), plan.window))
        _write_snapshot(added, entity, plan, out / "counters" / entity, _zero())
    users = _UserTable(spark, plan, scratch, of)
    for batch in batches:
        frame = plan.rows(spark, batch, of)
        if frame is not None:
            _write_batch(frame, batch, of, plan, shared, users.of(batch), out)
    _write_quarantine(everything, out / "quarantine", quarantined)


class _Scratch:
    """Keeps a frame on disk where it will be read more than once."""

    def __init__(self, spark: SparkSession, folder: Path, is_used: bool) -> None:
        self._spark, self._folder, self._is_used = spark, folder, is_used

    def __call__(self, name: str, frame: DataFrame) -> DataFrame:
        if not self._is_used:
            return frame
        path = (self._folder / name).as_posix()
        frame.write.mode("overwrite").parquet(path)
        return self._spark.read.parquet(path)


class _UserTable:
    """The users' own features, a share of the users at a time."""

    def __init__(self, spark: SparkSession, plan: WindowPlan, scratch: Path, of: int) -> None:
        from pyspark.sql import functions as F

        self._spark, self._of, self._folder = spark, of, scratch / "users"
        self._frame: DataFrame | None = None
        wanted = [feature for feature in plan.features if feature.name in plan.adapter.user_features]
        if plan.adapter.user_table is None or not wanted:
            return
        table = plan.adapter.user_table(spark, plan.request)
        types = dict(table.dtypes)
        typed = [fitted(x, types[x.name]).alias(x.name) for x in wanted]
        self._frame = table.select(F.col("user_id").try_cast("bigint").alias("user_id"), *typed)
        if of > 1:
            bucketed = self._frame.withColumn("bucket", bucket_of(of))
            bucketed.write.mode("overwrite").partitionBy("bucket").parquet(self._folder.as_posix())

    def of(self, batch: Sequence[int]) -> DataFrame | None:
        if self._frame is None or len(batch) == self._of:
            return self._frame
        paths = [path for part in batch for path in sorted((self._folder / f"bucket={part}").glob("*.parquet"))]
        return self._spark.read.parquet(*(path.as_posix() for path in paths)) if paths else self._frame.limit(0)


def _write_batch(
    frame: DataFrame,
    batch: Sequence[int],
    of: int,
    plan: WindowPlan,
    shared: Mapping[str, DataFrame],
    users: DataFrame | None,
    out: Path,
) -> None:
    from pyspark.sql import functions as F

    user = Entity.USER.value
    added = increments(_history(frame), user, plan.counters)
    counters = {user: plan.as_of(added, user), **shared}
    rows = frame.filter((F.col(STATUS) == VALID) & (F.col("place") == WITHIN))
    for entity, known in counters.items():
        hinted = F.broadcast(known) if entity in SHARED else known
        rows = rows.join(hinted, [f"{entity}_id", "day"], "left")
    if users is not None:
        rows = rows.join(users, "user_id", "left")
    columns = (*KEY_COLUMNS, *(label_column(label.name) for label in plan.labels), *(x.name for x in plan.features))
    write_parts(rows.select(*dict.fromkeys(columns), "part"), out / "impressions", _ORDER)
    by_user = F.pmod(F.xxhash64("key"), F.lit(of)).cast("int") if of > 1 else _zero()
    _write_snapshot(added, user, plan, out / "counters" / user, by_user)


def _write_snapshot(added: DataFrame, entity: str, plan: WindowPlan, folder: Path, part: Column) -> None:
    known = snapshot(added, entity, plan.end_day, plan.counters, plan.priors)
    write_parts(known.withColumn("part", part), folder, ("entity", "key"))


def _write_quarantine(everything: DataFrame, folder: Path, rows: int) -> None:
    from pyspark.sql import functions as F

    folder.mkdir()
    if not rows:
        return
    malformed = everything.filter(~_is_one_of(STATUS, FINE) & (F.col("place") == WITHIN))
    shown = malformed.select(F.col(STATUS).alias("reason"), F.col(RAW).alias("row"))
    part = F.pmod(F.xxhash64("row"), F.lit(num_parts(rows))).cast("int")
    write_parts(shown.withColumn("part", part), folder, ("reason", "row"))


def _history(frame: DataFrame) -> DataFrame:
    """What may be counted: valid rows until the window's end, with or without all their labels."""
    from pyspark.sql import functions as F

    return frame.filter((F.col(STATUS) == VALID) & (F.col("place") != AFTER))


def _of_window(frame: DataFrame, window: Window) -> DataFrame:
    from pyspark.sql import functions as F

    first, last = ((day - EPOCH).days for day in (day_of(window.start), day_of(window.end)))
    return frame.filter(F.col("day").between(first, last))


def _zero() -> Column:
    from pyspark.sql import functions as F

    return F.lit(0)


def _is_one_of(column: str, values: Sequence[object]) -> Column:
    from pyspark.sql import functions as F

    return F.col(column).isin(list(values))


def moment(time: datetime) -> Column:
    """A moment as an expression; a literal datetime would pass through the time zone of this machine."""
    from pyspark.sql import functions as F

    epoch = datetime.combine(date(1970, 1, 1), datetime.min.time(), time.tzinfo)
    return F.timestamp_micros(F.lit((time - epoch) // timedelta(microseconds=1)).cast("bigint"))
