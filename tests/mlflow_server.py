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
def mlflow_server() -> Iterator[str]:
    """Its address, while it runs; what it keeps goes with it."""
    with tempfile.TemporaryDirectory(prefix="mlflow-") as folder:
        server, address = _started(Path(folder))
        try:
            yield address
        finally:
            server.end()


def _started(folder: Path) -> tuple[Server, str]:
    """A server that is ready. It ends at once where its port was taken meanwhile."""
    for _ in range(TRIES):
        (port,) = free_ports(1, ADDRESS)
        options = ["--host", ADDRESS, "--port", str(port), "--workers", "1", "--uvicorn-opts", "--no-access-log"]
        places = ["--backend-store-uri", f"sqlite:///{folder / 'mlflow.db'}", "--artifacts-destination", str(folder)]
        command = [sys.executable, "-m", "mlflow", "server", *places, *options]
        server = Server(command, {**os.environ, **QUIET}, READY, folder / "log", on_stderr=True)
        if server.is_ready:
            return server, f"http://{ADDRESS}:{port}"
    raise AssertionError(f"the MLflow server ended {TRIES} times")
