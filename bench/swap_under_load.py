"""The assignment changes back and forth while several callers ask: no request fails, each is answered by a bundle of its time.

tidewheel simulate --recipe recipes/quickstart.yaml --turns 2 --home HOME     # two bundles
python -m bench.swap_under_load --home HOME --requests 100000 [--processes 2]
"""

from __future__ import annotations

import argparse
import json
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import cycle
from pathlib import Path

import numpy as np
import psutil

from bench.fuzzed import valid_document
from tidewheel.contracts.assignment import Assignment, Share, name_of
from tidewheel.contracts.bundle import BundleManifest
from tidewheel.errors import TidewheelError
from tidewheel.ranker.bundle import BUNDLES
from tidewheel.serving import Client, start_server
from tidewheel.store import Home, Store

RECIPE = "swapped"
POLL_SECONDS = 0.05
MIXES = ((1.0, 0.0), (0.9, 0.1), (0.5, 0.5), (0.0, 1.0), (0.3, 0.7))  # shares of the two bundles, one after the other


@dataclass
class Seen:
    """What one caller met."""

    bundles: Counter[str] = field(default_factory=Counter)
    strangers: int = 0  # answers of a bundle that no assignment of the request's time names
    failures: list[str] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)


class Assigner:
    """Writes assignment after assignment; the next one once the server follows the last."""

    def __init__(self, store: Store, bundles: tuple[str, str]) -> None:
        self._store = store
        self._bundles = bundles
        self._mixes = cycle(MIXES)
        self.number = 0
        self.written: list[frozenset[str]] = [frozenset()]  # bundles, by number

    def write(self) -> None:
        pairs = zip(self._bundles, next(self._mixes), strict=True)
        shares = tuple(Share(bundle=bundle, share=share) for bundle, share in pairs if share)
        assignment = Assignment(recipe=RECIPE, number=self.number + 1, salt=self.number, shares=shares)
        self.written.append(frozenset(share.bundle for share in shares))
        assert self._store.create(name_of(RECIPE, assignment.number), assignment.to_json())
        self.number = assignment.number

    def work(self, url: str, is_over: threading.Event) -> list[float]:
        """Seconds from each record to the server that follows it."""
        client, taken = Client(url), []
        while not is_over.is_set():
            self.write()
            started = time.monotonic()
            while not is_over.is_set() and _metric(client, "tidewheel_assignment_number") < self.number:
                is_over.wait(POLL_SECONDS / 2)
            taken.append(time.monotonic() - started)
            is_over.wait(0.2)
        return taken


def _metric(client: Client, name: str) -> float:
    lines = client.get("/metrics")[1].decode().splitlines()
    return next(float(line.split()[-1]) for line in lines if line.startswith(name + " "))


def _resident_bytes(pid: int) -> int:
    """Of a server and its processes."""
    process = psutil.Process(pid)
    return sum(one.memory_info().rss for one in (process, *process.children(recursive=True)))


def ask(url: str, body: Callable[[int], bytes], requests: int, assigner: Assigner) -> Seen:
    """One caller over one connection. The server follows at most one record behind."""
    client, seen = Client(url), Seen()
    for at in range(requests):
        earliest = max(1, assigner.number - 1)
        started = time.perf_counter()
        try:
            status, answer, bundle = client._exchange("POST", "/v2/models/ranker/infer", body(at))
        except TidewheelError as error:
            seen.failures.append(str(error))
            continue
        seen.seconds.append(time.perf_counter() - started)
        if status != 200:
            seen.failures.append(f"{status} {answer[:200]!r}")
            continue
        seen.bundles[bundle] += 1
        said = json.loads(answer)["model_version"]
        resident = frozenset().union(*assigner.written[earliest : assigner.number + 2])
        seen.strangers += said != bundle or bundle not in resident
    return seen


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--requests", type=int, default=100_000)
    parser.add_argument("--callers", type=int, default=4)
    parser.add_argument("--processes", type=int, default=1, help="of the server")
    options = parser.parse_args()
    source = Home.resolve(options.home).store()
    bundles = tuple(source.folders(BUNDLES)[:2])
    assert len(bundles) == 2, "two bundles are needed: turn the wheel twice"
    manifest = BundleManifest.read(source.fetch(BUNDLES, bundles[0]) / "manifest.json")
    document = valid_document(manifest.features)

    def body(user_id: int) -> bytes:
        return json.dumps(document | {"parameters": {"user_id": user_id}}).encode()

    with tempfile.TemporaryDirectory() as root:
        store = Store.open(str(Path(root) / "store"))
        (Path(root) / "store" / BUNDLES).symlink_to(Path(source.location(BUNDLES)))
        assigner = Assigner(store, (bundles[0], bundles[1]))
        assigner.write()
        more = ("--follow", store.url, RECIPE, "--poll-seconds", str(POLL_SECONDS), "--max-versions", "2")
        more += ("--processes", str(options.processes))
        with start_server(None, more=more) as server, ThreadPoolExecutor(options.callers + 1) as pool:
            is_over = threading.Event()
            for at in range(100):
                Client(server.url)._exchange("POST", "/v2/models/ranker/infer", body(at))
            before, started = _resident_bytes(server.process.pid), time.monotonic()
            swaps = pool.submit(assigner.work, server.url, is_over)
            each = options.requests // options.callers
            callers = [pool.submit(ask, server.url, body, each, assigner) for _ in range(options.callers)]
            found = [caller.result() for caller in callers]
            spent = time.monotonic() - started
            is_over.set()
            delays = np.array(swaps.result())
            after = _resident_bytes(server.process.pid)
            swapped = _metric(Client(server.url), "tidewheel_version_swaps_total")
    seconds = np.array([one for seen in found for one in seen.seconds])
    answered = sum((seen.bundles for seen in found), Counter[str]())
    failures = [text for seen in found for text in seen.failures]
    strangers = sum(seen.strangers for seen in found)
    print(f"{each * options.callers:,} requests of {options.callers} callers in {spent:.0f} s; {swapped:.0f} swaps")
    print(f"failed: {len(failures)} {failures[:3]}; answers of a bundle that was not resident: {strangers}")
    print("answered by " + ", ".join(f"{bundle[:12]}: {number:,}" for bundle, number in answered.items()))
    quantiles = " ".join(f"{1000 * value:.1f}" for value in np.quantile(seconds, [0.5, 0.99, 0.999, 1.0]))
    print(f"latency p50, p99, p99.9, max: {quantiles} ms; from a record to its table: median {1000 * np.median(delays):.0f} ms")
    print(f"resident memory before {before / 2**20:.0f} MiB, after {after / 2**20:.0f}")
    assert not failures
    assert not strangers
    assert swapped >= 10


if __name__ == "__main__":
    main()
