"""What a run of ingest and sample wrote, in a few numbers, and where two runs differ."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import duckdb

from bench.work import COUNTED, LABELS, RATE_LABELS

_SPLITS = ("train", "calibration", "eval", "randomized")
_COUNTERS = tuple(
    f"{entity}_{what}" for entity in COUNTED for what in (*(f"{label}_rate" for label in RATE_LABELS), "impressions")
)


def summary(out: Path, splits: dict[str, dict[str, float]]) -> dict[str, Any]:
    """Counts and sums of `out/{impressions,counters,quarantine,splits}`, and `digests` of their rows whatever the order.

    `splits` is what the run itself counted: `rows_seen`, `rows` and `weight_sum` of each split.
    """
    found: dict[str, Any] = {
        "bytes": sum(path.stat().st_size for path in _files(out, "**/*.parquet") if "partial" not in path.parts)
    }
    with duckdb.connect() as db:
        db.execute("SET memory_limit='4GB'; SET threads=2")
        labels = [f"label_{name}" for name, _ in LABELS]
        found["sums"] = {
            "impressions": _sums(db, _files(out, "impressions/*.parquet"), [*labels, *_COUNTERS]),
            "counters": _sums(
                db, _files(out, "counters/**/*.parquet"), [*(f"{label}_rate" for label in RATE_LABELS), "impressions"]
            ),
            "quarantine": _sums(db, _files(out, "quarantine/*.parquet"), []),
        }
        found["digests"] = {"impressions": _digest(db, _files(out, "impressions/*.parquet"))}
        for split in _SPLITS:
            # Ours and DuckDB's folders are called by the split, Spark's by column and value.
            written = [*_files(out, f"splits/{split}/*.parquet"), *_files(out, f"splits/split={split}/*.parquet")]
            rows = _sums(db, written, [])["rows"]
            counted = splits.get(split, {"rows": 0, "rows_seen": 0, "weight_sum": 0.0})
            if rows != counted["rows"]:
                raise ValueError(f"{out}: {rows} rows in split {split}; the run says it wrote {counted['rows']}")
            found["digests"][split] = _digest(db, written) if rows else 0
            found[split] = {name: float(counted[name]) for name in ("rows_seen", "rows", "weight_sum")}
    return found


def differences(one: dict[str, Any], other: dict[str, Any], is_same_hash: bool) -> list[str]:
    """What two summaries disagree about; empty where they did the same work. Another hash draws other rows, as many in all."""
    wrong = []
    for table, sums in one["sums"].items():
        for name, value in sums.items():
            if not math.isclose(value, other["sums"][table][name], rel_tol=1e-9):
                wrong.append(f"{table}.{name} {value} and {other['sums'][table][name]}")
    if is_same_hash:
        wrong += [f"rows of {x} differ" for x, digest in one["digests"].items() if digest != other["digests"][x]]
        wrong += [f"{x}: {one[x]} and {other[x]}" for x in _SPLITS if one[x] != other[x]]
        return wrong
    for split in ("eval", "randomized"):
        if one[split] != other[split]:
            wrong.append(f"{split}: {one[split]} and {other[split]}")
    seen = [x["train"]["rows_seen"] + x["calibration"]["rows_seen"] for x in (one, other)]
    if seen[0] != seen[1]:
        wrong.append(f"rows before eval: {seen[0]} and {seen[1]}")
    return wrong


def _files(out: Path, pattern: str) -> list[Path]:
    return sorted(out.glob(pattern))


def _sums(db: duckdb.DuckDBPyConnection, files: list[Path], columns: list[str]) -> dict[str, float]:
    if not files:
        return {"rows": 0.0} | dict.fromkeys(columns, 0.0)
    wanted = ", ".join(["count(*)", *(f"sum({column})" for column in columns)])
    row = db.execute(f"SELECT {wanted} FROM read_parquet(?)", [[str(path) for path in files]]).fetchone()
    assert row is not None
    return {name: float(value or 0) for name, value in zip(["rows", *columns], row, strict=True)}


def _digest(db: duckdb.DuckDBPyConnection, files: list[Path]) -> int:
    """Of all columns of all rows, in any order of either."""
    paths = [str(path) for path in files]
    described = db.execute("DESCRIBE SELECT * FROM read_parquet(?, hive_partitioning = false)", [paths]).fetchall()
    columns = ", ".join(sorted(name for name, *_ in described))
    row = db.execute(f"SELECT sum(hash({columns})::HUGEINT) % 18446744073709551616 FROM read_parquet(?)", [paths]).fetchone()
    assert row is not None
    return int(row[0])
