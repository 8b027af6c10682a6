"""The files of a log: whole, with the columns that will be read, and read as one frame although their schemas differ."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tidewheel.errors import ContractError
from tidewheel.logs.adapter import EPOCH, LAST_MILLISECOND, Days, LogFile, day_of
from tidewheel.logs.parts import power_of_two

if TYPE_CHECKING:
    import pyarrow as pa
    from pyarrow.parquet import FileMetaData
    from pyspark.sql import Column, DataFrame, SparkSession

KEYS_AT_ONCE = 4_000_000  # 8 bytes each, twice


def check_files(files: Sequence[LogFile]) -> dict[Path, int]:
    """Every file is whole Parquet with the columns that will be read; returns the number of rows of each.

    Only footers are read, so that a broken file is named before an engine starts on it. A log grows: an optional column may
    be missing from a file as long as the last file of its part has it.

    Raises:
        ContractError: a file is missing, truncated, not Parquet or lacks a column; the message names both.
    """
    footers = {file.path: footer(file.path) for file in files}
    found = {path: set(known.schema.to_arrow_schema().names) for path, known in footers.items()}
    newest = {file.part: found[file.path] for file in files}
    for file in files:
        missing = file.columns - found[file.path] | (file.optional - found[file.path] - newest[file.part])
        if missing:
            shown = ", ".join(sorted(missing))
            has = ", ".join(sorted(found[file.path]))
            raise ContractError(f"{file.path}: no column {shown}; found {has}; correct the recipe or the file")
        if file.unique is not None and (repeated := _num_repeats(file.path, file.unique, footers[file.path].num_rows)):
            raise ContractError(f"{file.path}: {file.unique} repeats in {repeated} rows; expected one row each")
    return {path: known.num_rows for path, known in footers.items()}


def gone_columns(files: Sequence[LogFile]) -> frozenset[str]:
    """The optional columns that the last file of their part lacks: the log does not write them any more."""
    newest = {file.part: file for file in files}
    return frozenset().union(
        *(file.optional - set(footer(file.path).schema.to_arrow_schema().names) for file in newest.values())
    )


def _num_repeats(path: Path, column: str, rows: int) -> int:
    """Rows whose key an earlier row has. Integers are compared a share of them at a time, which bounds the memory."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    if not pa.types.is_integer(pq.read_schema(path).field(column).type):
        return rows - pc.count_distinct(pq.read_table(path, columns=[column])[column], mode="all").as_py()
    shares = power_of_two(rows / KEYS_AT_ONCE)
    repeats = 0
    for share in range(shares):
        batches = pq.ParquetFile(path).iter_batches(columns=[column])
        found = (batch.column(0).drop_null().to_numpy() for batch in batches)
        keys = np.sort(np.concatenate([keys[keys % shares == share] for keys in found] or [np.empty(0)]))
        repeats += int((keys[1:] == keys[:-1]).sum())
    return repeats


def scan(spark: SparkSession, files: Sequence[LogFile]) -> DataFrame:
    """The rows of files whose schemas may differ, as one frame with all their columns.

    A column that a file lacks is null there. Where types differ, numbers become the widest of them and anything else text:
    what the reader then makes of it is judged row by row. Files of partitions get `arrival`, its day (days since 1970).
    """
    import pyarrow.parquet as pq
    from pyspark.sql import functions as F

    schemas = {file: pq.read_schema(file.path).remove_metadata() for file in files}
    groups: dict[tuple[str, date | None], list[LogFile]] = {}
    for file, schema in schemas.items():
        groups.setdefault((str(schema), file.arrival), []).append(file)
    differ = len({schema for schema, _ in groups}) > 1
    types = _common_types(list(schemas.values())) if differ else {}
    frames = []
    for (_, arrival), same in groups.items():
        frame = spark.read.parquet(*(file.path.as_posix() for file in same))
        if types:
            frame = frame.select(*(_as_type(frame, name, kind) for name, kind in types.items()))
        if arrival is not None:
            frame = frame.withColumn("arrival", F.lit((arrival - EPOCH).days))
        frames.append(frame)
    return reduce(lambda whole, frame: whole.unionByName(frame), frames)


def _as_type(frame: DataFrame, name: str, kind: str | None) -> Column:
    from pyspark.sql import functions as F

    if kind is None:
        return F.col(name)
    return (F.col(name) if name in frame.columns else F.lit(None)).cast(kind).alias(name)


def _common_types(schemas: Sequence[pa.Schema]) -> dict[str, str | None]:
    """Column -> the engine's name of a type that holds all of its types; None where they agree and every file has it."""
    import pyarrow as pa

    found: dict[str, list[pa.DataType | None]] = {}
    for name in dict.fromkeys(name for schema in schemas for name in schema.names):
        found[name] = [schema.field(name).type if name in schema.names else None for schema in schemas]
    common: dict[str, str | None] = {}
    for name, kinds in found.items():
        present = {kind for kind in kinds if kind is not None}
        if len(present) == 1 and None not in kinds:
            common[name] = None
        elif all(pa.types.is_integer(kind) for kind in present):
            common[name] = "bigint"
        elif all(pa.types.is_integer(kind) or pa.types.is_floating(kind) for kind in present):
            common[name] = "double"
        elif all(pa.types.is_timestamp(kind) for kind in present):
            common[name] = "timestamp"
        elif all(pa.types.is_boolean(kind) for kind in present):
            common[name] = "boolean"
        elif all(pa.types.is_list(kind) and pa.types.is_integer(kind.value_type) for kind in present):
            common[name] = "array<bigint>"
        else:
            common[name] = "string"
    return common


def dated(files: Sequence[LogFile], time_column: str) -> list[tuple[LogFile, bool]]:
    """Each file with the days of its impressions, and whether it may hold rows without a time; from footers alone.

    Where the footer cannot say (times as text, no statistics) a file may tell of any day, which `days` None says.

    Raises:
        ContractError: a file is truncated or not Parquet.
    """
    known = []
    for file in files:
        if file.days is not None:
            known.append((file, False))
            continue
        chunks = column_statistics(footer(file.path), time_column)
        if not chunks or any(chunk is None or not chunk.has_min_max or not chunk.has_null_count for chunk in chunks):
            known.append((file, True))
            continue
        bounds = [value for chunk in chunks for value in (chunk.min, chunk.max)]
        moments = [moment for moment in map(moment_of, bounds) if moment is not None]
        is_whole = len(moments) == len(bounds) and not any(chunk.null_count for chunk in chunks)
        days = Days(day_of(min(moments)), day_of(max(moments)) + timedelta(days=1)) if moments else None
        known.append((replace(file, days=days), not is_whole))
    return known


def footer(path: Path) -> FileMetaData:
    """A file's metadata.

    Raises:
        ContractError: the file is missing, truncated or not Parquet.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.read_metadata(path)
    except FileNotFoundError:
        raise ContractError(f"{path}: not found; expected a Parquet file") from None
    except (pa.ArrowException, OSError) as error:
        fault = str(error).splitlines()[0].rstrip(".")
        raise ContractError(f"{path}: not a whole Parquet file ({fault}); restore it") from error


def column_statistics(known: FileMetaData, column: str) -> list[Any]:
    """The statistics of a column in each row group that holds rows; empty where the file does not have the column."""
    names = [known.schema.column(index).path for index in range(known.num_columns)]
    if column not in names:
        return []
    groups = [known.row_group(group) for group in range(known.num_row_groups)]
    return [group.column(names.index(column)).statistics for group in groups if group.num_rows]


def moment_of(value: Any) -> datetime | None:
    """A statistic of a time column as a moment: a timestamp, or milliseconds since 1970; None for what is no time."""
    if isinstance(value, datetime):
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= LAST_MILLISECOND:
        return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=value)
    return None
