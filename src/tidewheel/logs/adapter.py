"""What an adapter is: the roles of a log's columns, its files, and how its rows become canonical impressions."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame, SparkSession

# Canonical columns that an adapter gives itself; row_key is made from them, labels and features stand beside them.
GIVEN_COLUMNS = (
    "request_id",
    "user_id",
    "item_id",
    "author_id",
    "event_time",
    "position",
    "is_randomized",
    "propensity",
    "inclusion_probability",
)
EPOCH = date(1970, 1, 1)
LAST_MILLISECOND = 253_402_300_799_999  # of the year 9999; what lies beyond is no time, and overflows in the engines
USER_TABLE = "user table"  # the part of a side table that is joined once the window is cut
RAW = "raw"  # the log's own row as JSON, for the quarantine
FAULT = "fault"  # why the adapter itself cannot use a row; null: nothing is wrong so far
LABEL_TIME_PREFIX = "known_at_"  # when a label became known, from adapters that know
IMPRESSION_RATE = "impression_rate"  # the rate at which the impression itself was logged, null where it was not

# Of any log: known only through the ranking or the logging itself, so the server could never send them.
LOGGING_COLUMNS = {
    "position": "is decided by the ranking itself",
    "is_randomized": "says how the request was ranked",
    "propensity": "says how the request was ranked",
    "inclusion_probability": "says how the row was logged, and depends on the outcome",
    "event_time": "is the moment of the impression; the server sees other moments than training did",
    "request_id": "names one request: it never occurs again",
    "row_key": "names one impression: it never occurs again",
    "weight": "says how the row was sampled, and depends on the outcome",
}


@dataclass(frozen=True)
class Roles:
    """What each column of a log may be.

    Attributes:
        features: columns known before the impression; None where only the data can tell.
        labels: label -> the log's 0/1 column.
        forbidden: column -> why it cannot be a feature, as the end of the sentence "x ...".
    """

    features: frozenset[str] | None
    labels: Mapping[str, str]
    forbidden: Mapping[str, str]


@dataclass(frozen=True)
class Days:
    """UTC days `first <= day < end`."""

    first: date
    end: date

    def __contains__(self, day: date) -> bool:
        return self.first <= day < self.end

    def __iter__(self) -> Iterator[date]:
        return (self.first + timedelta(days=number) for number in range((self.end - self.first).days))


@dataclass(frozen=True)
class LogFile:
    """A file of the log, or of a table beside it.

    Attributes:
        columns: those that it must have.
        optional: those that are read where the file has them.
        unique: a column whose values may not repeat.
        days: the days whose impressions it may tell of; None where its footer has to say.
        part: which part of the log, and `arrival` which partition, where the log has such.
    """

    path: Path
    columns: frozenset[str]
    optional: frozenset[str] = frozenset()
    unique: str | None = None
    days: Days | None = None
    part: str = ""
    arrival: date | None = None


@dataclass(frozen=True)
class Request:
    """What ingest asks of an adapter.

    Attributes:
        folder: where the data lies.
        features: without the counters.
        scratch: an empty folder for what an adapter writes down to read it again, gone when the rows are judged.
    """

    source: Any
    folder: Path
    days: Days | None
    labels: tuple[str, ...]
    features: tuple[str, ...]
    label_horizon: timedelta = timedelta(0)
    max_lateness_days: int = 1
    scratch: Path = Path()

    @property
    def reach_days(self) -> int:
        """For how many days after an impression something may arrive that tells of it."""
        return reach_days(self.label_horizon, self.max_lateness_days)


@dataclass(frozen=True)
class Adapter:
    """One kind of log.

    Attributes:
        roles: the columns' roles; needs neither data nor an engine.
        log_files: the files of impressions that may hold rows of the days, sorted, each with its needed columns.
        side_tables: tables beside the log: their files.
        read: the files' rows as a frame of `GIVEN_COLUMNS`, `label_<name>` (any number type), the features except
            `user_features`, and `raw` (a struct of the log's columns). Rows are neither dropped nor judged here; what
            cannot be understood is null, and what the adapter itself finds wrong is named in `fault`, where it has one.
        time_column: where the impression's time stands, for `time_span` and for the days that a file holds.
        key: the columns that name one impression; `is_unique` where `read` gives each of them once already.
        rejected: lines of the files that `read` made no row of: `day`, the reason as `status`, the line as JSON in `raw`.
        counts: what `read` counted of the same files, day -> name -> count; where not every row comes out.
        user_features: those of the features that stand in `user_table`.
        user_table: `user_id` and the user features asked for, one row a user: joined once the window is cut.
        has_label_times: `read` gives `known_at_<label>` and `impression_rate` (see `tidewheel.logs.counters`).
        watermark: until when the log is complete; None where every file is taken as it is.
    """

    roles: Callable[[Any], Roles]
    log_files: Callable[[Request], Sequence[LogFile]]
    read: Callable[[SparkSession, Request, Sequence[LogFile]], DataFrame]
    time_column: Callable[[Any], str]
    side_tables: Callable[[Request], Sequence[LogFile]] = field(default=lambda request: ())
    key: tuple[str, ...] = ("request_id", "item_id", "event_time")
    is_unique: bool = False
    rejected: Callable[[SparkSession, Request, Sequence[LogFile]], DataFrame] | None = None
    counts: Callable[[SparkSession, Request, Sequence[LogFile]], Mapping[date, Mapping[str, int]]] | None = None
    user_features: frozenset[str] = frozenset()
    user_table: Callable[[SparkSession, Request], DataFrame] | None = None
    has_label_times: bool = False
    watermark: Callable[[Request], datetime | None] = field(default=lambda request: None)


def because(columns: Iterable[str], reason: str) -> dict[str, str]:
    """The same reason for each of the columns."""
    return dict.fromkeys(columns, reason)


def hour_of_user(user_id: Column, time: Column) -> Column:
    """A request for logs that have none: a user's hour, `u<user>-<hours since 1970>`."""
    from pyspark.sql import functions as F

    hour = F.floor(F.unix_seconds(time) / F.lit(3600)).cast("bigint").cast("string")
    return F.concat(F.lit("u"), user_id.cast("string"), F.lit("-"), hour)


def day_number(time: Column) -> Column:
    """Days since 1970 (UTC) of a timestamp."""
    from pyspark.sql import functions as F

    return F.unix_date(time.cast("date"))


def reach_days(label_horizon: timedelta, max_lateness_days: int) -> int:
    """Whole days of the horizon, and those that a line may be late."""
    return -(-label_horizon // timedelta(days=1)) + max_lateness_days


def day_of(moment: datetime) -> date:
    return moment.astimezone(UTC).date()
