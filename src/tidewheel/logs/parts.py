"""Writing a table as Parquet whose file names and bytes depend on the rows alone."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tidewheel.logs.footer import sort_encodings

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

ROWS_A_PART = 2_000_000


def write_parts(frame: DataFrame, folder: Path, bucket: str, order: Sequence[str], rows: int) -> None:
    """Write `folder/part-00000.parquet` and so on, each sorted by `order`; equal rows give equal files on the same engine.

    Args:
        frame: `rows` rows; with none there will be no file.
        folder: created.
        bucket: an integer column whose value decides a row's part.
        order: columns that order the rows without ties.
        rows: how many rows there are: sizes the parts.
    """
    folder.mkdir(parents=True)
    if not rows:
        return
    staging = folder.with_name(folder.name + ".partial")
    write_sorted(frame, staging, (), bucket, order, rows)
    for path in staging.glob("part=*/*.parquet"):
        path.rename(folder / f"part-{part_of(path):05d}.parquet")
    shutil.rmtree(staging)


def write_sorted(frame: DataFrame, folder: Path, split_by: Sequence[str], bucket: str, order: Sequence[str], rows: int) -> None:
    """Write one file sorted by `order` for each value of `split_by` and each part: `folder/<column>=<value>/part=<n>/`.

    Args:
        bucket: an integer column whose value decides a row's part.
        rows: how many rows there are: sizes the parts.
    """
    from pyspark.sql import Window
    from pyspark.sql import functions as F

    parts = max(1, -(-rows // ROWS_A_PART))
    # Spark would write INT96, which has no time zone and no statistics.
    frame.sparkSession.conf.set("spark.sql.parquet.outputTimestampType", "TIMESTAMP_MICROS")
    # Sail drops a sort that stands before a write, and spreads one stream over several files. A window keeps its order,
    # and a folder a value holds one file. The filter takes nothing away: it keeps the engine from dropping the window.
    ordered = frame.withColumn("part", F.pmod(F.col(bucket), F.lit(parts)))
    ordered = ordered.withColumn("rank", F.row_number().over(Window.partitionBy(*split_by, "part").orderBy(*order)))
    ordered = ordered.filter(F.col("rank") > 0).drop("rank")
    ordered.write.mode("overwrite").partitionBy(*split_by, "part").parquet(folder.as_posix())
    for path in folder.rglob("*.parquet"):
        sort_encodings(path)


def part_of(path: Path) -> int:
    """The number of the part that a file of `write_sorted` holds."""
    return int(path.parent.name.removeprefix("part="))
