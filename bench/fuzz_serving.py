"""Generated requests against a real server: no server error, no trace of its code in an answer, bounded memory, still there.

tidewheel run --recipe recipes/quickstart.yaml --home HOME
python -m bench.fuzz_serving --home HOME --requests 100000
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections import Counter
from pathlib import Path

import psutil
from hypothesis import HealthCheck, Phase, given, seed, settings

from bench.fuzzed import ALIVE, LEAKS, Exchange, Wire, exchanges, valid_document
from tidewheel.ranker import load_bundle
from tidewheel.registry import Ledger
from tidewheel.serving import Client, start_server
from tidewheel.store import Home

ROUND = 5000  # examples of one call of hypothesis
MAX_GROWTH_BYTES = 400 * 1024 * 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--name", default="quickstart", help="name of the recipe")
    parser.add_argument("--requests", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    store = Home.resolve(options.home).store()
    bundle = load_bundle(store, Ledger(store, options.name).production() or "")
    document = valid_document(bundle.manifest.features)
    statuses: Counter[int] = Counter()
    kinds: Counter[str] = Counter()
    started = time.monotonic()
    # Short limits, so that callers who never finish are met thousands of times; a log, so that what it takes is fuzzed too.
    more = ("--body-seconds", "0.5", "--header-seconds", "0.5", "--max-body-bytes", str(2 * 1024 * 1024))
    with tempfile.TemporaryDirectory() as root, start_server(bundle.folder, log_folder=Path(root), more=more) as server:
        process = psutil.Process(server.process.pid)
        wire = Wire(server.url)
        wire.exchange(Exchange.valid(document))
        sizes = [process.memory_info().rss]

        def fuzz(examples: int) -> None:
            @seed(1000 * options.seed + len(sizes))
            @settings(
                max_examples=examples,
                database=None,
                deadline=None,
                phases=[Phase.generate],
                suppress_health_check=list(HealthCheck),
            )
            @given(exchanges(document, bundle.digest))
            def one(exchange: Exchange) -> None:
                kinds[exchange.kind] += 1
                for status, body in wire.exchange(exchange):
                    statuses[status] += 1
                    assert status < 500, (exchange, status, body)
                    assert not any(leak in body for leak in LEAKS), (exchange, body)
                    assert status < 400 or not body or json.loads(body)["error"], (exchange, body)

            one()
            sizes.append(process.memory_info().rss)

        while kinds.total() < options.requests:
            fuzz(min(ROUND, options.requests - kinds.total()))
            spent = time.monotonic() - started
            print(f"{kinds.total():,} requests, {spent:.0f} s, {sizes[-1] / 2**20:.0f} MiB", flush=True)
        assert server.is_alive()
        client = Client(server.url)
        assert client.get("/v2/health/ready") == (200, ALIVE)
        lines = client.get("/metrics")[1].decode().splitlines()
        closed = [line for line in lines if line.startswith("tidewheel_closed_connections_total")]
    print(f"{kinds.total():,} requests in {time.monotonic() - started:.0f} s: {dict(kinds.most_common())}")
    print(f"answers by status: {dict(sorted(statuses.items()))}; server errors 0")
    print(f"resident memory after each {ROUND:,} requests, MiB: {', '.join(f'{size / 2**20:.0f}' for size in sizes)}")
    print("\n".join(closed))
    assert max(sizes) - sizes[0] < MAX_GROWTH_BYTES, "memory grew"


if __name__ == "__main__":
    main()
