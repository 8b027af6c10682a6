"""Servers of others in processes of their own, which end with the test however it ends, on ports that are free."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

TRIES = 5  # starts of a server: a port that was free may be taken before it listens
GUARD = """
import os, signal, subprocess, sys, threading
server = subprocess.Popen(sys.argv[1:], stdin=subprocess.DEVNULL, start_new_session=True)
def end():
    sys.stdin.read()
    os.killpg(server.pid, signal.SIGTERM)
threading.Thread(target=end, daemon=True).start()
sys.exit(server.wait())
"""


def free_ports(count: int, address: str = "127.0.0.1") -> list[int]:
    """Different ports on which nobody listens now."""
    with ExitStack() as held:
        return [held.enter_context(socket.create_server((address, 0))).getsockname()[1] for _ in range(count)]


class Server:
    """A command that is ready once it printed `ready`; `output` is where it prints that, its other stream goes to `log`."""

    def __init__(
        self, command: Sequence[str | Path], variables: Mapping[str, str], ready: str, log: Path, *, on_stderr: bool = False
    ) -> None:
        with log.open("w", encoding="utf-8") as rest:
            streams = {"stdout": rest, "stderr": subprocess.PIPE} if on_stderr else {"stdout": subprocess.PIPE, "stderr": rest}
            self._process = subprocess.Popen(
                [sys.executable, "-c", GUARD, *map(str, command)],
                stdin=subprocess.PIPE,
                text=True,
                env=dict(variables),
                cwd=log.parent,
                start_new_session=True,  # what ends the tests at once leaves this, which then reads the end of its input
                **streams,
            )
        said = self._process.stderr if on_stderr else self._process.stdout
        assert said is not None
        self._said = said
        self.is_ready = any(ready in line for line in said)
        if not self.is_ready:
            self.end()

    def end(self) -> None:
        """Idempotent."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(60)
        self._said.close()
