"""A log of any size with the shape of the real one: whole users of KuaiRand, drawn again and again.

    python bench/resample.py --data DIR --rows 10M --out OUT [--seed 1]

Users are drawn with replacement until `rows` are expected; every copy is a user of its own, with all rows of the user drawn
and its features. Videos stay. A copy's impressions move within their minute, all by the same milliseconds, so copies are not
aligned, while day, hour and repeats (the log's own, exact and conflicting) stay as they are. OUT holds one
`log_standard_<day>.parquet` a UTC day, in the order of time, and the two feature tables: what the `kuairand` adapter reads.
Equal arguments give equal files. Rows are written as they are made: memory does not grow with `rows`, but for 8 bytes a copy.
"""

from __future__ import annotations

import argparse
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

ROW_GROUP = 1_000_000
_DAY_MS = 86_400_000
_MINUTE_MS = 60_000
_LOG = "log_standard_20220425_20220505.parquet"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of the real log")
    parser.add_argument("--rows", type=row_count, required=True, help="e.g. 10M; what comes out differs by a few in a thousand")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    rows = resample(options.data, options.rows, options.out, options.seed)
    print(f"{rows:,} rows in {options.out}")


def row_count(text: str) -> int:
    """`10M` is 10,000,000, `500k` is 500,000."""
    factor = {"k": 1_000, "m": 1_000_000}.get(text[-1].lower(), 1)
    return int(text.rstrip("kKmM").replace(",", "").replace("_", "")) * factor


def resample(data: Path, rows: int, out: Path, seed: int) -> int:
    """Write a log of about `rows` rows to the new folder `out`; returns how many there are.

    Raises:
        FileExistsError: `out` is there already.
    """
    out.mkdir(parents=True)
    log = pq.read_table(data / _LOG).replace_schema_metadata(None)
    users, index = np.unique(log["user_id"].to_numpy(), return_inverse=True)
    rng = np.random.default_rng(seed)
    copies = np.bincount(rng.integers(0, len(users), size=round(rows * len(users) / len(log))), minlength=len(users))
    first = np.cumsum(copies) - copies
    # Ids in no order: copies of one user must not be neighbours in a table sorted by user.
    ids = rng.permutation(copies.sum()).astype(np.int32)
    shifts = rng.integers(0, _MINUTE_MS, size=len(ids), dtype=np.int32)
    written = _write_log(log, index, copies, first, ids, shifts, out)
    _write_users(data, users, copies, ids, out)
    shutil.copyfile(data / "video_features_basic.parquet", out / "video_features_basic.parquet")
    return written


def _write_log(
    log: pa.Table, index: np.ndarray, copies: np.ndarray, first: np.ndarray, ids: np.ndarray, shifts: np.ndarray, out: Path
) -> int:
    minute = log["time_ms"].to_numpy() // _MINUTE_MS
    days = minute * _MINUTE_MS // _DAY_MS
    written = 0
    for day in np.unique(days):
        name = (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(days=int(day))).strftime("%Y%m%d")
        of_day = np.flatnonzero(days == day)
        of_day = of_day[np.argsort(minute[of_day], kind="stable")]
        with pq.ParquetWriter(out / f"log_standard_{name}.parquet", log.schema, compression="zstd") as writer:
            for rows in _batches(of_day, minute[of_day], copies[index[of_day]]):
                batch = _copied(log, rows, index, copies, first, ids, shifts)
                writer.write_table(batch, row_group_size=ROW_GROUP)
                written += len(batch)
    return written


def _batches(rows: np.ndarray, minute: np.ndarray, copies: np.ndarray) -> list[np.ndarray]:
    """Cuts the rows, between minutes, into runs that make about a row group each."""
    group = np.cumsum(copies) // ROW_GROUP
    starts_minute = np.r_[True, minute[1:] != minute[:-1]]
    group_of_minute = group[np.flatnonzero(starts_minute)][np.cumsum(starts_minute) - 1]
    return np.split(rows, np.flatnonzero(np.diff(group_of_minute)) + 1)


def _copied(
    log: pa.Table,
    rows: np.ndarray,
    index: np.ndarray,
    copies: np.ndarray,
    first: np.ndarray,
    ids: np.ndarray,
    shifts: np.ndarray,
) -> pa.Table:
    repeats = copies[index[rows]]
    source = np.repeat(rows, repeats)
    ordinal = np.arange(len(source)) - np.repeat(np.cumsum(repeats) - repeats, repeats)
    copy = first[index[source]] + ordinal
    time = log["time_ms"].to_numpy()[source]
    time = time - time % _MINUTE_MS + (time + shifts[copy]) % _MINUTE_MS
    order = np.argsort(time, kind="stable")
    batch = log.take(pa.array(source[order]))
    batch = batch.set_column(batch.column_names.index("user_id"), log.schema.field("user_id"), pa.array(ids[copy[order]]))
    return batch.set_column(batch.column_names.index("time_ms"), log.schema.field("time_ms"), pa.array(time[order]))


def _write_users(data: Path, users: np.ndarray, copies: np.ndarray, ids: np.ndarray, out: Path) -> None:
    features = pq.read_table(data / "user_features.parquet").replace_schema_metadata(None)
    row_of_user = pc.index_in(pa.array(users, features.schema.field("user_id").type), features["user_id"]).to_numpy()
    source = np.repeat(row_of_user, copies)
    with pq.ParquetWriter(out / "user_features.parquet", features.schema, compression="zstd") as writer:
        for start in range(0, len(source), ROW_GROUP):
            batch = features.take(pa.array(source[start : start + ROW_GROUP]))
            new = pa.array(ids[start : start + ROW_GROUP], features.schema.field("user_id").type, safe=False)
            writer.write_table(batch.set_column(0, features.schema.field("user_id"), new))


if __name__ == "__main__":
    main()
