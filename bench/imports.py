"""What the command line and each engine cost to import: median of five fresh processes, beside an empty one.

python bench/imports.py
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

ENGINES = ("pyspark.sql.connect.session", "torch", "great_expectations", "mlflow", "onnxruntime", "kfp")
REPEATS = 5


def seconds(*arguments: str) -> float:
    """Median wall time of a fresh interpreter."""
    taken = []
    for _ in range(REPEATS):
        started = time.monotonic()
        subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)
        taken.append(time.monotonic() - started)
    return statistics.median(taken)


def main() -> None:
    empty = seconds("-c", "pass")
    rows = [("(empty)", empty)]
    rows.append(
        ("tidewheel --help", seconds("-c", "import sys; sys.argv[1:] = ['--help']; from tidewheel.cli import main; main()"))
    )
    door = "from tidewheel.quality.expectations import library; library()"
    rows.append(("great_expectations, our door", seconds("-c", door)))
    rows += [(engine, seconds("-c", f"import {engine}")) for engine in ENGINES]
    for name, taken in rows:
        print(f"{name:<30} {taken:6.2f} s  {taken / empty:6.1f} x an empty interpreter")


if __name__ == "__main__":
    main()
