"""A server as a child process: started, asked, stopped; it cannot outlive whoever started it."""

from __future__ import annotations

import json
import os
import selectors
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

import numpy as np

from tidewheel.errors import ContractError, RetryableError
from tidewheel.serving.client import Answer, Client

START_SECONDS = 30.0
STOP_SECONDS = 20.0  # to answer what is in flight and write the log; a machine may be busy


class ServerProcess:
    """One bundle served by a child process. Any number of threads may ask; each keeps its own connection."""

    def __init__(self, process: subprocess.Popen[bytes], log: IO[bytes], url: str, bundle: str) -> None:
        self.url = url
        self.bundle = bundle
        self.process = process
        self._log = log
        self._local = threading.local()

    def infer(self, features: Mapping[str, np.ndarray], parameters: Mapping[str, Any] | None = None) -> Answer:
        """See `Client.infer`."""
        client: Client | None = getattr(self._local, "client", None)
        if client is None:
            client = self._local.client = Client(self.url)
        return client.infer(features, parameters)

    def is_alive(self) -> bool:
        return self.process.poll() is None

    def stop(self) -> None:
        """End the process, gently and then not. Idempotent."""
        if self.process.stdin is not None:
            self.process.stdin.close()
        if self.is_alive():
            self.process.terminate()
            try:
                self.process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self.process.kill()
        self.process.wait()
        if self.process.stdout is not None:
            self.process.stdout.close()
        self._log.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()


def start_server(
    bundle: Path | None,
    threads: int = 1,
    start_seconds: float = START_SECONDS,
    log_folder: Path | None = None,
    log_seconds: float = 60.0,
    more: Sequence[str] = (),
) -> ServerProcess:
    """Start a server of the bundle in `bundle` on a free port and wait until it is ready.

    With a `log_folder` it writes the hybrid log there, a segment at least every `log_seconds`. `more`: further options of
    `python -m tidewheel.serving`; with `--follow` among them, `bundle` may be None.

    Raises:
        ContractError: the server refused the bundle; the message is the server's.
        RetryableError: it ended otherwise, or was not ready in time.
    """
    command = [sys.executable, "-m", "tidewheel.serving", "--port", "0", "--threads", str(threads), "--exit-on-stdin-eof"]
    command += ["--bundle", str(bundle)] if bundle is not None else []
    command += more
    command += ["--log", str(log_folder), "--log-seconds", str(log_seconds)] if log_folder is not None else []
    environment = os.environ | {"OMP_NUM_THREADS": str(threads), "OPENBLAS_NUM_THREADS": str(threads)}
    log = tempfile.TemporaryFile()  # noqa: SIM115  lives as long as the server
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, env=environment, bufsize=0)
    server = ServerProcess(process, log, "", "")
    try:
        document = json.loads(_first_line(process, start_seconds))
    except ValueError as error:
        server.process.wait() if not server.is_alive() else server.process.kill()
        log.seek(0)
        said = log.read().decode("utf-8", "replace").strip().rsplit("\n", 1)[-1].removeprefix("tidewheel serving: ")
        code = process.wait()
        server.stop()
        if code == ContractError.exit_code:
            raise ContractError(said) from error
        raise RetryableError(
            f"server of {bundle.name[:12] if bundle else 'a store'}: not ready after start (exit code {code}): {said or error}"
        ) from error
    except BaseException:
        server.stop()
        raise
    server.url, server.bundle = document["url"], document["bundle"]
    return server


def _first_line(process: subprocess.Popen[bytes], seconds: float) -> str:
    """The line in which the server announces itself; what there is of it when it ends or the time is up."""
    assert process.stdout is not None
    line = b""
    deadline = time.monotonic() + seconds
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        while not line.endswith(b"\n") and selector.select(max(deadline - time.monotonic(), 0.0)):
            part = os.read(process.stdout.fileno(), 4096)
            if not part:
                process.wait(STOP_SECONDS)
                break
            line += part
    return line.decode()
