"""Ports for servers that do not choose their own."""

from __future__ import annotations

import socket
from contextlib import ExitStack

TRIES = 5  # starts of a server: a port that was free may be taken before it listens


def free_ports(count: int, address: str = "127.0.0.1") -> list[int]:
    """Different ports on which nobody listens now."""
    with ExitStack() as held:
        return [held.enter_context(socket.create_server((address, 0))).getsockname()[1] for _ in range(count)]
