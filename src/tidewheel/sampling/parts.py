"""Writing splits as Parquet whose file names and bytes depend on the rows alone."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

_ROWS_A_PART = 2_000_000
_ORDER = ("row_key", "event_time", "request_id", "item_id", "user_id")


def write_splits(frame: DataFrame, out: Path, splits: Sequence[str], rows: int) -> None:
    """Write `out/<split>/part-00000.parquet` and so on in one pass, each sorted by row key.

    Equal rows give equal files on the same engine, whatever the partitioning. A split without rows gets a file without rows.

    Args:
        frame: impressions with the column `split`, one of `splits`; at least one row.
        out: the folder, which must not hold these splits yet.
        splits: every split, with or without rows.
        rows: how many rows there are: sizes the parts.
    """
    import pyarrow.parquet as pq
    from pyspark.sql import Window
    from pyspark.sql import functions as F

    parts = max(1, -(-rows // _ROWS_A_PART))
    staging = out / "partial"
    # Spark would write INT96, which has no time zone and no statistics.
    frame.sparkSession.conf.set("spark.sql.parquet.outputTimestampType", "TIMESTAMP_MICROS")
    # Sail drops a sort that stands before a write, and spreads one stream over several files. A window keeps its order,
    # and a folder a value holds one file. The filter takes nothing away: it keeps the engine from dropping the window.
    ordered = frame.withColumn("part", F.pmod(F.col("row_key"), F.lit(parts)))
    ordered = ordered.withColumn("rank", F.row_number().over(Window.partitionBy("split", "part").orderBy(*_ORDER)))
    ordered = ordered.filter(F.col("rank") > 0).drop("rank")
    ordered.write.mode("overwrite").partitionBy("split", "part").parquet(staging.as_posix())
    written = {split: sorted((staging / f"split={split}").glob("part=*/*.parquet"), key=_part_of) for split in splits}
    schema = pq.read_schema(next(path for paths in written.values() for path in paths))
    for split, paths in written.items():
        (out / split).mkdir(parents=True)
        for path in paths:
            path.rename(out / split / f"part-{_part_of(path):05d}.parquet")
        if not paths:
            pq.write_table(schema.empty_table(), out / split / "part-00000.parquet")
    shutil.rmtree(staging)


def _part_of(path: Path) -> int:
    return int(path.parent.name.removeprefix("part="))
