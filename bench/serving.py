"""What HTTP costs a score: the server over one connection, beside the same scorer called in this process.

tidewheel run --recipe recipes/quickstart.yaml --home HOME
python bench/serving.py --home HOME --name quickstart
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from tidewheel.contracts.schema import Entity, FeatureKind
from tidewheel.ranker import Scorer, load_bundle
from tidewheel.registry import Ledger
from tidewheel.serving import start_server
from tidewheel.store import Home

CANDIDATES = 8
REQUESTS = 2000


def per_second(call: Callable[[], object]) -> float:
    for _ in range(100):
        call()
    started = time.monotonic()
    for _ in range(REQUESTS):
        call()
    return REQUESTS / (time.monotonic() - started)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--name", default="quickstart", help="name of the recipe")
    options = parser.parse_args()
    store = Home.resolve(options.home).store()
    bundle = load_bundle(store, Ledger(store, options.name).production() or "")
    random = np.random.default_rng(0)
    columns = {}
    for feature in bundle.manifest.features:
        size = CANDIDATES if feature.entity is Entity.ITEM else 1
        is_number = feature.kind is FeatureKind.NUMERIC
        columns[feature.name] = random.random(size) if is_number else random.integers(0, 1000, size)
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
