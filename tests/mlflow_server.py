"""A real MLflow server, in a process of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.ports import TRIES, free_ports

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
            os.killpg(server.pid, signal.SIGTERM)  # it and its worker
            server.wait(60)
            assert server.stderr is not None
            server.stderr.close()


def _started(folder: Path) -> tuple[subprocess.Popen[str], str]:
    """A server that is ready. It ends at once where its port was taken meanwhile."""
    said: list[str] = []
    for _ in range(TRIES):
        (port,) = free_ports(1, ADDRESS)
        options = ["--host", ADDRESS, "--port", str(port), "--workers", "1", "--uvicorn-opts", "--no-access-log"]
        places = ["--backend-store-uri", f"sqlite:///{folder / 'mlflow.db'}", "--artifacts-destination", str(folder)]
        server = subprocess.Popen(
            [sys.executable, "-m", "mlflow", "server", *places, *options],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, **QUIET},
            cwd=folder,
            start_new_session=True,
        )
        assert server.stderr is not None
        for line in server.stderr:
            said.append(line)
            if READY in line:
                return server, f"http://{ADDRESS}:{port}"
        server.wait(60)
        server.stderr.close()
    raise AssertionError(f"the MLflow server ended {TRIES} times: {''.join(said)[-1000:]}")
