"""The hybrid log (tidewheel.contracts.hybrid): served candidates and client events become impressions with labels.

The built-in world and the servers of this project write it. Every row belongs to the day on which its candidate was served:
a line of either part carries that time, so a day is read from the partitions in which its lines may have arrived.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tidewheel.contracts.hybrid import COLUMNS, IMPRESSION, MARKER, SCORE_PREFIX, Part
from tidewheel.contracts.recipe import HybridSource, WorldSource
from tidewheel.contracts.schema import label_column
from tidewheel.errors import ContractError
from tidewheel.logs.adapter import (
    EPOCH,
    FAULT,
    IMPRESSION_RATE,
    LABEL_TIME_PREFIX,
    LOGGING_COLUMNS,
    RAW,
    Adapter,
    Days,
    LogFile,
    Request,
    Roles,
    because,
    day_number,
)
from tidewheel.logs.cleaning import (
    AFTER_HORIZON,
    CONFLICTING_DUPLICATE,
    EXACT_DUPLICATE,
    REPEATED,
    STATUS,
    VALID,
    first_fault,
    in_order,
    is_probability,
    mark_repeats,
)
from tidewheel.logs.files import scan

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame, SparkSession

CLOCK_SKEW = "interval 5 minutes"  # a client's clock may be ahead of ours by this much
ORPHAN, FEATURE_MISS = "orphan", "feature_cache_miss"
FROM_THE_FUTURE, TOO_LATE = "from_the_future", "too_late"
_UNPLACED = (FROM_THE_FUTURE, TOO_LATE)
# Statuses of lines that are no served candidate of their own.
NEVER_SERVED = frozenset(
    {ORPHAN, EXACT_DUPLICATE, CONFLICTING_DUPLICATE, "no_request_id", "no_item_id", "no_event_time", *_UNPLACED}
    | {f"event_{name}" for name in (*_UNPLACED, "before_it_was_served", "logging_rate_outside_0_1")}
    | {f"event_no_{name}" for name in COLUMNS[Part.FRONTEND]}
)
WORLD_LABELS = ("click", "long_view", "like")
WORLD_FEATURES = frozenset(
    {"user_id", "item_id", "author_id", "user_segment", "user_tenure_days", "item_category", "item_age_days"}
    | {"query_category", "surface"}
)
_KEY = ("request_id", "item_id")
_NEEDED = {
    part: frozenset(name for name, (_, _, optional) in columns.items() if not optional) for part, columns in COLUMNS.items()
}
_FORBIDDEN = (
    LOGGING_COLUMNS
    | because(("served_time",), LOGGING_COLUMNS["event_time"])
    | because(("is_feature_miss",), "says whether the features are there")
    | {"bundle": "names the version that ranked the request, which the next version cannot be"}
)


def roles(source: HybridSource) -> Roles:
    """Any column of the backend part may be a feature but what names the request, the ranking or its scores."""
    labels = {label: label_column(label) for label in source.labels}
    outcomes = because((*labels, *labels.values()), "is an outcome of the impression")
    scores = because(map(SCORE_PREFIX.__add__, labels), "is what the last model said")
    return Roles(None, labels, _FORBIDDEN | outcomes | scores)


def world_roles(source: WorldSource) -> Roles:
    labels = {label: label_column(label) for label in WORLD_LABELS}
    outcomes = because((*labels, *labels.values()), "is an outcome of the impression")
    return Roles(
        WORLD_FEATURES, labels, _FORBIDDEN | outcomes | because(map(SCORE_PREFIX.__add__, labels), "is what the model said")
    )


# --- partitions -------------------------------------------------------------------------------------------------------


def partitions(folder: Path, part: Part) -> dict[date, Path]:
    """Arrival day -> folder of the complete partitions of a part.

    Raises:
        ContractError: a folder is not named after a day.
    """
    found = {}
    for path in sorted((folder / part.value).glob("date=*")):
        try:
            day = date.fromisoformat(path.name.removeprefix("date="))
        except ValueError:
            raise ContractError(f"{path}: no day; expected date=YYYY-MM-DD, move the folder away") from None
        if (path / MARKER).exists():
            found[day] = path
    return found


def watermark(request: Request) -> datetime | None:
    """Until when the log is complete: the end of the unbroken run of days that both parts have, or that are skipped.

    The run starts with the first day of the log, or that of the request: what is missing before that does not matter.
    """
    parts = [partitions(request.folder, part) for part in Part]
    if not all(parts):
        return None
    day = min(min(found) for found in parts)
    if request.days is not None and request.days.first <= max(max(found) for found in parts):
        day = max(day, request.days.first)
    skipped = getattr(request.source, "skip_days", ())
    while day in skipped or all(day in found for found in parts):
        day += timedelta(days=1)
    return datetime(day.year, day.month, day.day, tzinfo=UTC)


def _reach_days(request: Request, part: Part) -> int:
    """For how many days after the serving lines of this part may arrive and still count."""
    return request.reach_days if part is Part.FRONTEND else request.max_lateness_days


def log_files(request: Request) -> Sequence[LogFile]:
    """The files of the complete partitions that may tell of the request's days, backend first."""
    end = watermark(request)
    files = []
    for part in Part:
        optional = frozenset(request.features) - set(COLUMNS[part]) if part is Part.BACKEND else frozenset()
        for arrival, folder in partitions(request.folder, part).items():
            days = Days(arrival - timedelta(days=_reach_days(request, part)), arrival + timedelta(days=1))
            is_complete = end is not None and arrival < end.date()
            if is_complete and (request.days is None or any(day in request.days for day in days)):
                visible = (path for path in sorted(folder.glob("*.parquet")) if not path.name.startswith((".", "_")))
                files += [LogFile(path, _NEEDED[part], optional, days=days, part=part, arrival=arrival) for path in visible]
    return files


# --- rows -------------------------------------------------------------------------------------------------------------


def read(spark: SparkSession, request: Request, files: Sequence[LogFile]) -> DataFrame:
    """Seen candidates with their labels, and what is wrong with the other served ones; candidates nobody saw are left out."""
    from pyspark.sql import functions as F

    served, seen = _served(spark, request, files), _seen(spark, request, files)
    rows = served.join(seen, [served[name] == seen[f"seen_{name}"] for name in _KEY], "left")
    rows = rows.filter((F.col(STATUS) != VALID) | F.col("seen_request_id").isNotNull())
    times = {label: F.col(LABEL_TIME_PREFIX + label) for label in request.labels}
    is_positive = reduce(lambda a, b: a | b, (time.isNotNull() for time in times.values()))
    inclusion = F.when(is_positive, F.lit(1.0)).otherwise(F.col(IMPRESSION_RATE))
    fault = first_fault(
        {FEATURE_MISS: F.col("is_feature_miss"), AFTER_HORIZON: inclusion.isNull()},
    )
    labels = [time.isNotNull().cast("tinyint").alias(label_column(label)) for label, time in times.items()]
    given = ("request_id", "user_id", "item_id", "author_id", "event_time", "position", "is_randomized", "propensity")
    features = [name for name in request.features if name not in given]
    return rows.select(
        *given,
        inclusion.alias("inclusion_probability"),
        *labels,
        *times.values(),
        IMPRESSION_RATE,
        *features,
        RAW,
        "day",
        F.when(F.col(STATUS) == VALID, fault).otherwise(F.col(STATUS)).alias(FAULT),
    )


def rejected(spark: SparkSession, request: Request, files: Sequence[LogFile]) -> DataFrame:
    """Events that became no row: `day`, the reason as `status`, and the event as JSON in `raw`."""
    from pyspark.sql import functions as F

    events = _events(spark, request, files)
    shown = F.to_json(RAW).alias(RAW)
    malformed = events.filter(F.col("reason").isNotNull()).select("day", F.col("reason").alias(STATUS), shown)
    served = _candidates(spark, request, files).filter(F.col("reason").isNull())
    served = served.select(*(F.col(name).alias(f"served_{name}") for name in _KEY))
    used = events.filter(F.col("reason").isNull() & F.col("event").isin(IMPRESSION, *request.labels))
    orphans = used.join(served, [F.col(name) == F.col(f"served_{name}") for name in _KEY], "left_anti")
    return malformed.unionByName(orphans.select("day", F.lit(ORPHAN).alias(STATUS), shown))


def counts(spark: SparkSession, request: Request, files: Sequence[LogFile]) -> Mapping[date, Mapping[str, int]]:
    """day -> `served` candidates, `events`, and of those `repeated_events`, `superseded_events` and `other_events`.

    `late_events` arrived on a later day than their candidate was served, `lateness_seconds_max` is from event to arrival.
    """
    from pyspark.sql import functions as F

    found: dict[date, dict[str, int]] = {}
    candidates = _candidates(spark, request, files).filter(F.col("reason").isNull()).groupBy("row_key")
    served = candidates.agg(F.max("day").alias("day")).groupBy("day").agg(F.count(F.lit(1)).alias("served"))
    lines = _events(spark, request, files).filter(F.col("reason").isNull())
    is_used = F.col("event").isin(IMPRESSION, *request.labels)
    same = lines.groupBy("day", *_KEY, "event", "event_time", "logging_rate").agg(F.count(F.lit(1)).alias("times"))
    kinds = same.groupBy("day", *_KEY, "event").agg(F.sum("times").alias("times"), F.count(F.lit(1)).alias("distinct"))
    events = kinds.groupBy("day").agg(
        F.sum("times").alias("events"),
        F.sum(F.when(is_used, F.col("times") - F.col("distinct")).otherwise(F.lit(0))).alias("repeated_events"),
        F.sum(F.when(is_used, F.col("distinct") - 1).otherwise(F.lit(0))).alias("superseded_events"),
        F.sum(F.when(is_used, F.lit(0)).otherwise(F.col("times"))).alias("other_events"),
    )
    seconds = F.unix_seconds("logged_time") - F.unix_seconds("event_time")
    is_late = day_number(F.col("logged_time")) > F.col("day")
    arrivals = lines.groupBy("day").agg(
        F.max(seconds).alias("lateness_seconds_max"), F.sum(is_late.cast("bigint")).alias("late_events")
    )
    for frame in (served, events, arrivals):
        for row in frame.collect():
            values = {name: int(value) for name, value in row.asDict().items() if name != "day"}
            found.setdefault(EPOCH + timedelta(days=int(row["day"])), {}).update(values)
    return found


def _served(spark: SparkSession, request: Request, files: Sequence[LogFile]) -> DataFrame:
    """Served candidates with `status`: the last one of a request and item by time stays."""
    from pyspark.sql import functions as F

    marked = mark_repeats(_candidates(spark, request, files), request.scratch / "repeated-candidates")
    content = [name for name in marked.columns if name not in (RAW, STATUS, "reason", "row_key", "day")]
    repeated = in_order(marked.filter(F.col(STATUS) == REPEATED), _KEY, content, ("event_time",))
    return marked.filter(F.col(STATUS) != REPEATED).unionByName(repeated)


def _candidates(spark: SparkSession, request: Request, files: Sequence[LogFile]) -> DataFrame:
    """The lines of the backend part in canonical types, with `day`, `row_key` and the `reason` why one cannot be used."""
    from pyspark.sql import functions as F

    log = scan(spark, [file for file in files if file.part == Part.BACKEND])

    def optional(name: str, otherwise: Column) -> Column:
        return F.coalesce(F.col(name), otherwise) if name in log.columns else otherwise

    named = {
        "request_id": F.col("request_id"),
        "user_id": F.col("user_id").try_cast("bigint"),
        "item_id": F.col("item_id").try_cast("bigint"),
        "author_id": optional("author_id", F.col("item_id")).try_cast("bigint"),
        "event_time": F.col("served_time").try_cast("timestamp"),
        "position": optional("position", F.lit(None).cast("int")),
        "is_randomized": F.col("is_randomized"),
        "propensity": F.col("propensity"),
        "is_feature_miss": optional("is_feature_miss", F.lit(False)),
    }
    features = [F.col(name) for name in request.features if name not in named]
    lines = log.select(
        *(column.alias(name) for name, column in named.items()),
        *features,
        "arrival",
        F.struct(*(name for name in log.columns if name != "arrival")).alias(RAW),
    )
    faults = {f"no_{name}": F.col(name).isNull() for name in (*_KEY, "event_time")}
    return _arrived(lines, faults, request.max_lateness_days)


def _events(spark: SparkSession, request: Request, files: Sequence[LogFile]) -> DataFrame:
    """The lines of the frontend part, with `day` and the `reason` why one cannot be used."""
    from pyspark.sql import functions as F

    log = scan(spark, [file for file in files if file.part == Part.FRONTEND])
    lines = log.select(
        "request_id",
        F.col("item_id").try_cast("bigint").alias("item_id"),
        F.col("served_time").try_cast("timestamp").alias("served_time"),
        "event",
        F.col("event_time").try_cast("timestamp").alias("event_time"),
        F.col("logged_time").try_cast("timestamp").alias("logged_time"),
        F.col("logging_rate").try_cast("double").alias("logging_rate"),
        "arrival",
        F.struct(*(name for name in log.columns if name != "arrival")).alias(RAW),
    )
    faults = {f"event_no_{name}": F.col(name).isNull() for name in COLUMNS[Part.FRONTEND] if name != "logging_rate"}
    faults["event_logging_rate_outside_0_1"] = ~is_probability(F.col("logging_rate"))
    skew = F.expr(CLOCK_SKEW)
    faults[f"event_{FROM_THE_FUTURE}"] = F.col("event_time") > F.col("logged_time") + skew
    faults["event_before_it_was_served"] = F.col("event_time") < F.col("served_time") - skew
    return _arrived(lines, faults, _reach_days(request, Part.FRONTEND), "event_", "served_time")


def _arrived(lines: DataFrame, faults: dict[str, Column], reach: int, prefix: str = "", time: str = "event_time") -> DataFrame:
    """`lines` with `row_key`, `reason` and `day`: that of the serving, or of the arrival where it is wrong or not known."""
    from pyspark.sql import functions as F

    served = day_number(F.col(time))
    ahead, late = prefix + FROM_THE_FUTURE, prefix + TOO_LATE
    faults = faults | {
        ahead: faults.get(ahead, F.lit(False)) | (served > F.col("arrival")),
        late: served < F.col("arrival") - reach,
    }
    is_known = served.between(F.col("arrival") - reach, F.col("arrival"))
    # May be null as far as the planner knows: Sail's physical plan says so, and refuses a logical one that does not.
    day = F.nullif(F.when(is_known, served).otherwise(F.col("arrival")), F.lit(-1))
    judged = lines.withColumn("reason", first_fault(faults)).withColumn("day", day)
    return judged.withColumn("row_key", F.xxhash64(*_KEY)).drop("arrival")


def _seen(spark: SparkSession, request: Request, files: Sequence[LogFile]) -> DataFrame:
    """One row a request and item that was seen: `known_at_<label>` of the first engagement in time, and `impression_rate`."""
    from pyspark.sql import functions as F

    events = _events(spark, request, files).filter(F.col("reason").isNull() & F.col("event").isin(IMPRESSION, *request.labels))
    is_impression = F.col("event") == IMPRESSION
    horizon = F.expr(f"interval {round(request.label_horizon.total_seconds())} seconds")
    is_in_time = F.col("event_time") <= F.col("served_time") + horizon
    rate = F.max(F.when(is_impression, F.struct("event_time", "logging_rate")))  # of repeats, the last writer's
    times = [
        F.min(F.when((F.col("event") == label) & is_in_time, F.col("event_time"))).alias(LABEL_TIME_PREFIX + label)
        for label in request.labels
    ]
    found = events.groupBy(*_KEY).agg(rate.alias("last"), *times)
    keys = [F.col(name).alias(f"seen_{name}") for name in _KEY]
    return found.select(
        *keys, F.col("last.logging_rate").alias(IMPRESSION_RATE), *(LABEL_TIME_PREFIX + x for x in request.labels)
    )


def _adapter(roles: Any) -> Adapter:
    return Adapter(
        roles=roles,
        log_files=log_files,
        read=read,
        time_column=lambda source: "served_time",
        key=_KEY,
        is_unique=True,
        rejected=rejected,
        counts=counts,
        has_label_times=True,
        watermark=watermark,
    )


ADAPTER = _adapter(roles)
WORLD = _adapter(world_roles)
