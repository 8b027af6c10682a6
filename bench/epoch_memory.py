"""Memory of training for one epoch, by the number of rows: it should not grow with them.

    tidewheel run --recipe recipes/kuairand.yaml --data DIR --home HOME
    python -m bench.epoch_memory --home HOME --work DIR --rows 1M,100M [--network distill]

The training rows of the home's newest run, drawn again with replacement until there are so many, as Parquet; then, in a
process of its own, all that `train` does with them: encoders, encoded rows, one epoch. Peak resident memory is as the kernel
counts it.
DIR needs about 200 bytes a row while a size is measured.
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tidewheel.contracts.recipe import Recipe

GROUP_ROWS, FILE_ROWS = 131_072, 4_194_304
RECIPE = "recipe.json"
UNITS = {"k": 1_000, "M": 1_000_000}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--rows", default="1M,100M")
    parser.add_argument(
        "--network", choices=("train", "distill"), default="train", help="the ranker's network or the student's"
    )
    parser.add_argument("--batch-size", type=int, default=8192)
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(epoch(Recipe.read(options.child / RECIPE), options.child, options.network, options.batch_size)))
        return
    recipe, source = run_of(options.home)
    first = None
    for size in options.rows.split(","):
        count = int(size[:-1]) * UNITS[size[-1]]
        folder = options.work / f"rows-{size}"
        repeated(source, count, folder / "data")
        recipe.write(folder / RECIPE)
        again = [sys.executable, "-m", "bench.epoch_memory", *sys.argv[1:], "--child", str(folder)]
        found = json.loads(subprocess.run(again, stdout=subprocess.PIPE, check=True, text=True).stdout.splitlines()[-1])
        shutil.rmtree(folder)
        first = first or found["peak_bytes"]
        print(
            f"{size:>5} rows: peak {found['peak_bytes'] / 2**20:,.0f} MiB ({found['peak_bytes'] / first - 1:+.1%}), "
            f"encoded in {found['encode_seconds']:,.0f} s, epoch in {found['epoch_seconds']:,.0f} s "
            f"({found['rows_per_second']:,.0f} rows/s, {found['data_wait_share']:.1%} waiting for rows)",
            flush=True,
        )


def run_of(root: Path) -> tuple[Recipe, pa.Table]:
    """Recipe and training rows of the newest run; the measured process does without what this imports."""
    from bench.ranker_vs_logistic import reports, rows_of
    from tidewheel.store import Home

    home = Home.resolve(root)
    report = reports(home, None)[-1]
    return Recipe.read(home.run(report.run_id) / RECIPE), rows_of(home.store(), report.datasets["train"].digest)


def repeated(source: pa.Table, rows: int, folder: Path) -> None:
    """So many rows of the table, drawn with replacement, as files of Parquet; written a row group at a time."""
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(0)
    for number, start in enumerate(range(0, rows, FILE_ROWS)):
        end = min(start + FILE_ROWS, rows)
        with pq.ParquetWriter(folder / f"part-{number:05}.parquet", source.schema) as file:
            for at in range(start, end, GROUP_ROWS):
                file.write_table(source.take(random.integers(0, source.num_rows, min(GROUP_ROWS, end - at))))


def epoch(recipe: Recipe, folder: Path, network: str, batch_size: int) -> dict[str, float]:
    """What the step `train` does with the rows, for one epoch."""
    from tidewheel.ranker.network import Network
    from tidewheel.training import loop
    from tidewheel.training.encode import encoded_rows, fitted_encoders
    from tidewheel.training.train import fit_here

    loop.use_threads()
    began = time.monotonic()
    encoders = fitted_encoders(folder / "data", recipe.active_features, recipe.label_names, folder / "encoded")
    rows = encoded_rows(folder / "data", encoders, recipe.label_names, folder / "encoded")
    encoding = time.monotonic() - began
    optimizer = recipe.train.optimizer.model_copy(update={"epochs": 1, "batch_size": batch_size})
    of = Network.of(getattr(recipe, network).network, encoders, recipe.label_names)
    _, report = fit_here(rows, of, recipe.labels, recipe.train.model_copy(update={"optimizer": optimizer}))
    return {
        "peak_bytes": 1024.0 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss,
        "encode_seconds": encoding,
        "epoch_seconds": report.seconds,
        "rows_per_second": report.rows_per_second,
        "data_wait_share": report.data_wait_share,
    }


if __name__ == "__main__":
    main()
