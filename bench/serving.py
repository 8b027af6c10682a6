"""What serving costs: over HTTP beside the same graph in this process, beside other servers, and with the hybrid log.

    tidewheel simulate --recipe recipes/quickstart.yaml --turns 1 --home HOME
    python -m bench.serving --home HOME                      one connection, beside the same scorer called in this process
    python -m bench.serving --home HOME --log                what the hybrid log costs: two servers, turn and turn about
    python -m bench.serving --home HOME --tail               p99 over HTTP beside ONNX Runtime's in process, turn and turn about
    python -m bench.serving --home HOME --peers DIR          answers a second at a p99 of at most 20 ms, beside others

DIR: uv venv DIR && uv pip install --python DIR -r bench/serving_peers.txt
A batch is --candidates rows that the bundle was calibrated on; the features of user and context are sent once. 16 batches take
turns. --random makes numbers with all their digits instead: more JSON than any log has.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from itertools import cycle
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import psutil
import pyarrow.parquet as pq

from bench.load import Connection, Load, load_from_another_process, write_requests
from bench.serving_batches import FORMS, Columns, logged_batches, logged_request, production, random_batches
from bench.serving_systems import PEERS, check, serving
from tidewheel.ranker import OpenBundle, Scorer
from tidewheel.serving import start_server

BATCHES = 16
REQUESTS = 2000
LOG_TURNS, TURN_REQUESTS = 400, 50  # what else the machine does meets both servers
TICK_SECONDS = 0.002  # of the steady rate at which tails are measured
CONNECTIONS = (1, 2, 4, 8, 16, 32)
MAX_P99_SECONDS = 0.020


def per_second(call: Callable[[Any], object], inputs: Sequence[Any]) -> float:
    upcoming = cycle(inputs)
    for _ in range(100):
        call(next(upcoming))
    started = time.monotonic()
    for _ in range(REQUESTS):
        call(next(upcoming))
    return REQUESTS / (time.monotonic() - started)


def one_connection(bundle: OpenBundle, batches: Sequence[Columns]) -> None:
    scorer = Scorer(bundle)
    for form in ("ours", "ours, bytes"):
        started = time.monotonic()
        with start_server(bundle.folder) as server:
            ready = time.monotonic() - started
            connection = Connection(urlsplit(server.url).port or 0)
            served = per_second(connection.ask, [FORMS[form].request(columns) for columns in batches])
            connection.close()
        direct = per_second(scorer.score, batches)
        print(
            f"{form}: ready after {ready:.2f} s; served {served:,.0f} requests/s, in process {direct:,.0f} scores/s, ", end=""
        )
        print(f"ratio {served / direct:.2f}", flush=True)


def with_and_without_log(folder: Path, batches: Sequence[Columns]) -> None:
    """The same requests to a server with a log and to one without, in short turns; segments are written meanwhile."""
    candidates = max(len(values) for values in batches[0].values())
    requests = [logged_request({**columns, "position": np.arange(candidates)}, {"is_randomized": False}) for columns in batches]
    seconds: dict[str, list[float]] = {"off": [], "on": []}
    with tempfile.TemporaryDirectory() as root, start_server(folder) as off, start_server(folder, log_folder=Path(root)) as on:
        servers = {"off": off, "on": on}
        connections = {name: Connection(urlsplit(server.url).port or 0) for name, server in servers.items()}
        before = {name: cpu_seconds(server.process.pid) for name, server in servers.items()}
        (writer,) = psutil.Process(on.process.pid).children()
        written = cpu_seconds(writer.pid)
        host = Host()
        for turn in range(LOG_TURNS):
            for name in ("off", "on") if turn % 2 else ("on", "off"):
                started = time.monotonic()
                for at in range(TURN_REQUESTS):
                    status, answer = connections[name].ask(requests[at % len(requests)])
                    assert status == 200, answer
                seconds[name].append(time.monotonic() - started)
        print(host)
        spent = {name: cpu_seconds(server.process.pid) - before[name] for name, server in servers.items()}
        written = cpu_seconds(writer.pid) - written
        on.stop()
        segments = list(Path(root).rglob("part-*.parquet"))
        rows = sum(pq.read_metadata(path).num_rows for path in segments)
    number = LOG_TURNS * TURN_REQUESTS
    assert rows == number * candidates, "the log lost rows"
    print(f"{number:,} requests each, {candidates} candidates; {len(segments)} segments, no row lost")
    _print_costs(seconds, spent, number)
    print(f"the log's writer, beside that: {1e6 * written / number:.0f} us of CPU a request")


def _print_costs(seconds: Mapping[str, Sequence[float]], spent: Mapping[str, float], number: int) -> None:
    low, median, high = np.quantile(np.array(seconds["off"]) / np.array(seconds["on"]), [0.25, 0.5, 0.75])
    print(f"throughput with the log / without: {median:.3f} (quartiles {low:.3f} and {high:.3f} of {LOG_TURNS} turns)")
    print(f"  of all turns together: {sum(seconds['off']) / sum(seconds['on']):.3f}")
    print(f"requests per CPU second of the server, with / without: {spent['off'] / spent['on']:.3f}")
    for name, turns in seconds.items():
        fastest = TURN_REQUESTS / np.quantile(turns, 0.1)
        print(f"log {name}: {1e6 * spent[name] / number:.0f} us of CPU a request, {fastest:,.0f} requests/s in its fast turns")


def cpu_seconds(pid: int) -> float:
    times = psutil.Process(pid).cpu_times()
    return times.user + times.system


def tails(bundle: OpenBundle, batches: Sequence[Columns], ticks: int, more: Sequence[str]) -> None:
    """A request as JSON, one as bytes, and both runs in this process at each tick of a steady rate, in turn.

    "in process": what a request asks for, the bundle's encoders and its graph, on a batch of raw columns; "graph": ONNX Runtime
    alone, on a batch that is encoded already.
    """
    scorer = Scorer(bundle)
    encoded = [scorer.encoders.encode(columns) for columns in batches]
    with start_server(bundle.folder, more=more) as server:
        connection = Connection(urlsplit(server.url).port or 0)
        calls: dict[str, tuple[Callable[[Any], object], Sequence[Any]]] = {
            "in process": (scorer.score, batches),
            "graph": (scorer.score_encoded, encoded),
        }
        for form in ("ours", "ours, bytes"):
            calls[form] = connection.ask, [FORMS[form].request(columns) for columns in batches]
        found = _in_turn(calls, ticks, len(batches))
        connection.close()
    _print_tails({name: taken for name, (taken, _) in found.items()})
    quiet = {name: taken[is_quiet] for name, (taken, is_quiet) in found.items()}
    print(f"of the {sum(map(len, quiet.values())):,} calls in which the host gave no time to others:")
    _print_tails(quiet)


def _in_turn(
    calls: Mapping[str, tuple[Callable[[Any], object], Sequence[Any]]], ticks: int, num_inputs: int
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Seconds of each call (ticks,), and whether the host gave no time to others from the call before to its end."""
    taken: dict[str, list[tuple[float, bool]]] = {name: [] for name in calls}
    names = list(calls)
    host = Host()
    for tick in range(-100, ticks):
        for turn in range(len(names)):
            name = names[(tick + turn) % len(names)]
            call, inputs = calls[name]
            time.sleep(TICK_SECONDS)
            started = time.perf_counter()
            call(inputs[tick % num_inputs])
            seconds = time.perf_counter() - started
            is_quiet = host.was_quiet()
            if tick >= 0:
                taken[name].append((seconds, is_quiet))
    print(host)
    return {name: (np.array([s for s, _ in found]), np.array([q for _, q in found])) for name, found in taken.items()}


def _print_tails(taken: Mapping[str, np.ndarray]) -> None:
    for name, found in taken.items():
        median, p90, p99 = 1e3 * np.quantile(found, [0.5, 0.9, 0.99])
        print(f"{name}: median {median:.2f} ms, p90 {p90:.2f} ms, p99 {p99:.2f} ms of {len(found):,}")
    for beside in ("in process", "graph"):
        allowed = 1.3 * np.quantile(taken[beside], 0.99) + 0.001
        for name in ("ours", "ours, bytes"):
            share = np.quantile(taken[name], 0.99) / allowed
            print(f"{name}: p99 is {share:.2f} of 1.3 x {beside} + 1 ms = {1e3 * allowed:.2f} ms")


class Host:
    """What this machine's host gave to others of the time that its cores wanted."""

    def __init__(self) -> None:
        self._began = psutil.cpu_times()
        self._stolen = self._began.steal

    def was_quiet(self) -> bool:
        """Whether it gave nothing since this was asked before; the kernel counts in hundredths of a second."""
        before, self._stolen = self._stolen, psutil.cpu_times().steal
        return bool(self._stolen == before)

    def __str__(self) -> str:
        now = psutil.cpu_times()
        share = 100 * (now.steal - self._began.steal) / (sum(now) - sum(self._began))
        return f"the host gave {share:.1f}% of this machine's time to others"


def beside_peers(bundle: OpenBundle, batches: Sequence[Columns], peers: Path, rounds: int, seconds: float) -> None:
    """Each system alone on the machine, in turn `rounds` times, with one worker and with as many as there are cores.

    The better of the two counts.
    """
    best: dict[str, list[float]] = {}
    for number in range(rounds):
        host = Host()
        for name in ("ours", "ours, bytes", *PEERS):
            found = [_beside(name, workers, bundle, batches, peers, seconds) for workers in sorted({1, os.cpu_count() or 1})]
            best.setdefault(name, []).append(best_of(found).per_second)
        print(f"round {number}: {host}", flush=True)
    for name in PEERS:
        for ours in ("ours", "ours, bytes"):
            ratios = np.array(best[ours]) / np.array(best[name])
            print(f"{ours} / {name}: {np.median(ratios):.1f} ({ratios.min():.1f} to {ratios.max():.1f} of {rounds} rounds)")


def _beside(name: str, workers: int, bundle: OpenBundle, batches: Sequence[Columns], peers: Path, seconds: float) -> Load:
    requests = [FORMS[name].request(columns) for columns in batches]
    with tempfile.TemporaryDirectory() as scratch:
        folder = write_requests(Path(scratch) / "requests", requests)
        with serving(name, workers, bundle, peers, Path(scratch)) as port:
            distance = check(name, port, bundle, list(batches))
            found = highest(port, folder, seconds)
    print(
        f"{name}, workers: {workers}: {found.per_second:,.0f}/s at {found.connections} connections, "
        f"median {1e3 * found.median_seconds:.1f} ms, p99 {1e3 * found.p99_seconds:.1f} ms; "
        f"scores within {distance:.0e} of ours, {len(requests[0]):,} bytes a request",
        flush=True,
    )
    return found


def highest(port: int, requests: Path, seconds: float) -> Load:
    """Closed loops of more and more connections: the best of them."""
    return best_of([load_from_another_process(port, requests, connections, seconds) for connections in CONNECTIONS])


def best_of(found: Sequence[Load]) -> Load:
    """The most answers a second whose p99 is in time; with nothing in time, those over the fewest connections."""
    in_time = [load for load in found if load.p99_seconds <= MAX_P99_SECONDS and not load.failed]
    fewest = [load for load in found if load.connections == min(load.connections for load in found)]
    return max(in_time or fewest, key=lambda load: load.per_second)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--name", default="quickstart", help="name of the recipe")
    parser.add_argument("--candidates", type=int, default=None, help="of a request; 500 with --tail, 100 with --peers, else 8")
    parser.add_argument(
        "--random", action="store_true", help="numbers with all their digits, and unknown texts, in place of logged rows"
    )
    parser.add_argument("--log", action="store_true", help="compare a server that writes the hybrid log with one that does not")
    parser.add_argument("--tail", action="store_true", help="p99 over HTTP beside ONNX Runtime in process")
    parser.add_argument("--ticks", type=int, default=2000, help="of --tail")
    parser.add_argument("--busy-poll-seconds", type=float, default=0.0, help="of the server of --tail")
    parser.add_argument("--peers", type=Path, default=None, help="the environment of the peers")
    parser.add_argument("--rounds", type=int, default=3, help="of --peers")
    parser.add_argument("--seconds", type=float, default=4.0, help="of --peers, for each number of connections")
    options = parser.parse_args()
    bundle = production(options.home, options.name)
    candidates = options.candidates or (500 if options.tail else 100 if options.peers else 8)
    if options.random:
        batches = random_batches(bundle, candidates, BATCHES)
    else:
        batches = logged_batches(options.home, bundle, candidates, BATCHES)
    size = len(FORMS["ours"].request(batches[0]))
    features, labels = len(bundle.manifest.features), len(bundle.manifest.labels)
    print(f"{candidates} candidates x {features} features, {labels} labels, {size:,} bytes of JSON")
    if options.log:
        with_and_without_log(bundle.folder, batches)
    elif options.tail:
        tails(bundle, batches, options.ticks, ("--busy-poll-seconds", str(options.busy_poll_seconds)))
    elif options.peers:
        beside_peers(bundle, batches, options.peers, options.rounds, options.seconds)
    else:
        one_connection(bundle, batches)


if __name__ == "__main__":
    main()
