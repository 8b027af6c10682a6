"""A log of any size with the shape of the real one: whole users of KuaiRand, drawn again and again.

    python bench/resample.py --data DIR --rows 10M --out OUT [--seed 1] [--malformed 0.0005]

Users are drawn with replacement until `rows` are expected; every copy is a user of its own, with all rows of the user drawn
and its features. Videos stay. A copy's impressions move within their minute, all by the same milliseconds, so copies are not
aligned, while day, hour and repeats (the log's own, exact and conflicting) stay as they are. OUT holds one
`log_standard_<day>.parquet` a UTC day, in the order of time, and the two feature tables: what the `kuairand` adapter reads.
Equal arguments give equal files. Rows are written as they are made: memory grows with `rows` only by some 30 bytes a copy.
"""

from __future__ import annotations

import argparse
import shutil
from dataclasses import dataclass
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
    parser.add_argument("--malformed", type=float, default=0.0, help="share of rows whose is_click becomes 2")
    options = parser.parse_args()
    rows = resample(options.data, options.rows, options.out, options.seed, options.malformed)
    print(f"{rows:,} rows in {options.out}")


def row_count(text: str) -> int:
    """`10M` is 10,000,000, `500k` is 500,000."""
    factor = {"k": 1_000, "m": 1_000_000}.get(text[-1].lower(), 1)
    return int(text.rstrip("kKmM").replace(",", "").replace("_", "")) * factor


def resample(data: Path, rows: int, out: Path, seed: int, malformed: float = 0.0) -> int:
    """Write a log of about `rows` rows to the new folder `out`; returns how many there are.

    A share of `malformed` rows, scattered over users and days, says 2 where `is_click` is 0 or 1: work for a quarantine.

    Raises:
        FileExistsError: `out` is there already.
    """
    out.mkdir(parents=True)
    log = pq.read_table(data / _LOG).replace_schema_metadata(None)
    users, user = np.unique(log["user_id"].to_numpy(), return_inverse=True)
    rng = np.random.default_rng(seed)
    copies = np.bincount(rng.integers(0, len(users), size=round(rows * len(users) / len(log))), minlength=len(users))
    # Ids in no order: copies of one user must not be neighbours in a table sorted by user.
    ids = rng.permutation(copies.sum()).astype(np.int32)
    shifts = rng.integers(0, _MINUTE_MS, size=len(ids), dtype=np.int32)
    draw = _Draw(user, copies, np.cumsum(copies) - copies, ids, shifts, malformed)
    written = _write_log(log, draw, out)
    _write_users(data, users, draw, out)
    shutil.copyfile(data / "video_features_basic.parquet", out / "video_features_basic.parquet")
    return written


@dataclass(frozen=True)
class _Draw:
    """Who was drawn. R rows of the real log, U users of it, C copies; the copies of a user are neighbours.

    Attributes:
        user: (R,) whose row it is, below U.
        copies: (U,) how often the user was drawn.
        first: (U,) the user's first copy.
        ids: (C,) the copy's user id.
        shifts: (C,) milliseconds by which its impressions move within their minute.
        malformed: share of rows that are spoiled.
    """

    user: np.ndarray
    copies: np.ndarray
    first: np.ndarray
    ids: np.ndarray
    shifts: np.ndarray
    malformed: float


def _write_log(log: pa.Table, draw: _Draw, out: Path) -> int:
    minute = log["time_ms"].to_numpy() // _MINUTE_MS
    days = minute * _MINUTE_MS // _DAY_MS
    written = 0
    for day in np.unique(days):
        name = (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(days=int(day))).strftime("%Y%m%d")
        of_day = np.flatnonzero(days == day)
        of_day = of_day[np.argsort(minute[of_day], kind="stable")]
        with pq.ParquetWriter(out / f"log_standard_{name}.parquet", log.schema, compression="zstd") as writer:
            for rows in _batches(of_day, minute[of_day], draw.copies[draw.user[of_day]]):
                batch = _copied(log, rows, draw)
                writer.write_table(batch, row_group_size=ROW_GROUP)
                written += len(batch)
    return written


def _batches(rows: np.ndarray, minute: np.ndarray, copies: np.ndarray) -> list[np.ndarray]:
    """Cuts the rows, between minutes, into runs that make about a row group each."""
    group = np.cumsum(copies) // ROW_GROUP
    starts_minute = np.r_[True, minute[1:] != minute[:-1]]
    group_of_minute = group[np.flatnonzero(starts_minute)][np.cumsum(starts_minute) - 1]
    return np.split(rows, np.flatnonzero(np.diff(group_of_minute)) + 1)


def _copied(log: pa.Table, rows: np.ndarray, draw: _Draw) -> pa.Table:
    """These rows, once for each copy of their user, in the order of time."""
    repeats = draw.copies[draw.user[rows]]
    source = np.repeat(rows, repeats)
    ordinal = np.arange(len(source)) - np.repeat(np.cumsum(repeats) - repeats, repeats)
    copy = draw.first[draw.user[source]] + ordinal
    time = log["time_ms"].to_numpy()[source]
    time = time - time % _MINUTE_MS + (time + draw.shifts[copy]) % _MINUTE_MS
    order = np.argsort(time, kind="stable")
    source, copy = source[order], copy[order]
    batch = log.take(pa.array(source))
    # Multiplicative hashing: scattered, and the same whatever the batches.
    is_malformed = (copy * 2_654_435_761 + source * 40_503) % 2**32 < draw.malformed * 2**32
    changed = {
        "user_id": draw.ids[copy],
        "time_ms": time[order],
        "is_click": np.where(is_malformed, 2, batch["is_click"].to_numpy()).astype(np.int8),
    }
    for name, values in changed.items():
        batch = batch.set_column(batch.column_names.index(name), log.schema.field(name), pa.array(values))
    return batch


def _write_users(data: Path, users: np.ndarray, draw: _Draw, out: Path) -> None:
    features = pq.read_table(data / "user_features.parquet").replace_schema_metadata(None)
    field = features.schema.field("user_id")
    source = np.repeat(pc.index_in(pa.array(users, field.type), features["user_id"]).to_numpy(), draw.copies)
    with pq.ParquetWriter(out / "user_features.parquet", features.schema, compression="zstd") as writer:
        for start in range(0, len(source), ROW_GROUP):
            batch = features.take(pa.array(source[start : start + ROW_GROUP]))
            ids = pa.array(draw.ids[start : start + ROW_GROUP].astype(np.int64), field.type)
            writer.write_table(batch.set_column(features.column_names.index("user_id"), field, ids))


if __name__ == "__main__":
    main()
