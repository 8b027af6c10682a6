"""Seconds and peak memory of validating one split from Parquet: the generated suite, and the profile with drift.

    python bench/validation.py [--rows 1000000] [--engine pandas|spark]

The split has the 13 columns of the contract and 8 features. Both engines run the same suite on the same file in a process of
its own, so run it twice for a comparison. CPU seconds are printed beside the clock's: the machine may be shared.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tidewheel.contracts.recipe import LabelConfig, ValidateConfig
from tidewheel.contracts.schema import Entity, FeatureKind, FeatureSpec
from tidewheel.quality import spark as door
from tidewheel.quality.drift import drift
from tidewheel.quality.expectations import check, contract_columns, library
from tidewheel.quality.profile import profile, profile_on
from tidewheel.quality.rows import ParquetRows

NUMERIC = tuple(f"x{number}" for number in range(6))
FEATURES = (
    FeatureSpec(id=1, name="user_id", kind=FeatureKind.HASHED, entity=Entity.USER, num_buckets=16),
    FeatureSpec(id=2, name="tab", kind=FeatureKind.VOCABULARY, entity=Entity.CONTEXT),
    *(
        FeatureSpec(id=3 + number, name=name, kind=FeatureKind.NUMERIC, entity=Entity.ITEM)
        for number, name in enumerate(NUMERIC)
    ),
)
LABELS = (LabelConfig(name="click"), LabelConfig(name="like"))
PART = 500_000


def write(path: Path, rows: int) -> None:
    """The split, in parts so that writing does not decide the peak memory."""
    writer = None
    for start in range(0, rows, PART):
        table = part(start, min(PART, rows - start), rows)
        writer = writer or pq.ParquetWriter(path, table.schema)
        writer.write_table(table)
    assert writer is not None
    writer.close()


def part(start: int, size: int, rows: int) -> pa.Table:
    generator = np.random.default_rng(start)
    key = np.arange(start, start + size)
    columns = {
        "row_key": key * 2_654_435_761 % (1 << 61),
        "request_id": pa.array(key // 8).cast(pa.string()),
        "user_id": generator.integers(0, rows // 30 + 2, size),
        "item_id": generator.integers(0, 5000, size),
        "author_id": generator.integers(0, 900, size),
        "event_time": pa.array(key * 1000, pa.timestamp("us", "UTC")),
        "position": pa.nulls(size, pa.int32()),
        "is_randomized": np.zeros(size, bool),
        "propensity": pa.nulls(size, pa.float64()),
        "inclusion_probability": np.full(size, 0.25),
        "weight": np.full(size, 4.0),
        "label_click": generator.integers(0, 2, size).astype(np.int8),
        "label_like": (generator.uniform(size=size) < 0.1).astype(np.int8),
        "tab": np.array(["main", "side", "search"])[generator.integers(0, 3, size)],
        **{name: generator.normal(size=size) for name in NUMERIC},
    }
    return pa.table(columns)


def peak_gib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--engine", choices=["pandas", "spark"], default="pandas")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, ExitStack() as engines:
        path = Path(folder) / "train.parquet"
        write(path, chosen.rows)
        rows = ParquetRows([path], contract_columns(FEATURES, [label.name for label in LABELS]))
        library(with_spark=chosen.engine == "spark")
        frame = None
        if chosen.engine == "spark":
            frame = door.frame(engines.enter_context(door.local_session()), rows.paths, rows.column_names)
        print(f"{chosen.rows:,} rows, {len(rows.column_names)} columns, {chosen.engine}; before: {peak_gib():.2f} GiB")
        clock, cpu = time.perf_counter(), time.process_time()
        reasons = check("train", rows, FEATURES, LABELS, ValidateConfig(), frame)
        seconds = time.perf_counter() - clock
        print(f"suite   {seconds:7.1f} s  {time.process_time() - cpu:7.1f} cpu s  {len(reasons)} checks, {peak_gib():.2f} GiB")
        clock, cpu = time.perf_counter(), time.process_time()
        baseline = profile(rows, FEATURES, ["click", "like"])
        drift(profile_on(rows, baseline, ["click", "like"]), baseline, ValidateConfig(), 1e-4)
        seconds = time.perf_counter() - clock
        print(f"profile {seconds:7.1f} s  {time.process_time() - cpu:7.1f} cpu s  twice and drift, {peak_gib():.2f} GiB")


if __name__ == "__main__":
    main()
