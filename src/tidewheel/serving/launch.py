"""How a server process begins: where it listens, how it says so, and whom it may not outlive."""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import threading
from pathlib import Path

from tidewheel.errors import TidewheelError

BACKLOG = 512


def bind(host: str, port: int) -> socket.socket:
    """A socket that does not listen yet: who connects is refused.

    Raises:
        TidewheelError: the address is taken or none of this machine's.
    """
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    # asyncio does so only for sockets made with an explicit protocol; without, every answer waits 40 ms for an ACK.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise TidewheelError(f"cannot listen on {host}:{port}: {error.strerror}") from error
    return listener


def announce(listener: socket.socket, bundle: str, path: Path | None) -> None:
    """Say that connections are taken: to `path`, or in a line on stdout."""
    host, port = listener.getsockname()[:2]
    text = json.dumps({"url": f"http://{host}:{port}", "pid": os.getpid(), "bundle": bundle})
    if path is None:
        print(text, flush=True)
        return
    partial = path.with_name(path.name + ".partial")
    partial.write_text(text + "\n", encoding="utf-8")
    partial.replace(path)


def end_with_parent() -> None:
    """The other end of stdin is held by the process that started this one; its end, however violent, closes it."""

    def wait() -> None:
        while os.read(sys.stdin.fileno(), 4096):
            continue
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=wait, daemon=True).start()
