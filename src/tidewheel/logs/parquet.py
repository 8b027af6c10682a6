"""Any Parquet log whose recipe names the columns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from tidewheel.contracts.recipe import ParquetSource
from tidewheel.contracts.schema import label_column
from tidewheel.errors import ConfigError
from tidewheel.logs.adapter import (
    GIVEN_COLUMNS,
    LAST_MILLISECOND,
    LOGGING_COLUMNS,
    RAW,
    Adapter,
    LogFile,
    Request,
    Roles,
    because,
    hour_of_user,
)
from tidewheel.logs.files import scan

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame, SparkSession

NEEDED = ("user_id", "item_id", "event_time")


def roles(source: ParquetSource) -> Roles:
    """The roles that the recipe gives.

    Raises:
        ConfigError: the recipe maps an unknown canonical column, or leaves out one that every log must have.
    """
    if unknown := sorted(set(source.columns) - set(GIVEN_COLUMNS)):
        raise ConfigError(f"recipe: source.columns names {', '.join(unknown)}; expected some of {', '.join(GIVEN_COLUMNS)}")
    if missing := [name for name in NEEDED if name not in source.columns]:
        raise ConfigError(f"recipe: source.columns lacks {', '.join(missing)}; map it to the log's column")
    forbidden = (
        LOGGING_COLUMNS
        | {source.columns[name]: reason for name, reason in LOGGING_COLUMNS.items() if name in source.columns}
        | because(
            {*source.labels, *source.labels.values(), *map(label_column, source.labels)}, "is an outcome of the impression"
        )
        | because(source.outcomes, "is an outcome: it is measured after the impression (source.outcomes)")
        | because(source.future, "looks into the future (source.future)")
    )
    return Roles(None, source.labels, forbidden)


def log_files(request: Request) -> Sequence[LogFile]:
    source: ParquetSource = request.source
    raw_features = {feature for feature in request.features if feature not in GIVEN_COLUMNS}
    columns = frozenset({*source.columns.values(), *(source.labels[label] for label in request.labels)})
    visible = (path for path in sorted(request.folder.rglob("*.parquet")) if not path.name.startswith((".", "_")))
    return [LogFile(path, columns, frozenset(raw_features)) for path in visible]


def read(spark: SparkSession, request: Request, files: Sequence[LogFile]) -> DataFrame:
    """The log's columns under their canonical names.

    Times may be timestamps, ISO 8601 text or integers (milliseconds since 1970). Without a request id a request is a
    user's hour; without an author every item is its own; without inclusion probabilities every impression was logged.
    """
    from pyspark.sql import functions as F

    source: ParquetSource = request.source
    log = scan(spark, files)
    types = dict(log.dtypes)
    time = _time(source.columns["event_time"], types)
    defaults: dict[str, Column] = {
        "request_id": hour_of_user(F.col(source.columns["user_id"]), time),
        "author_id": F.col(source.columns["item_id"]),
        "position": F.lit(None).cast("int"),
        "is_randomized": F.lit(False),
        "propensity": F.lit(None).cast("double"),
        "inclusion_probability": F.lit(1.0),
    }
    named = defaults | {name: F.col(column) for name, column in source.columns.items()} | {"event_time": time}
    given = [named[name].alias(name) for name in GIVEN_COLUMNS]
    labels = [F.col(source.labels[label]).alias(label_column(label)) for label in request.labels]
    features = [F.col(feature).alias(feature) for feature in request.features if feature not in GIVEN_COLUMNS]
    return log.select(*given, *labels, *features, F.struct(*log.columns).alias(RAW))


def _time(column: str, types: dict[str, str]) -> Column:
    from pyspark.sql import functions as F

    if types[column] in {"tinyint", "smallint", "int", "bigint"}:
        milliseconds = F.col(column).cast("bigint")
        return F.when(milliseconds.between(0, LAST_MILLISECOND), F.timestamp_millis(milliseconds))
    return F.col(column).try_cast("timestamp")


ADAPTER = Adapter(
    roles=roles, log_files=log_files, read=read, time_column=lambda source: source.columns.get("event_time", "event_time")
)
