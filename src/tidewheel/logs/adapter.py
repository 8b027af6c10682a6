"""What an adapter is: the roles of a log's columns, its files, and how its rows become canonical impressions."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

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
LAST_MILLISECOND = 253_402_300_799_999  # of the year 9999; what lies beyond is no time, and overflows in the engines
RAW = "raw"  # the log's own row as JSON, for the quarantine

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
class LogFile:
    """A file that will be read, and the columns that it must have. `unique` names a column whose values may not repeat."""

    path: Path
    columns: frozenset[str]
    unique: str | None = None


@dataclass(frozen=True)
class Days:
    """UTC days `first <= day < end`."""

    first: date
    end: date

    def __contains__(self, day: date) -> bool:
        return self.first <= day < self.end


@dataclass(frozen=True)
class Request:
    """What ingest asks of an adapter. `folder` is where the data lies, `features` are without the counters."""

    source: Any
    folder: Path
    days: Days | None
    labels: tuple[str, ...]
    features: tuple[str, ...]


@dataclass(frozen=True)
class Adapter:
    """One kind of log.

    Attributes:
        roles: the columns' roles; needs neither data nor an engine.
        log_files: the files of impressions that may hold rows of the days, sorted, each with its needed columns.
        side_tables: feature tables beside the log.
        read: the files' rows as a frame of `GIVEN_COLUMNS`, `label_<name>` (any number type), the features, and `raw`
            (a struct of the log's columns). Rows are neither dropped nor judged here; what cannot be understood is null.
        time_column: where the impression's time stands, for `time_span`.
    """

    roles: Callable[[Any], Roles]
    log_files: Callable[[Request], Sequence[LogFile]]
    read: Callable[[SparkSession, Request, Sequence[Path]], DataFrame]
    time_column: Callable[[Any], str]
    side_tables: Callable[[Request], Sequence[LogFile]] = field(default=lambda request: ())


def because(columns: Iterable[str], reason: str) -> dict[str, str]:
    """The same reason for each of the columns."""
    return dict.fromkeys(columns, reason)
