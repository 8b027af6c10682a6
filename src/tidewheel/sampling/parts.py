"""Writing splits as Parquet whose file names and bytes depend on the rows alone."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tidewheel.logs.parts import num_parts, part_of, write_sorted

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

__all__ = ["ORDER", "num_parts", "write_splits"]
ORDER = ("row_key", "event_time", "request_id", "item_id", "user_id")


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
    from pyspark.sql import functions as F

    staging = out / "partial"
    numbered = frame.withColumn("part", F.pmod(F.xxhash64("user_id"), F.lit(num_parts(rows))))
    write_sorted(numbered, staging, ("split",), ORDER)
    written = {split: sorted((staging / f"split={split}").glob("part=*/*.parquet"), key=part_of) for split in splits}
    schema = pq.read_schema(next(path for paths in written.values() for path in paths))
    for split, paths in written.items():
        (out / split).mkdir(parents=True)
        for path in paths:
            path.rename(out / split / f"part-{part_of(path):05d}.parquet")
        if not paths:
            pq.write_table(schema.empty_table(), out / split / "part-00000.parquet")
    shutil.rmtree(staging)
