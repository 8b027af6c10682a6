"""The servers that bench/serving.py compares: started, checked to give our scores, stopped."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np

from bench.load import HOST, Connection
from bench.serving_batches import FORMS, Columns
from bench.work import ROOT
from tidewheel.ranker import OpenBundle, Scorer
from tidewheel.serving import start_server

START_SECONDS, STOP_SECONDS = 180.0, 20.0
TOLERANCE = 1e-5
PEERS = ("mlflow", "litserve", "ray")
INSTALL = "uv venv DIR && uv pip install --python DIR -r bench/serving_peers.txt"


@contextmanager
def serving(name: str, workers: int, bundle: OpenBundle, peers: Path | None, logs: Path) -> Iterator[int]:
    """The port of a running server of so many workers; what a peer prints is in `<name>.log` below `logs`."""
    if name not in PEERS:
        with start_server(bundle.folder, more=("--processes", str(workers))) as server:
            yield urlsplit(server.url).port or 0
        return
    python = (peers or Path()) / "bin" / "python"
    if peers is None or not python.exists():
        sys.exit(f"--peers {peers}: no environment of the peers; make it: {INSTALL}")
    port = free_port()
    command = [str(python.absolute()), "-m", "bench.peer_serving", name, "--bundle", str(bundle.folder), "--port", str(port)]
    command += ["--workers", str(workers)]
    environment = os.environ | {"PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}", "OMP_NUM_THREADS": "1"}
    environment |= {
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_AUTH_MODE": "disabled",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "DO_NOT_TRACK": "1",
    }
    environment["PATH"] = f"{python.absolute().parent}{os.pathsep}{environment['PATH']}"
    with (logs / f"{name}.log").open("a") as log:
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=log, stderr=log, cwd=ROOT, env=environment, start_new_session=True
        )
        try:
            yield port
        finally:
            assert process.stdin is not None
            process.stdin.close()
            try:
                process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def free_port() -> int:
    with socket.create_server((HOST, 0)) as listener:
        return int(listener.getsockname()[1])


def check(name: str, port: int, bundle: OpenBundle, batches: list[Columns]) -> float:
    """Wait until the server answers; the largest distance of its scores from ours.

    Raises:
        SystemExit: it never answers, or with other scores.
    """
    form, scorer = FORMS[name], Scorer(bundle)
    wait_until_it_scores(name, port, form.request(batches[0]))
    connection, distance = Connection(port), 0.0
    for columns in batches:
        status, answer = connection.ask(form.request(columns))
        want, found = scorer.score(columns), form.scores(answer) if status == 200 else {}
        if set(found) != set(want):
            sys.exit(f"{name}: status {status}, {answer[:300]!r}; expected scores of {', '.join(want)}")
        distance = max(distance, *(float(np.abs(found[label] - want[label]).max()) for label in want))
    connection.close()
    if not distance <= TOLERANCE:
        sys.exit(f"{name}: scores are up to {distance} from ours; expected at most {TOLERANCE}")
    return distance


def wait_until_it_scores(name: str, port: int, request: bytes) -> None:
    deadline, said = time.monotonic() + START_SECONDS, "nothing"
    while time.monotonic() < deadline:
        try:
            connection = Connection(port)
            status, answer = connection.ask(request)
            connection.close()
            if status == 200:
                return
            said = f"{status} {answer[:300]!r}"
            if status in (400, 422):
                break
        except OSError as error:
            said = str(error)
        time.sleep(0.25)
    sys.exit(f"{name}: does not score, {START_SECONDS:.0f} s at most after its start; it said {said}")
