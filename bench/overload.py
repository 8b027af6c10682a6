"""Three times what a server can do, in an open loop: the admitted wait a bounded time, the others get 429, then all is well.

tidewheel run --recipe recipes/quickstart.yaml --home HOME
python -m bench.overload --home HOME
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import psutil

from bench.fuzzed import post, valid_document
from tidewheel.ranker import load_bundle
from tidewheel.registry import Ledger
from tidewheel.serving import Client, start_server
from tidewheel.store import Home

CANDIDATES = 500  # a request costs the server far more than its sender
SENDERS = 2
CONNECTIONS = 150  # of each
MAX_GROWTH_BYTES = 200 * 1024 * 1024


@dataclass(frozen=True)
class Load:
    """Requests `interval_seconds` apart for `seconds`, whether or not earlier ones are answered."""

    host: str
    port: int
    data: bytes
    interval_seconds: float
    seconds: float


async def _send(load: Load) -> list[tuple[int, float]]:
    """Status and seconds of each request; status 0: the connection broke, -1: none of them was free, it was not sent."""
    free: asyncio.Queue[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = asyncio.Queue()
    for _ in range(CONNECTIONS):
        free.put_nowait(await asyncio.open_connection(load.host, load.port))
    found: list[tuple[int, float]] = []

    async def one() -> None:
        if free.empty():
            found.append((-1, 0.0))
            return
        reader, writer = free.get_nowait()
        sent = time.monotonic()
        try:
            writer.write(load.data)
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(
                next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length")).split(b":")[1]
            )
            await reader.readexactly(length)
            found.append((int(head.split()[1]), time.monotonic() - sent))
        except (OSError, asyncio.IncompleteReadError):
            found.append((0, time.monotonic() - sent))
            reader, writer = await asyncio.open_connection(load.host, load.port)
        free.put_nowait((reader, writer))

    tasks, began = [], time.monotonic()
    for at in range(int(load.seconds / load.interval_seconds)):
        due = began + at * load.interval_seconds
        await asyncio.sleep(max(0.0, due - time.monotonic()))
        tasks.append(asyncio.create_task(one()))
    await asyncio.gather(*tasks)
    return found


def send(load: Load) -> list[tuple[int, float]]:
    return asyncio.run(_send(load))


def tell(name: str, found: list[tuple[int, float]], seconds: float) -> float:
    """Print what came back; the 99th percentile of the answered, in seconds."""
    statuses = Counter(status for status, _ in found)
    texts = []
    p99 = 0.0
    for status in sorted(statuses):
        times = np.array([spent for found_status, spent in found if found_status == status])
        p50, upper = np.quantile(times, [0.5, 0.99])
        p99 = upper if status == 200 else p99
        texts.append(
            f"{status}: {len(times):,} (p50 {1000 * p50:.0f}, p99 {1000 * upper:.0f}, max {1000 * times.max():.0f} ms)"
        )
    print(f"{name}: {len(found) / seconds:,.0f} requests/s offered; {'; '.join(texts)}")
    return p99


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--name", default="quickstart", help="name of the recipe")
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--times", type=float, default=3.0, help="of what one connection gets out of it")
    options = parser.parse_args()
    store = Home.resolve(options.home).store()
    bundle = load_bundle(store, Ledger(store, options.name).production() or "")
    data = post(json.dumps(valid_document(bundle.manifest.features, CANDIDATES)).encode())
    with start_server(bundle.folder) as server, ProcessPoolExecutor(SENDERS, get_context("spawn")) as pool:
        process = psutil.Process(server.process.pid)
        client = Client(server.url)
        place = server.url.removeprefix("http://").split(":")
        body = data.partition(b"\r\n\r\n")[2]

        def run(name: str, rate: float, seconds: float) -> float:
            load = Load(place[0], int(place[1]), data, SENDERS / rate, seconds)
            futures = [pool.submit(send, load) for _ in range(SENDERS)]
            found = [one for future in futures for one in future.result()]
            assert client.get("/v2/health/ready")[0] == 200
            return tell(name, found, seconds)

        for _ in range(50):
            client._exchange("POST", "/v2/models/ranker/infer", body)
        started = time.monotonic()
        for _ in range(500):
            client._exchange("POST", "/v2/models/ranker/infer", body)
        capacity = 500 / (time.monotonic() - started)
        print(f"one caller gets {capacity:,.0f} requests/s of {CANDIDATES} candidates")
        run("before", capacity / 4, 5.0)
        before = process.memory_info().rss
        run("overload", options.times * capacity, options.seconds)
        after = process.memory_info().rss
        run("recovered", capacity / 4, 5.0)
        lines = client.get("/metrics")[1].decode().splitlines()
    print("\n".join(line for line in lines if line.startswith(("tidewheel_shed", "tidewheel_closed", "tidewheel_waiting"))))
    print(f"resident memory before {before / 2**20:.0f} MiB, after {after / 2**20:.0f}")
    assert after - before < MAX_GROWTH_BYTES


if __name__ == "__main__":
    main()
