"""The hybrid log of the built-in world: `date=YYYY-MM-DD/*.parquet`, already in canonical columns."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tidewheel.contracts.recipe import WorldSource
from tidewheel.contracts.schema import label_column
from tidewheel.errors import ContractError
from tidewheel.logs.adapter import GIVEN_COLUMNS, LOGGING_COLUMNS, RAW, Adapter, LogFile, Request, Roles, because

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

LABELS = ("click", "long_view", "like")
FEATURES = frozenset(
    {"user_id", "item_id", "author_id", "user_segment", "user_tenure_days", "item_category", "item_age_days"}
    | {"query_category", "surface"}
)
FORBIDDEN = (
    LOGGING_COLUMNS
    | because((*LABELS, *map(label_column, LABELS)), "is an outcome of the impression")
    | {"bundle": "names the version that ranked the request, which the next version cannot be"}
)


def roles(source: WorldSource) -> Roles:
    return Roles(FEATURES, {label: label_column(label) for label in LABELS}, FORBIDDEN)


def log_files(request: Request) -> Sequence[LogFile]:
    columns = frozenset((*GIVEN_COLUMNS, *map(label_column, request.labels), *request.features))
    files = []
    for path in sorted(request.folder.glob("date=*/*.parquet")):
        try:
            day = date.fromisoformat(path.parent.name.removeprefix("date="))
        except ValueError:
            raise ContractError(f"{path.parent}: no day; expected date=YYYY-MM-DD, move the folder away") from None
        if request.days is None or day in request.days:
            files.append(LogFile(path, columns))
    return files


def read(spark: SparkSession, request: Request, paths: Sequence[Path]) -> DataFrame:
    """The world's rows. Its columns are the canonical ones already."""
    from pyspark.sql import functions as F

    log = spark.read.parquet(*(path.as_posix() for path in paths))
    wanted: list[Any] = list(dict.fromkeys((*GIVEN_COLUMNS, *map(label_column, request.labels), *request.features)))
    return log.select(*wanted, F.struct(*log.columns).alias(RAW))


ADAPTER = Adapter(roles=roles, log_files=log_files, read=read, time_column=lambda source: "event_time")
