"""Ingest and sample on several Spark executors instead of one process: the same rows, the same digests?

    python -m bench.executors --data DIR [--masters local[2] local-cluster[2,1,1024]]

`local-cluster[2,1,1024]` is a real standalone cluster on this machine: a master, and two executors in processes of their own,
each with one core and 1 GiB, that exchange rows over TCP. Each master runs in a process of its own. The first one is the
reference: every file that another one writes must have its name and its sha256. Ends with 1 where one does not.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bench.data_plane import WINDOW_END
from bench.work import ROOT, recipe, window


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--masters", nargs="+", default=["local[2]", "local-cluster[2,1,1024]"])
    parser.add_argument("--child", nargs=2, metavar=("MASTER", "OUT"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        run(options.data, options.child[0], Path(options.child[1]))
        return
    written = {}
    with tempfile.TemporaryDirectory() as scratch:
        for number, master in enumerate(options.masters):
            out = Path(scratch) / str(number)
            out.mkdir()
            command = [sys.executable, "-m", "bench.executors", "--data", str(options.data), "--child", master, str(out)]
            started = time.monotonic()
            subprocess.run(command, cwd=ROOT, env=_environment(), check=True)
            written[master] = digests(out)
            print(f"{master}: {len(written[master])} files in {time.monotonic() - started:.0f} s", flush=True)
    reference, *others = options.masters
    for path, digest in written[reference].items():
        same = [master for master in others if written[master].get(path) == digest]
        print(f"{path:<40} {digest[:12]}  the same on {', '.join(same) or 'no other'}")
    if any(written[master] != written[reference] for master in others):
        sys.exit("not the same files")


def run(data: Path, master: str, out: Path) -> None:
    from tidewheel.logs import ingest
    from tidewheel.logs.session import spark_session
    from tidewheel.sampling.dataframe import sample

    of = recipe(negative_rate=0.5)
    span, names = window(of, WINDOW_END), [label.name for label in of.labels]
    with spark_session(master) as spark:
        ingest(spark, of.source, of.labels, of.features, of.ingest, span, out, data)
        sample(spark, out / "impressions", of.sample, of.window, span, names, out / "splits")


def digests(out: Path) -> dict[str, str]:
    """Path -> sha256 of every Parquet file of a run."""
    files = sorted(out.rglob("*.parquet"))
    return {path.relative_to(out).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def _environment() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}"}


if __name__ == "__main__":
    main()
