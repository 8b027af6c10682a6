"""Writing a table as Parquet whose file names and bytes depend on the rows alone."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tidewheel.logs.footer import sort_encodings

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

ROWS_A_PART = 1_000_000
WORTH_TWO_PARTS = 250_000


def num_parts(rows: int) -> int:
    """In how many parts so many rows are laid out: a power of 2. A row's part follows from the hash of its user.

    Two already where one would do but takes seconds: parts are made side by side.
    """
    return max(power_of_two(rows / ROWS_A_PART), 2 if rows > WORTH_TWO_PARTS else 1)


def power_of_two(least: float) -> int:
    """The smallest power of 2 that is at least so much."""
    return 1 << max(0, int(-(-least // 1)) - 1).bit_length()


def write_parts(frame: DataFrame, folder: Path, order: Sequence[str], writer: int = 0) -> None:
    """Write `folder/part-00000.parquet` and so on from the rows' column `part`, each sorted by `order`.

    Equal rows give equal files on the same engine. A part without rows has no file.

    Args:
        frame: rows with the number of their part in `part`.
        folder: created where it is missing; must not hold these parts yet.
        order: columns that order the rows without ties.
        writer: a number of its own for each that writes to `folder` at the same time.
    """
    folder.mkdir(parents=True, exist_ok=True)
    staging = folder.with_name(f"{folder.name}.partial-{writer}")
    write_sorted(frame, staging, (), order)
    for path in staging.glob("part=*/*.parquet"):
        path.rename(folder / f"part-{part_of(path):05d}.parquet")
    shutil.rmtree(staging, ignore_errors=True)  # without rows there is none


def write_sorted(frame: DataFrame, folder: Path, split_by: Sequence[str], order: Sequence[str]) -> None:
    """Write one file sorted by `order` for each value of `split_by` and each `part`: `folder/<column>=<value>/part=<n>/`."""
    from pyspark.sql import Window
    from pyspark.sql import functions as F

    # Spark would write INT96, which has no time zone and no statistics.
    frame.sparkSession.conf.set("spark.sql.parquet.outputTimestampType", "TIMESTAMP_MICROS")
    # Sail drops a sort that stands before a write, and spreads one stream over several files. A window keeps its order,
    # and a folder a value holds one file. The filter takes nothing away: it keeps the engine from dropping the window.
    ordered = frame.withColumn("rank", F.row_number().over(Window.partitionBy(*split_by, "part").orderBy(*order)))
    ordered = ordered.filter(F.col("rank") > 0).drop("rank")
    ordered.write.mode("overwrite").partitionBy(*split_by, "part").parquet(folder.as_posix())
    for path in folder.rglob("*.parquet"):
        sort_encodings(path)


def part_of(path: Path) -> int:
    """The number of the part that a file of `write_sorted` holds."""
    return int(path.parent.name.removeprefix("part="))
