"""The sample step on N synthetic impressions of 21 columns: streamed, beside the same plan as a dataframe job on Sail.

    python bench/sampling.py [--rows 10000000] [--peer]

Prints rows a second, CPU seconds and peak memory of each, in a process of its own; with --peer the ratios as well. Memory
that does not grow with the rows: compare a run with ten times as many.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import nullcontext
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tidewheel.contracts.recipe import WindowConfig
from tidewheel.contracts.sampling import SampleConfig
from tidewheel.contracts.window import Window
from tidewheel.logs.parts import num_parts
from tidewheel.logs.session import embedded_session
from tidewheel.sampling import dataframe, stream
from tidewheel.sampling.hash import xxhash64

END = datetime(2026, 1, 12, tzinfo=UTC)
LABELS = ("click", "long_view", "like")
CONFIG = SampleConfig(salt=1, negative_rate=0.4)
ENGINES = ("arrow", "spark")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--peer", action="store_true", help="also run the dataframe job")
    parser.add_argument("--one", nargs=3, metavar=("ENGINE", "IN", "OUT"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measure(options.one[0], Path(options.one[1]), Path(options.one[2]))))
        return
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "impressions"
        source.mkdir()
        parts = num_parts(options.rows)
        for number in range(parts):
            pq.write_table(part(options.rows // parts, number, parts), source / f"part-{number:05d}.parquet")
        found = {}
        for engine in ENGINES[: 2 if options.peer else 1]:
            command = [sys.executable, __file__, "--one", engine, str(source), str(Path(folder) / engine)]
            ended = subprocess.run(command, check=True, capture_output=True, text=True)
            found[engine] = json.loads(ended.stdout)
            print(engine, found[engine])
        if options.peer:
            one, other = (found[engine] for engine in ENGINES)
            assert (one["kept"], one["weight_sum"]) == (other["kept"], other["weight_sum"])
            ratios = {name: round(other[name] / one[name], 2) for name in ("seconds", "cpu_seconds", "peak_gb")}
            print("spark over arrow", ratios)


def measure(engine: str, source: Path, out: Path) -> dict[str, float]:
    """Sample once in this process."""
    arguments = (CONFIG, WindowConfig(days=7, first_end=END), Window.ending(END, 7), LABELS, out)
    with embedded_session() if engine == "spark" else nullcontext() as session:
        began, cpu = time.perf_counter(), time.process_time()
        sampled = stream.sample(source, *arguments) if session is None else dataframe.sample(session, source, *arguments)
        seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
    rows = sum(split.statistics["rows_seen"] for split in sampled.splits.values())
    return {
        "rows": rows,
        "kept": sum(split.rows for split in sampled.splits.values()),
        "weight_sum": sum(split.weight_sum for split in sampled.splits.values()),
        "seconds": round(seconds, 1),
        "rows_a_second": round(rows / seconds),
        "cpu_seconds": round(cpu, 1),
        "peak_gb": round(peak_bytes() / 1e9, 2),
    }


def peak_bytes() -> int:
    """Of this process alone; what getrusage says begins with the size of its parent."""
    status = Path("/proc/self/status").read_text()
    return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM"))


def users_of(number: int, parts: int) -> np.ndarray:
    """Users of one part; a tenth of them act a third of the time."""
    users = np.arange(200_000)
    own = users[xxhash64(users) % parts == number]
    return np.concatenate([own, np.repeat(own[: len(own) // 10], 5)])


def part(rows: int, number: int, parts: int) -> pa.Table:
    """One part of impressions: its own users, row keys in order, items with a long tail."""
    random = np.random.default_rng(number)
    click = (random.random(rows) < 0.1).astype(np.int8)
    start = round(END.timestamp() * 1e6) - 7 * 86_400_000_000
    time_of = pa.array(start + random.integers(0, 7 * 86_400_000_000, rows), pa.timestamp("us", tz="UTC"))
    columns = {
        "row_key": np.sort(random.integers(-(2**62), 2**62, rows)),
        "request_id": pa.array([f"r{value}" for value in random.integers(0, 2**40, rows)]),
        "user_id": random.choice(users_of(number, parts), rows),
        "item_id": random.zipf(1.2, rows) % 100_000,
        "author_id": random.integers(0, 20_000, rows),
        "event_time": time_of,
        "position": random.integers(0, 8, rows).astype(np.int32),
        "is_randomized": random.random(rows) < 0.05,
        "propensity": pa.array(np.full(rows, 0.1), mask=random.random(rows) > 0.05),
        "inclusion_probability": np.where(click, 1.0, 0.25),
        "label_click": click,
        "label_long_view": (click & (random.random(rows) < 0.5)).astype(np.int8),
        "label_like": (random.random(rows) < 0.01).astype(np.int8),
    }
    return pa.table(columns | dict(features(rows, random)))


def features(rows: int, random: np.random.Generator) -> Iterator[tuple[str, object]]:
    """Eight features: text, small integers, and doubles that hardly repeat."""
    for name, values in (("user_segment", ["a", "b", "c", "d"]), ("surface", ["feed", "search", "home"])):
        yield name, pa.array(np.array(values, dtype=object)[random.integers(0, len(values), rows)])
    yield "item_category", random.integers(0, 40, rows)
    yield "user_tenure_days", pa.array(random.gamma(2, 100, rows), mask=random.random(rows) < 0.02)
    for name in ("item_age_days", "user_impressions"):
        yield name, np.floor(random.gamma(2, 40, rows))
    for name in ("user_click_rate", "item_click_rate"):
        yield name, random.random(rows)


if __name__ == "__main__":
    main()
