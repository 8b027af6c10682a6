"""A real MLflow server, in a process of its own."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.servers import TRIES, Server, free_ports

ADDRESS = "127.0.0.1"
READY = "Application startup complete"
QUIET = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true", "GIT_PYTHON_REFRESH": "quiet"}


@contextmanager
def mlflow_server(address: str = ADDRESS) -> Iterator[str]:
    """Where it is, while it runs; what it keeps goes with it."""
    with tempfile.TemporaryDirectory(prefix="mlflow-") as folder:
        server, place = _started(Path(folder), address)
        try:
            yield place
        finally:
            server.end()


def _started(folder: Path, address: str) -> tuple[Server, str]:
    """A server that is ready. It ends at once where its port was taken meanwhile."""
    for _ in range(TRIES):
        (port,) = free_ports(1, address)
        listening = ["--host", address, "--port", str(port), "--allowed-hosts", f"{address}:{port}"]
        options = [*listening, "--workers", "1", "--uvicorn-opts", "--no-access-log"]
        places = ["--backend-store-uri", f"sqlite:///{folder / 'mlflow.db'}", "--artifacts-destination", str(folder)]
        command = [sys.executable, "-m", "mlflow", "server", *places, *options]
        server = Server(command, {**os.environ, **QUIET}, READY, folder / "log", on_stderr=True)
        if server.is_ready:
            return server, f"http://{address}:{port}"
    raise AssertionError(f"the MLflow server ended {TRIES} times")
