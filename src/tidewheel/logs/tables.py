"""The tables of one window, from judged days: impressions with counters and sequences, the snapshots of both, the quarantine.

Rows are laid out by the hash of their user, so that a part can be made from the files of its own users alone: on the laptop's
engine one part after the other, which bounds the memory; on a distributed engine all at once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from tidewheel.contracts.recipe import CounterConfig, LabelConfig
from tidewheel.contracts.schema import KEY_COLUMNS, Entity, FeatureSpec, feature_columns, label_column
from tidewheel.contracts.window import Window
from tidewheel.logs.adapter import EPOCH, RAW, Adapter, Request, day_number, day_of
from tidewheel.logs.cleaning import FINE, STATUS, VALID
from tidewheel.logs.counters import additions, as_of, by_day, known_on, snapshot
from tidewheel.logs.days import JudgedDay, bucket_of
from tidewheel.logs.fitting import fitted
from tidewheel.logs.parts import num_parts, write_parts
from tidewheel.logs.sequences import snapshot as sequence_snapshot
from tidewheel.logs.sequences import states, with_sequence
from tidewheel.logs.session import each, is_embedded

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame, SparkSession

R = TypeVar("R")
# Where a row lies.
BEFORE, WITHIN, IMMATURE, AFTER = "before", "window", "immature", "after"
USER = Entity.USER.value
SHARED = (Entity.ITEM.value, "author")  # counted over all users' rows; joined whole
ORDER = ("row_key", "user_id", "item_id")


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

    def shares(self, spark: SparkSession, of: int, work: Callable[[list[int], DataFrame], R]) -> list[R]:
        """`work` on the judged rows with `place` and `part`, as many of the `of` parts at a time as the engine can take."""
        batches = [[part] for part in range(of)] if is_embedded(spark) else [list(range(of))]

        def share(parts: list[int]) -> list[R]:
            frame = self._rows(spark, parts, of)
            return [] if frame is None else [work(parts, frame)]

        return [found for done in each(spark, share, batches) for found in done]

    @property
    def num_shares(self) -> int:
        """Into how many parts all judged rows are cut when they are only counted."""
        return num_parts(sum(day.manifest.rows for day in self.days))

    @property
    def priors(self) -> Mapping[str, float]:
        return {label.name: label.prior for label in self.labels}

    @property
    def sequences(self) -> tuple[FeatureSpec, ...]:
        return tuple(feature for feature in self.features if feature.is_sequence)

    @property
    def asking_days(self) -> range:
        """The days whose rows ask for counters, and that of the window's end, when the snapshot is taken."""
        last = self.window.end - timedelta(microseconds=1)
        return range((day_of(self.window.start) - EPOCH).days, max((day_of(last) - EPOCH).days, self.end_day) + 1)

    @property
    def end_day(self) -> int:
        return (day_of(self.window.end) - EPOCH).days

    def _rows(self, spark: SparkSession, parts: Sequence[int], of: int) -> DataFrame | None:
        from pyspark.sql import functions as F

        paths = dict.fromkeys(path for day in self.days for part in parts for path in day.folders(part, of))
        if not paths:
            return None
        frame = spark.read.parquet(*(path.as_posix() for path in paths))
        frame = frame.withColumn("place", self._place()).withColumn("part", bucket_of(of))
        return frame if len(parts) == of else frame.filter(F.col("part").isin(list(parts)))

    def _place(self) -> Column:
        """`window` (also without a time), `immature`, `before` or `after`.

        A row whose time is not of its day, or missing, lies at the start of the day: there its line was found.
        """
        from pyspark.sql import functions as F

        found_on = F.timestamp_seconds(F.col("day").cast("bigint") * 86_400)
        time = F.when(day_number(F.col("event_time")) == F.col("day"), F.col("event_time")).otherwise(found_on)
        place = F.when(time < moment(self.window.start), F.lit(BEFORE)).when(time >= moment(self.window.end), F.lit(AFTER))
        if self.mature_until is not None:
            place = place.when((time > moment(self.mature_until)) & (F.col(STATUS) == VALID), F.lit(IMMATURE))
        return place.otherwise(F.lit(WITHIN))


class Shared:
    """What is known of items and authors, from all users' rows: summed a share at a time while those are counted."""

    def __init__(self, spark: SparkSession, plan: WindowPlan, scratch: Path) -> None:
        self._spark, self._plan, self._scratch = spark, plan, scratch
        self._is_whole = plan.num_shares == 1 or not is_embedded(spark)
        self._added: dict[str, DataFrame] = {}

    def add(self, share: DataFrame, number: int) -> None:
        for entity in SHARED:
            added = by_day(additions(history(share), entity, self._plan.counters), self._plan.counters)
            if self._is_whole:
                self._added[entity] = added
            else:
                added.write.parquet((self._scratch / entity / f"share={number}").as_posix())

    def known(self) -> dict[str, DataFrame]:
        """Entity -> what is known of it (see `tidewheel.logs.counters.known_on`)."""
        return {entity: self._known(entity) for entity in SHARED}

    def _known(self, entity: str) -> DataFrame:
        days, counters = self._plan.asking_days, self._plan.counters
        if self._is_whole:
            return known_on(self._added[entity], entity, days, counters)
        # The folder, not its files: see JudgedDay.folders.
        added = self._spark.read.parquet((self._scratch / entity).as_posix())
        whole = self._scratch / f"{entity}-whole"
        known_on(added, entity, days, counters).write.parquet(whole.as_posix())
        return self._spark.read.parquet(whole.as_posix())


def write_tables(
    spark: SparkSession, plan: WindowPlan, shared: Mapping[str, DataFrame], out: Path, scratch: Path, rows: int
) -> None:
    """Write `out/impressions`, `out/counters`, `out/quarantine` and, where there are any, `out/sequences`.

    `rows`, the impressions, decide the number of parts.
    """
    of = num_parts(rows)
    users = _UserTable(spark, plan, scratch, of)
    (out / "quarantine").mkdir()
    for entity, known in shared.items():
        _write_snapshot(known, entity, plan, out / "counters" / entity, 1)

    def write(parts: list[int], frame: DataFrame) -> None:
        def kept(name: str, made: DataFrame) -> DataFrame:
            """Written down where that is worth it: it is read twice below."""
            if of == 1:
                return made
            path = (scratch / name / str(parts[0])).as_posix()
            made.write.parquet(path)
            return spark.read.parquet(path)

        own = kept(USER, known_on(additions(history(frame), USER, plan.counters), USER, plan.asking_days, plan.counters))
        sequences = [(x, kept(x.name, states(history(frame), x))) for x in plan.sequences]
        _write_snapshot(own, USER, plan, out / "counters" / USER, of, parts[0])
        _write_sequences(frame, sequences, plan, out / "sequences", parts[0])
        _write_impressions(frame, plan, {USER: own, **shared}, sequences, users.of(parts), out, parts[0])
        _write_quarantine(frame, out / "quarantine", parts[0])

    plan.shares(spark, of, write)


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
            bucketed.write.partitionBy("bucket").parquet(self._folder.as_posix())

    def of(self, parts: Sequence[int]) -> DataFrame | None:
        if self._frame is None or len(parts) == self._of:
            return self._frame
        paths = [path for part in parts for path in sorted((self._folder / f"bucket={part}").glob("*.parquet"))]
        return self._spark.read.parquet(*(path.as_posix() for path in paths)) if paths else self._frame.limit(0)


def _write_impressions(
    frame: DataFrame,
    plan: WindowPlan,
    known: Mapping[str, DataFrame],
    sequences: Sequence[tuple[FeatureSpec, DataFrame]],
    users: DataFrame | None,
    out: Path,
    share: int,
) -> None:
    from pyspark.sql import functions as F

    rows = frame.filter((F.col(STATUS) == VALID) & (F.col("place") == WITHIN))
    for entity, sums in known.items():
        keyed = sums.withColumnRenamed("key", f"{entity}_id")
        joined = rows.join(F.broadcast(keyed) if entity in SHARED else keyed, f"{entity}_id", "left")
        counters = as_of(entity, plan.asking_days, plan.counters, plan.priors)
        # Right away: the sums of all days would be carried through every join that follows.
        rows = joined.select(*rows.columns, *(column.alias(name) for name, column in counters.items()))
    if users is not None:
        rows = rows.join(users, "user_id", "left")
    for feature, found in sequences:
        rows = with_sequence(rows, found, feature, plan.counters.lookback_days)
    names = (*KEY_COLUMNS, *(label_column(label.name) for label in plan.labels), *feature_columns(plan.features))
    write_parts(rows.select(*dict.fromkeys(names), "part"), out / "impressions", ORDER, share)


def _write_snapshot(known: DataFrame, entity: str, plan: WindowPlan, folder: Path, of: int, share: int = 0) -> None:
    from pyspark.sql import functions as F

    counters = snapshot(known, entity, plan.end_day, plan.counters, plan.priors)
    write_parts(counters.withColumn("part", F.pmod(F.xxhash64("key"), F.lit(of)).cast("int")), folder, ("entity", "key"), share)


def _write_sequences(
    frame: DataFrame, sequences: Sequence[tuple[FeatureSpec, DataFrame]], plan: WindowPlan, folder: Path, share: int
) -> None:
    if sequences:
        users = history(frame).select("user_id", "part").distinct()
        known = sequence_snapshot(users, sequences, plan.end_day, plan.counters.lookback_days)
        write_parts(known, folder, ("user_id",), share)


def _write_quarantine(frame: DataFrame, folder: Path, share: int) -> None:
    from pyspark.sql import functions as F

    malformed = frame.filter(~F.col(STATUS).isin(*FINE) & (F.col("place") == WITHIN))
    write_parts(
        malformed.select(F.col(STATUS).alias("reason"), F.col(RAW).alias("row"), "part"), folder, ("reason", "row"), share
    )


def history(frame: DataFrame) -> DataFrame:
    """What may be counted: valid rows until the window's end, with or without all their labels."""
    from pyspark.sql import functions as F

    return frame.filter((F.col(STATUS) == VALID) & (F.col("place") != AFTER))


def moment(time: datetime) -> Column:
    """A moment as an expression; a literal datetime would pass through the time zone of this machine."""
    from pyspark.sql import functions as F

    epoch = datetime.combine(date(1970, 1, 1), datetime.min.time(), time.tzinfo)
    return F.timestamp_micros(F.lit((time - epoch) // timedelta(microseconds=1)).cast("bigint"))
