"""What HTTP costs a score: the server over one connection, beside the same scorer called in this process.

tidewheel run --recipe recipes/quickstart.yaml --home HOME
python bench/serving.py --home HOME --name quickstart
python bench/serving.py --home HOME --name quickstart --log     # what the hybrid log costs: two servers, turn and turn about
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil
import pyarrow.parquet as pq

from tidewheel.contracts.schema import Entity, FeatureKind
from tidewheel.ranker import Scorer, load_bundle
from tidewheel.registry import Ledger
from tidewheel.serving import ServerProcess, start_server
from tidewheel.store import Home

CANDIDATES = 8
REQUESTS = 2000
TURNS = 200  # of the comparison with the log, TURN_REQUESTS each: what else the machine does meets both servers
TURN_REQUESTS = 50


def per_second(call: Callable[[], object]) -> float:
    for _ in range(100):
        call()
    started = time.monotonic()
    for _ in range(REQUESTS):
        call()
    return REQUESTS / (time.monotonic() - started)


def with_and_without_log(folder: Path, columns: dict[str, np.ndarray]) -> None:
    """The same requests to a server with a log and to one without, in short turns; segments are written meanwhile."""
    columns = columns | {"position": np.arange(CANDIDATES)}
    seconds: dict[str, list[float]] = {"off": [], "on": []}
    with tempfile.TemporaryDirectory() as root, start_server(folder) as off, start_server(folder, log_folder=Path(root)) as on:
        servers = {"off": off, "on": on}
        before = {name: cpu_seconds(server) for name, server in servers.items()}
        for turn in range(TURNS):
            for name in ("off", "on") if turn % 2 else ("on", "off"):
                started = time.monotonic()
                for _ in range(TURN_REQUESTS):
                    servers[name].infer(columns, {"is_randomized": False})
                seconds[name].append(time.monotonic() - started)
        spent = {name: cpu_seconds(server) - before[name] for name, server in servers.items()}
        on.stop()
        segments = list(Path(root).rglob("part-*.parquet"))
        rows = sum(pq.read_metadata(path).num_rows for path in segments)
    requests = TURNS * TURN_REQUESTS
    assert rows == requests * CANDIDATES, "the log lost rows"
    low, median, high = np.quantile(np.array(seconds["off"]) / np.array(seconds["on"]), [0.25, 0.5, 0.75])
    print(
        f"{requests:,} requests each, {CANDIDATES} candidates x {len(columns)} columns; {len(segments)} segments, no row lost"
    )
    print(f"throughput with the log / without: {median:.3f} (quartiles {low:.3f} and {high:.3f} of {TURNS} turns)")
    print(f"requests per CPU second of the server, with / without: {spent['off'] / spent['on']:.3f}")
    for name, turns in seconds.items():
        fastest = TURN_REQUESTS / np.quantile(turns, 0.1)
        print(
            f"log {name}: {1e6 * spent[name] / requests:.0f} us of CPU a request, {fastest:,.0f} requests/s in its fast turns"
        )


def cpu_seconds(server: ServerProcess) -> float:
    times = psutil.Process(server.process.pid).cpu_times()
    return times.user + times.system


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--name", default="quickstart", help="name of the recipe")
    parser.add_argument("--log", action="store_true", help="compare a server that writes the hybrid log with one that does not")
    options = parser.parse_args()
    store = Home.resolve(options.home).store()
    bundle = load_bundle(store, Ledger(store, options.name).production() or "")
    random = np.random.default_rng(0)
    columns = {}
    for feature in bundle.manifest.features:
        size = CANDIDATES if feature.entity is Entity.ITEM else 1
        is_number = feature.kind is FeatureKind.NUMERIC
        columns[feature.name] = random.random(size) if is_number else random.integers(0, 1000, size)
    if options.log:
        with_and_without_log(bundle.folder, columns)
        return
    started = time.monotonic()
    with start_server(bundle.folder) as server:
        ready = time.monotonic() - started
        served = per_second(lambda: server.infer(columns))
    scorer = Scorer(bundle)
    direct = per_second(lambda: scorer.score(columns))
    print(f"server ready after {ready:.2f} s; {CANDIDATES} candidates x {len(columns)} features, one connection")
    print(f"served {served:,.0f} requests/s, in process {direct:,.0f} scores/s, ratio {served / direct:.2f}")


if __name__ == "__main__":
    main()
