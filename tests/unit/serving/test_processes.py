"""A server of several processes, real ones: one address, one /metrics, one end; none of them is missed for long."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import psutil
import pyarrow.parquet as pq
import pytest

from tests.unit.serving.conftest import RECIPE, Assign
from tests.unit.serving.test_server import columns_for
from tests.unit.serving.wire import Wire, get, head, metric
from tidewheel.errors import ContractError, RetryableError
from tidewheel.ranker import OpenBundle
from tidewheel.serving import Client, ServerProcess, processes, start_server
from tidewheel.serving.options import parse
from tidewheel.serving.processes import Processes
from tidewheel.serving.protocol import encode_request
from tidewheel.store import Store

TWO = ("--processes", "2")
PATIENCE_SECONDS = 60.0  # of a test, for what comes within seconds on a quiet machine


@pytest.fixture
def body(tiny_bundle: OpenBundle) -> bytes:
    return encode_request(columns_for(tiny_bundle), {"user_id": 5})


@pytest.fixture
def server(tiny_bundle: OpenBundle) -> Iterator[ServerProcess]:
    with start_server(tiny_bundle.folder, more=TWO) as server:
        yield server


def until(said: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not said():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def counted(url: str, name: str, *labels: str) -> float:
    with Wire(url) as wire:
        return metric(wire.send(get("/metrics")).answer()[2], name, *labels)


def children(pid: int) -> list[psutil.Process]:
    return psutil.Process(pid).children()


def of(server: ServerProcess, wire: Wire) -> psutil.Process:
    """Which of its processes has this connection."""
    port = wire._socket.getsockname()[1]
    (found,) = [
        child
        for child in children(server.process.pid)
        if port in [one.raddr.port for one in child.net_connections("tcp") if one.raddr]
    ]
    return found


@pytest.fixture
def pair(server: ServerProcess, body: bytes) -> Iterator[tuple[Wire, Wire]]:
    """Connections to one process and to the other. Whichever is free takes a connection, so some may be needed."""
    wires = [Wire(server.url)]
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        assert wires[-1].send(head(len(body)) + body).answer()[0] == 200
        if of(server, wires[-1]) != of(server, wires[0]):
            break
        assert time.monotonic() < deadline, "one process takes every connection"
        wires.append(Wire(server.url))
    yield wires[0], wires[-1]
    for wire in wires:
        wire._socket.close()


def test_both_answer_and_are_counted_as_one(server: ServerProcess, pair: tuple[Wire, Wire], body: bytes) -> None:
    assert len(children(server.process.pid)) == 2
    before = counted(server.url, "tidewheel_requests_total")
    for wire, number in zip(pair, (3, 4), strict=True):
        for _ in range(number):
            assert wire.send(head(len(body)) + body).answer()[0] == 200
    for wire in pair:
        until(lambda wire=wire: metric(wire.send(get("/metrics")).answer()[2], "tidewheel_requests_total") >= before + 7)
        found = wire.send(get("/metrics")).answer()[2]
        assert metric(found, "tidewheel_score_count", 'label="click"') == 8 * metric(found, "tidewheel_requests_total")
        assert metric(found, "tidewheel_processes") == 2
        assert metric(found, "tidewheel_bundle_info") == 1


def test_one_that_is_killed_is_replaced_and_the_other_misses_nothing(
    server: ServerProcess, pair: tuple[Wire, Wire], body: bytes
) -> None:
    killed, stays = pair
    asked = children(server.process.pid)
    until(lambda: counted(server.url, "tidewheel_processes") == 2)
    before = metric(stays.send(get("/metrics")).answer()[2], "tidewheel_requests_total")
    of(server, killed).kill()
    with pytest.raises(EOFError):
        killed.send(get("/v2/health/ready")).answer()
    found = []
    deadline = time.monotonic() + PATIENCE_SECONDS
    while counted(server.url, "tidewheel_processes") < 2 or len(found) < 10:
        assert time.monotonic() < deadline
        assert stays.send(head(len(body)) + body).answer()[0] == 200
        found.append(metric(stays.send(get("/metrics")).answer()[2], "tidewheel_requests_total"))
    assert found == sorted(found), "counters never go back"
    assert found[0] > before
    assert len(set(children(server.process.pid)) - set(asked)) == 1


def test_all_leave_at_one_signal_and_every_row_is_in_the_log(tiny_bundle: OpenBundle, tmp_path: Path) -> None:
    with start_server(tiny_bundle.folder, log_folder=tmp_path, more=TWO) as server:

        def ask(caller: int) -> None:
            client = Client(server.url)
            for at in range(20):
                client.infer(columns_for(tiny_bundle), {"request_id": f"{caller}-{at}"})
            client.close()

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(ask, range(8)))
        gone = [*children(server.process.pid), *(one for child in children(server.process.pid) for one in child.children())]
        os.kill(server.process.pid, signal.SIGTERM)
        assert server.process.wait(PATIENCE_SECONDS) == 0
    assert not [process for process in gone if process.is_running()]
    tables = [pq.read_table(path, partitioning=None) for path in tmp_path.glob("backend/date=*/part-*.parquet")]
    rows = [name for table in tables for name in table["request_id"].to_pylist()]
    assert len(rows) == 8 * 20 * 8
    assert set(rows) == {f"{caller}-{at}" for caller in range(8) for at in range(20)}


def test_while_they_leave_all_is_answered_and_then_nobody_listens(tiny_bundle: OpenBundle, body: bytes) -> None:
    with start_server(tiny_bundle.folder, more=(*TWO, "--drain-seconds", "3")) as server:
        os.kill(server.process.pid, signal.SIGTERM)

        def is_not_ready() -> bool:
            with Wire(server.url) as wire:
                return wire.send(get("/v2/health/ready")).answer()[0] == 503

        until(is_not_ready)
        with Wire(server.url) as wire:
            status, headers, _ = wire.send(head(len(body)) + body).answer()
        assert (status, headers["connection"]) == (200, "close")
        assert server.process.wait(PATIENCE_SECONDS) == 0
        with pytest.raises(RetryableError, match="refused"):
            Client(server.url).get("/v2/health/live")


def test_an_assignment_is_in_force_when_every_process_has_it(
    shelf: tuple[Store, tuple[str, str, str]], assign: Assign, body: bytes, tmp_path: Path
) -> None:
    bundles = shelf[1]
    store = Store.open(str(tmp_path / "store"))
    (tmp_path / "store" / "bundles").symlink_to(Path(shelf[0].location("bundles")))
    assign(store, 1, {bundles[0]: 1.0})
    with start_server(None, more=("--follow", store.url, RECIPE, "--poll-seconds", "0.02", *TWO)) as server:
        assert server.bundle == bundles[0]
        for number in (2, 3):
            assign(store, number, {bundles[number - 1]: 1.0})
            until(lambda number=number: counted(server.url, "tidewheel_assignment_number") == number)
            for _ in range(10):
                with Wire(server.url) as wire:
                    assert wire.send(head(len(body)) + body).answer()[1]["tidewheel-bundle"] == bundles[number - 1]


def test_what_cannot_be_served_is_one_line_and_nobody_stays(tiny_bundle: OpenBundle, tmp_path: Path) -> None:
    with pytest.raises(ContractError, match="cannot be read"):
        start_server(tmp_path / ("0" * 64), more=TWO)
    command = [sys.executable, "-m", "tidewheel.serving", "--bundle", str(tmp_path / ("0" * 64)), "--port", "0", *TWO]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=PATIENCE_SECONDS)
    assert (ended.returncode, len(ended.stderr.splitlines())) == (3, 1)

    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        command = [sys.executable, "-m", "tidewheel.serving", "--bundle", str(tiny_bundle.folder), "--port", port, *TWO]
        ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=PATIENCE_SECONDS)
    assert (ended.returncode, "Address already in use" in ended.stderr) == (1, True)
    assert len(ended.stderr.splitlines()) == 1


def test_none_outlives_who_watches_over_them(tiny_bundle: OpenBundle) -> None:
    with start_server(tiny_bundle.folder, more=TWO) as server:
        left = children(server.process.pid)
        server.process.kill()
        _, alive = psutil.wait_procs(left, PATIENCE_SECONDS)
    assert (len(left), alive) == (2, [])


def test_it_says_where_it_is_to_a_file_once_all_answer(tiny_bundle: OpenBundle, tmp_path: Path) -> None:
    file = tmp_path / "said.json"
    command = [sys.executable, "-m", "tidewheel.serving", "--bundle", str(tiny_bundle.folder), "--port", "0", *TWO]
    process = subprocess.Popen([*command, "--announce-file", str(file)], stdin=subprocess.PIPE)
    until(file.exists)
    said = json.loads(file.read_text())
    assert (said["pid"], said["bundle"], len(children(process.pid))) == (process.pid, tiny_bundle.digest, 2)
    assert Client(said["url"]).get("/v2/health/ready")[0] == 200
    process.send_signal(signal.SIGINT)
    assert process.wait(PATIENCE_SECONDS) == 0
    assert process.stdin is not None
    process.stdin.close()


class Watched:
    """Two processes over which this one watches, impatiently; `meanwhile` is done in another thread, then they are ended."""

    def __init__(self, bundle: OpenBundle, folder: Path) -> None:
        self.file = folder / "said.json"
        self._others = set(children(os.getpid()))
        self._arguments = ["--bundle", str(bundle.folder), "--port", "0", "--announce-file", str(self.file), *TWO]

    @property
    def mine(self) -> set[psutil.Process]:
        return set(children(os.getpid())) - self._others

    @property
    def url(self) -> str:
        return str(json.loads(self.file.read_text())["url"])

    def serve(self, meanwhile: Callable[[], None], *more: str) -> int:
        def do() -> None:
            try:
                until(self.file.exists)
                meanwhile()
            finally:
                os.kill(os.getpid(), signal.SIGTERM)

        with ThreadPoolExecutor(1) as pool:
            doing = pool.submit(do)
            code = Processes(parse([*self._arguments, *more]), [*self._arguments, *more]).serve()
            doing.result()
        return code

    def is_whole_without(self, gone: psutil.Process) -> bool:
        with suppress(EOFError, OSError):
            return gone not in self.mine and len(self.mine) == 2 and counted(self.url, "tidewheel_processes") == 2
        return False


@pytest.fixture
def watched(tiny_bundle: OpenBundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Watched]:
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    monkeypatch.setattr(processes, "SILENT_SECONDS", 4.0)
    monkeypatch.setattr(processes, "STUBBORN_SECONDS", 6.0)
    yield Watched(tiny_bundle, tmp_path)
    for number, handler in before.items():
        signal.signal(number, handler)


def test_one_that_is_not_live_is_ended_and_replaced(watched: Watched, capfd: pytest.CaptureFixture[str]) -> None:
    """One loses the writer of its log; another is stopped, so that it does not even hear that it should end."""

    def disturb() -> None:
        silenced = next(iter(watched.mine))
        for writer in silenced.children():
            writer.kill()
        until(lambda: watched.is_whole_without(silenced))
        stopped = next(iter(watched.mine))
        stopped.suspend()
        until(lambda: watched.is_whole_without(stopped))

    assert watched.serve(disturb, "--log", str(watched.file.parent / "log")) == 0
    said = capfd.readouterr().err
    assert said.count("is not live; it is ended") == 2
    assert "ended (SIGKILL); another takes its place" in said
    assert watched.mine == set()


def test_where_none_answers_any_more_the_server_ends(watched: Watched, capfd: pytest.CaptureFixture[str]) -> None:
    def kill() -> None:
        for child in watched.mine:
            child.kill()
        until(lambda: not watched.mine)

    assert watched.serve(kill) == 1
    assert "ended (SIGKILL); no other answers" in capfd.readouterr().err
