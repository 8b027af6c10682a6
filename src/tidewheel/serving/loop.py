"""The event loop of a server: it looks after its connections, takes over new tables, and leaves without dropping a request."""

from __future__ import annotations

import asyncio
import socket
import time
from concurrent.futures import Future
from types import FrameType
from typing import Any

import uvicorn

from tidewheel.serving.app import ServingApp
from tidewheel.serving.connection import Connection, check_all
from tidewheel.serving.following import Following
from tidewheel.serving.polling import new_loop
from tidewheel.serving.versions import Table

GRACE_SECONDS = 5  # for requests in flight when the listener is closed
INSTALL_SECONDS = 10.0  # the longest request is far shorter
TICKS_A_SECOND = 10  # uvicorn's


def serve(
    app: ServingApp,
    listener: socket.socket,
    drain_seconds: float,
    following: Following | None,
    poll_seconds: float,
    busy_seconds: float = 0.0,
) -> None:
    """Answer on `listener` until a signal comes; returns when every request in flight is answered."""
    connection: Any = Connection
    application: Any = app  # no ASGI: uvicorn hands it to the connections and does not call it
    config = uvicorn.Config(
        application,
        http=connection,
        interface="asgi3",
        ws="none",
        lifespan="off",
        access_log=False,
        log_level="error",
        proxy_headers=False,
        server_header=False,
        timeout_graceful_shutdown=GRACE_SECONDS,
    )
    try:
        server = Server(config, app, drain_seconds, following, poll_seconds)
        with asyncio.Runner(loop_factory=lambda: new_loop(busy_seconds)) as runner:
            runner.run(server.serve(sockets=[listener]))
    finally:
        if following is not None:
            following.stop()


class Server(uvicorn.Server):
    """uvicorn's server, and what it does a few times a second."""

    def __init__(
        self,
        config: uvicorn.Config,
        app: ServingApp,
        drain_seconds: float,
        following: Following | None,
        poll_seconds: float,
    ) -> None:
        super().__init__(config)
        self._app = app
        self._drain_seconds = drain_seconds
        self._following = following
        self._poll_seconds = poll_seconds
        self._drained_at = float("inf")

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self._following is not None:
            loop = asyncio.get_running_loop()
            self._following.start(lambda table: self._install(table, loop), self._app.metrics, self._poll_seconds)

    async def on_tick(self, counter: int) -> bool:
        connections: Any = self.server_state.connections
        check_all(connections, self._app.gate, asyncio.get_running_loop().time())
        self._app.hand_over()
        if counter % TICKS_A_SECOND == 0:
            self._app.tell()
        if time.monotonic() >= self._drained_at:
            self.should_exit = True
        should_exit = await super().on_tick(counter)
        self._app.date = b"".join(b"%s: %s\r\n" % header for header in self.server_state.default_headers)
        return should_exit

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """The first signal: not ready any more, but answering for `drain_seconds`. The second: now."""
        if self._app.is_draining or not self._drain_seconds:
            super().handle_exit(sig, frame)
        else:
            self._drained_at = time.monotonic() + self._drain_seconds
        self._app.is_draining = True

    def _install(self, table: Table, loop: asyncio.AbstractEventLoop) -> None:
        """Called by another thread; returns when no request uses the table before.

        Raises:
            TimeoutError: the loop does not turn any more.
        """
        done: Future[None] = Future()

        def install() -> None:
            if not done.set_running_or_notify_cancel():
                return
            self._app.install(table)
            done.set_result(None)

        try:
            loop.call_soon_threadsafe(install)
        except RuntimeError as error:  # closed
            raise TimeoutError("the server has ended") from error
        try:
            done.result(INSTALL_SECONDS)
        except TimeoutError:
            if done.cancel():
                raise
            done.result()
