"""Days of a log, each judged once: a window reads the files of the days that nobody has judged before, and no others."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from tidewheel.contracts.base import digest_of
from tidewheel.contracts.dataset import LogDay
from tidewheel.contracts.schema import FeatureSpec
from tidewheel.logs.adapter import EPOCH, USER_TABLE, Adapter, Days, LogFile, Request
from tidewheel.logs.cleaning import REPEATED, STATUS, judge, settle
from tidewheel.logs.files import check_files, dated
from tidewheel.logs.parts import power_of_two
from tidewheel.logs.session import each

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame, SparkSession

FORMAT = 1  # of a judged day: another one makes all of them again
ROWS_A_CHUNK = 2_000_000  # rows of the log that are judged at once; bounds the memory, whatever the size of the log
ROWS_A_BUCKET = 64_000  # rows of a day that share a file
UNDATED = "undated"

Fingerprint = tuple[str, int, int]


class DayCache(Protocol):
    """Where judged days are kept. Both may do IO; `keep` moves `folder`; a damaged day is not found."""

    def find(self, key: str) -> tuple[Path, LogDay] | None: ...

    def keep(self, key: str, folder: Path, day: LogDay) -> tuple[Path, LogDay]: ...


class FolderCache:
    """Days in a plain folder, gone when its owner removes it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def find(self, key: str) -> tuple[Path, LogDay] | None:
        path = self._folder / key
        return (path, LogDay.read(path / "day.json")) if (path / "day.json").exists() else None

    def keep(self, key: str, folder: Path, day: LogDay) -> tuple[Path, LogDay]:
        path = self._folder / key
        path.parent.mkdir(parents=True, exist_ok=True)
        folder.rename(path)
        day.write(path / "day.json")
        return path, day


@dataclass(frozen=True)
class JudgedDay:
    """A day's rows: `folder/bucket=<n>/*.parquet`, n below `manifest.buckets`, by `bucket_of` the user."""

    folder: Path
    manifest: LogDay

    def folders(self, bucket: int, of: int) -> list[Path]:
        """Those that hold all rows of one of `of` buckets, and perhaps others'. Both numbers of buckets are powers of 2.

        Folders, not files: Sail takes a thread for each path it is given to read, and every thread keeps memory of its own.
        """
        mine = range(bucket % self.manifest.buckets, self.manifest.buckets, min(of, self.manifest.buckets))
        return [folder for n in mine if (folder := self.folder / f"bucket={n}").is_dir()]


def judged_days(
    spark: SparkSession,
    adapter: Adapter,
    request: Request,
    features: Sequence[FeatureSpec],
    cache: DayCache,
    scratch: Path,
) -> tuple[list[JudgedDay], int]:
    """The judged days of the request that have files, and how many files of the log were read for them.

    Raises:
        ContractError: a file that has to be read is broken or lacks a column.
    """
    assert request.days is not None
    files = dated(adapter.log_files(request), adapter.time_column(request.source))
    part = _part(adapter, request, features)
    wanted: dict[date | None, list[LogFile]] = {}
    for known_day in request.days:
        told = [file for file, _ in files if file.days is None or known_day in file.days]
        if told:
            wanted[known_day] = told
    if undated := [file for file, may_lack_times in files if may_lack_times]:
        wanted[None] = undated
    keys = {day: digest_of([part, str(day), fingerprints(request.folder, told)]) for day, told in wanted.items()}
    found = {day: cache.find(key) for day, key in keys.items()}
    missing = {day: wanted[day] for day, kept in found.items() if kept is None}
    read = list(dict.fromkeys(file for told in missing.values() for file in told))
    if read:
        rows = check_files((*read, *adapter.side_tables(request)))

        def judge_chunk(days: Sequence[date | None]) -> None:
            judged = _judge(spark, adapter, request, features, days, missing, rows, scratch)
            for day, (folder, manifest) in judged.items():
                found[day] = cache.keep(keys[day], folder, manifest)

        each(spark, judge_chunk, _chunks(missing, rows))
    return [JudgedDay(*kept) for kept in found.values() if kept is not None], len(read)


def _part(adapter: Adapter, request: Request, features: Sequence[FeatureSpec]) -> object:
    """What a judged day depends on beside the files of its log."""
    tables = [file for file in adapter.side_tables(request) if file.part != USER_TABLE]
    kept = [feature.model_dump(mode="json") for feature in features if feature.name not in adapter.user_features]
    return [
        FORMAT,
        request.source.model_dump(mode="json", exclude={"path", "faults"}),
        [request.labels, kept, request.label_horizon.total_seconds(), request.max_lateness_days],
        fingerprints(request.folder, tables),
    ]


def fingerprints(folder: Path, files: Sequence[LogFile]) -> list[Fingerprint]:
    """Name, bytes and time of each file that is there."""
    there = [(file.path, file.path.stat()) for file in files if file.path.exists()]
    return [(path.relative_to(folder).as_posix(), stat.st_size, stat.st_mtime_ns) for path, stat in there]


def _chunks(missing: Mapping[date | None, Sequence[LogFile]], rows: Mapping[Path, int]) -> Iterator[list[date | None]]:
    """Days that are judged together: as many as hold about `ROWS_A_CHUNK` rows; the undated ones alone.

    Of a smaller log, as many as give every core something to do.
    """
    total = sum(_rows_of_day(files, rows) for day, files in missing.items() if day is not None)
    most = min(ROWS_A_CHUNK, max(ROWS_A_BUCKET, total / (os.cpu_count() or 1)))
    if None in missing:
        yield [None]
    chunk: list[date | None] = []
    held = 0.0
    for day in sorted(day for day in missing if day is not None):
        count = _rows_of_day(missing[day], rows)
        if chunk and held + count > most:
            yield chunk
            chunk, held = [], 0.0
        chunk.append(day)
        held += count
    if chunk:
        yield chunk


def _rows_of_day(files: Sequence[LogFile], rows: Mapping[Path, int]) -> float:
    """About how many rows of the files are of one day."""
    return sum(rows[file.path] / (1 if file.days is None else (file.days.end - file.days.first).days) for file in files)


def _judge(
    spark: SparkSession,
    adapter: Adapter,
    request: Request,
    features: Sequence[FeatureSpec],
    days: Sequence[date | None],
    wanted: Mapping[date | None, Sequence[LogFile]],
    rows: Mapping[Path, int],
    scratch: Path,
) -> dict[date | None, tuple[Path, LogDay]]:
    """Judge the rows of some days, a share of the users at a time where there are many."""
    from pyspark.sql import functions as F

    files = list(dict.fromkeys(file for day in days for file in wanted[day]))
    dated_days = [day for day in days if day is not None]
    work = scratch / f"work-{days[0]}"
    work.mkdir()
    span = Days(dated_days[0], dated_days[-1] + timedelta(days=1)) if dated_days else request.days
    request = replace(request, days=span, scratch=work)
    held = max(_rows_of_day(wanted[day], rows) for day in days)
    # The nearest power: more files cost more than larger ones. Two at least, or two parts would read all of a day each.
    buckets = max(2, power_of_two(held / ROWS_A_BUCKET / 2**0.5))
    shares = power_of_two(held / ROWS_A_CHUNK)
    numbers = [(day - EPOCH).days for day in dated_days]
    features = [feature for feature in features if feature.name not in adapter.user_features]
    rows_read = adapter.read(spark, request, files)
    for share in range(shares):
        mine = rows_read.filter(bucket_of(shares) == share) if shares > 1 else rows_read
        frame = judge(mine, request.labels, features, adapter.key, work / f"repeated-{share}", adapter.is_unique)
        if adapter.rejected is not None and share == 0:
            frame = frame.unionByName(_like(adapter.rejected(spark, request, files), frame))
        frame = frame.filter(F.col("day").isin(numbers) if numbers else F.col("event_time").isNull())
        # Those that are to be settled go to a bucket of their own.
        bucket = F.when(F.col(STATUS) == REPEATED, F.lit(-1)).otherwise(bucket_of(buckets))
        _write(frame, work / "judged", bucket_of(buckets) if adapter.is_unique else bucket)
    if not adapter.is_unique:
        _settle(spark, adapter.key, request.labels, work / "judged", buckets)
    counts = adapter.counts(spark, request, files) if adapter.counts is not None else {}
    return {day: _collect(day, buckets, counts.get(day, {}) if day else {}, work) for day in days}


def _write(frame: DataFrame, folder: Path, bucket: Column) -> None:
    """Add rows to `folder/of_day=<n>/bucket=<n>`: of_day -1 for no day."""
    from pyspark.sql import functions as F

    placed = frame.withColumn("bucket", bucket).withColumn("of_day", F.coalesce(F.col("day"), F.lit(-1)))
    # Read again a few times at most: quick to write and to read, rather than small. Where statistics say that a column has
    # one value, Sail 0.7.2 reads it as a single value, and fails to divide rows by it.
    writer = placed.write.mode("append").option("compression", "snappy").option("statistics_enabled", "none")
    writer.partitionBy("of_day", "bucket").parquet(folder.as_posix())


def _settle(spark: SparkSession, key: Sequence[str], labels: Sequence[str], folder: Path, buckets: int) -> None:
    """Put the repeated rows, settled, to the others of their buckets."""
    waiting = sorted(folder.glob("of_day=*/bucket=-1/*.parquet"))
    if waiting:
        _write(settle(spark.read.parquet(*(path.as_posix() for path in waiting)), key, labels), folder, bucket_of(buckets))
    for path in waiting:
        path.unlink()


def _collect(day: date | None, buckets: int, counts: Mapping[str, int], work: Path) -> tuple[Path, LogDay]:
    """Move a day's files out of what the engine wrote."""
    import pyarrow.parquet as pq

    source, target = work / "judged" / f"of_day={-1 if day is None else (day - EPOCH).days}", work / str(day or UNDATED)
    shutil.rmtree(target, ignore_errors=True)
    if source.is_dir():
        source.rename(target)
    else:
        target.mkdir(parents=True)
    rows = sum(pq.read_metadata(path).num_rows for path in target.glob("bucket=*/*.parquet"))
    return target, LogDay(day=day, buckets=buckets, rows=rows, counts=dict(counts))


def _like(frame: DataFrame, other: DataFrame) -> DataFrame:
    """The columns of `other`; null where `frame` does not have them."""
    from pyspark.sql import functions as F

    return frame.select(
        *((F.col(name) if name in frame.columns else F.lit(None)).cast(kind).alias(name) for name, kind in other.dtypes)
    )


def bucket_of(buckets: int) -> Column:
    """The bucket of a row, by the hash of its user; rows without a user are in bucket 0."""
    from pyspark.sql import functions as F

    user_id = F.col("user_id").try_cast("bigint")
    return F.when(user_id.isNull(), F.lit(0)).otherwise(F.pmod(F.xxhash64(user_id), F.lit(buckets))).cast("int")
