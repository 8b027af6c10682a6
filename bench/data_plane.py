"""How fast and how large ingest and sample are, beside the same work written by hand for Spark and for DuckDB.

    pip install tidewheel[bench]
    python -m bench.data_plane --data DIR [--rows 1M,10M] [--only ours,duckdb] [--repeat 3] [--json FILE]

DIR is KuaiRand-Pure; bench/resample.py makes it any size. The work: read the files of the window and its lookback, join user
and video features, type every row, malformed ones to quarantine with reason and JSON, find exact and conflicting repeats,
count users, items and authors as of before each impression's day, write impressions sorted by row key and the snapshot of
the counters; then split by time, keep by hash, weigh, count, and write the splits sorted by row key.

    ours    ingest and sample as the steps call them, on the embedded engine
    spark   bench/peer_spark.py, plain PySpark on classic Spark, `local[cores]`; its rows must be ours, all columns
    duckdb  bench/peer_duckdb.py, one SQL script; its sums and counts must be ours, but for what its own hash draws

Each runs in a process of its own, one after the other. Seconds are the whole process's, imports and engine starts included;
memory is the peak of the sum over its processes, looked at five times a second; CPU seconds are theirs too, and on a machine
with other work the ratio of these is the steadier one.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import psutil

from bench.resample import resample, row_count
from bench.work import ROOT, Work, recipe, run_ours, work_of
from bench.written import differences, summary

ENGINES = ("ours", "spark", "duckdb")
WINDOW_END = "2022-05-06"  # the nine days that the log ends with; two days before them are lookback
_GIB = 2**30
_LOOK_SECONDS = 0.2
_MALFORMED = 0.0005  # share of rows, so that the quarantine has work


@dataclass(frozen=True)
class Measured:
    """One process. `phases`: its own seconds a phase; `summary`: what it wrote, see bench/written.py."""

    engine: str
    rows: int
    seconds: float
    cpu_seconds: float
    peak_gib: float
    phases: dict[str, float]
    summary: dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder of the real log; needed where --logs lacks a size")
    parser.add_argument("--logs", type=Path, help="folder that keeps the resampled logs, for the next run")
    parser.add_argument("--rows", default="1M,10M")
    parser.add_argument("--only", default=",".join(ENGINES))
    parser.add_argument("--repeat", type=int, default=1, help="rounds; every engine once a round, medians are shown")
    parser.add_argument("--cores", type=int, default=2, help="of the peers; ours takes what the machine has")
    parser.add_argument("--negative-rate", type=float, default=0.5, help="rate of training rows without a positive label")
    parser.add_argument("--json", type=Path, help="writes every measurement here")
    parser.add_argument("--child", nargs=2, metavar=("ENGINE", "WORK"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        _run_child(options.child[0], Work.parse(options.child[1]))
        return
    engines = options.only.split(",")
    if unknown := sorted(set(engines) - set(ENGINES)):
        parser.error(f"--only: {', '.join(unknown)} unknown; expected some of {', '.join(ENGINES)}")
    found = []
    with tempfile.TemporaryDirectory() as scratch:
        logs = options.logs or Path(scratch) / "logs"
        for size in options.rows.split(","):
            log, rows = _log(options, logs / size, row_count(size))
            rounds = [_round(engines, log, rows, Path(scratch), options) for _ in range(options.repeat)]
            found += [_median([round_[index] for round_ in rounds]) for index in range(len(engines))]
            _show(found[-len(engines) :])
    _show_scaling([measured for measured in found if measured.engine == "ours"])
    if options.json:
        options.json.write_text(json.dumps([asdict(measured) for measured in found], indent=1))


def _log(options: argparse.Namespace, folder: Path, rows: int) -> tuple[Path, int]:
    import pyarrow.parquet as pq

    if not folder.is_dir():
        if options.data is None:
            sys.exit(f"no log in {folder}; give --data, the folder of KuaiRand-Pure, to make it from")
        partial = folder.with_name(folder.name + ".partial")
        shutil.rmtree(partial, ignore_errors=True)
        resample(options.data, rows, partial, seed=1, malformed=_MALFORMED)
        partial.rename(folder)
    return folder, sum(pq.read_metadata(path).num_rows for path in folder.glob("log_*.parquet"))


def _round(engines: list[str], log: Path, rows: int, scratch: Path, options: argparse.Namespace) -> list[Measured]:
    """Every engine once, and all of them with the same result."""
    measured = []
    for engine in engines:
        out = scratch / engine
        out.mkdir()
        work = work_of(recipe(options.negative_rate), WINDOW_END, log, out, options.cores)
        measured.append(_measure(engine, work, rows))
        shutil.rmtree(out)
    for other in measured[1:]:
        if wrong := differences(
            measured[0].summary, other.summary, is_same_hash="duckdb" not in (measured[0].engine, other.engine)
        ):
            sys.exit(f"{measured[0].engine} and {other.engine} did not do the same work: " + "; ".join(wrong))
    return measured


def _measure(engine: str, work: Work, rows: int) -> Measured:
    environment = os.environ | {"PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}", "SPARK_LOCAL_IP": "127.0.0.1"}
    command = [sys.executable, "-m", "bench.data_plane", "--child", engine, work.to_json()]
    said = work.out.with_suffix(".said")
    started = time.monotonic()
    with said.open("w") as stdout:
        child = psutil.Popen(command, stdout=stdout, cwd=ROOT, env=environment)
        peak, cpu = _watch(child)
    seconds = time.monotonic() - started
    if child.returncode:
        sys.exit(f"{engine} ended with {child.returncode}; its messages are above")
    lines = [json.loads(line) for line in said.read_text().splitlines()]
    phases = {line["phase"]: line["seconds"] for line in lines if "phase" in line}
    (splits,) = (line["splits"] for line in lines if "splits" in line)
    return Measured(engine, rows, seconds, cpu, peak / _GIB, phases, summary(work.out, splits))


def _watch(child: psutil.Popen) -> tuple[int, float]:
    """Peak of the bytes that the child and its descendants hold together, and their CPU seconds, when it has ended."""
    peak, spent = 0, {}
    while child.poll() is None:
        held = 0
        for process in (child, *_descendants(child)):
            try:
                with process.oneshot():
                    held += process.memory_info().rss
                    times = process.cpu_times()
                    spent[process.pid] = times.user + times.system
            except psutil.Error:
                continue  # it has just ended
        peak = max(peak, held)
        time.sleep(_LOOK_SECONDS)
    return peak, sum(spent.values())


def _descendants(child: psutil.Popen) -> list[psutil.Process]:
    try:
        return child.children(recursive=True)
    except psutil.Error:
        return []  # it has just ended


def _run_child(engine: str, work: Work) -> None:
    if engine == "ours":
        splits = run_ours(work, WINDOW_END)
    elif engine == "spark":
        from bench import peer_spark

        splits = peer_spark.main(work)
    else:
        from bench import peer_duckdb

        splits = peer_duckdb.main(work)
    print(json.dumps({"splits": splits}), flush=True)


def _median(rounds: list[Measured]) -> Measured:
    middle = {name: statistics.median(getattr(x, name) for x in rounds) for name in ("seconds", "cpu_seconds", "peak_gib")}
    phases = {name: statistics.median(x.phases[name] for x in rounds) for name in rounds[0].phases}
    return replace(rounds[0], phases=phases, **middle)


def _show(found: list[Measured]) -> None:
    """A row an engine. `speed`: how many times faster the first one is, in seconds and in CPU seconds."""
    first = found[0]
    print(f"\n{first.rows:,} rows")
    print(
        f"{'':<8} {'seconds':>8} {'rows/s':>9} {'CPU s':>7} {'peak GiB':>9} {'MiB out':>8}  {'speed':>6} {'in CPU':>6}  phases"
    )
    for x in found:
        phases = ", ".join(f"{name} {seconds:.1f}" for name, seconds in x.phases.items())
        speed = f"{x.seconds / first.seconds:6.2f} {x.cpu_seconds / first.cpu_seconds:6.2f}"
        print(
            f"{x.engine:<8} {x.seconds:8.1f} {x.rows / x.seconds:9,.0f} {x.cpu_seconds:7.1f} {x.peak_gib:9.2f} "
            f"{x.summary['bytes'] / 2**20:8.0f}  {speed}  {phases}",
            flush=True,
        )
    print(f"speed: {first.engine} against it; same rows, sums and counts in all of them")


def _show_scaling(ours: list[Measured]) -> None:
    """Time a row and peak memory of the sizes, beside the smallest."""
    if len(ours) < 2:
        return
    first = ours[0]
    print(f"\n{'ours':>12} {'µs/row':>8} {'beside':>7} {'CPU µs/row':>11} {'beside':>7} {'peak GiB':>9} {'beside':>7}")
    for x in ours:
        wall, cpu = x.seconds / x.rows * 1e6, x.cpu_seconds / x.rows * 1e6
        beside = wall / (first.seconds / first.rows * 1e6), cpu / (first.cpu_seconds / first.rows * 1e6)
        print(
            f"{x.rows:12,} {wall:8.2f} {beside[0]:7.2f} {cpu:11.2f} {beside[1]:7.2f} {x.peak_gib:9.2f} "
            f"{x.peak_gib / first.peak_gib:7.2f}"
        )


if __name__ == "__main__":
    main()
