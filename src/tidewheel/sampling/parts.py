"""Writing one table as several folders of Parquet whose names and bytes depend on the rows alone."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow.parquet as pq

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

_ROWS_A_PART = 2_000_000


def write_splits(frame: DataFrame, out: Path, splits: Sequence[str], most_rows: int) -> None:
    """Write `out/<split>/part-00000.parquet` and so on from a frame with the column `split`; each sorted by row key.

    Equal rows give equal files on the same engine, whatever the partitioning. A split without rows gets one file without rows.

    Args:
        frame: impressions with `split`, one of `splits`.
        out: the folder, which must not hold these splits yet.
        splits: every split, with or without rows.
        most_rows: no fewer rows than the frame has: sizes the parts.
    """
    from pyspark.sql import functions as F

    parts = max(1, -(-most_rows // _ROWS_A_PART))
    staging = out / "partial"
    bucketed = frame.withColumn("part", F.pmod(F.col("row_key"), F.lit(parts)))
    ordered = bucketed.repartition(parts, "part") if parts > 1 else bucketed.coalesce(1)
    order = ("split", "part", "row_key", "event_time", "request_id", "item_id")
    # One folder a value holds one file: otherwise the engine may spread a sorted partition over several.
    ordered.sortWithinPartitions(*order).write.mode("overwrite").partitionBy("split", "part").parquet(staging.as_posix())
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
