"""One connection, fed by hand: what is written when, without a socket and without a clock."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from tests.unit.serving.test_server import columns_for
from tests.unit.serving.wire import get, head
from tidewheel.ranker import OpenBundle
from tidewheel.serving.app import ServingApp
from tidewheel.serving.connection import Connection
from tidewheel.serving.gate import Limits
from tidewheel.serving.metrics import PENDING_REQUESTS, VersionCounts
from tidewheel.serving.protocol import encode_request
from tidewheel.serving.versions import Opening, Table, Version


class Transport(asyncio.Transport):
    """Keeps what is written."""

    def __init__(self) -> None:
        super().__init__()
        self.written: list[bytes] = []
        self.is_paused = self.is_closed = False

    def write(self, data: Any) -> None:
        self.written.append(bytes(data))

    def is_closing(self) -> bool:
        return self.is_closed

    def close(self) -> None:
        self.is_closed = True

    def pause_reading(self) -> None:
        self.is_paused = True

    def resume_reading(self) -> None:
        self.is_paused = False

    def get_write_buffer_size(self) -> int:
        return 0

    @property
    def statuses(self) -> list[int]:
        return [int(answer[9:12]) for answer in self.written]


@pytest.fixture(scope="module")
def version(tiny_bundle: OpenBundle) -> Version:
    return Version(tiny_bundle, Opening())


@pytest.fixture(scope="module")
def infer(tiny_bundle: OpenBundle) -> bytes:
    body = encode_request(columns_for(tiny_bundle))
    return head(len(body)) + body


def connected(app: ServingApp, state: Any) -> tuple[Connection, Transport]:
    connection = Connection(SimpleNamespace(loaded_app=app), state, {})
    transport = Transport()
    connection.connection_made(transport)
    return connection, transport


def feed(connection: Connection, data: bytes) -> None:
    connection.get_buffer(-1)[: len(data)] = data
    connection.buffer_updated(len(data))


def played(version: Version, play: Callable[..., Any], limits: Limits | None = None) -> ServingApp:
    """Run `play(app, state)` in a loop."""
    app, state = ServingApp(Table({version.digest: version}), limits), SimpleNamespace(connections=set())

    async def main() -> None:
        await play(app, state)

    asyncio.run(main())
    return app


def test_one_write_an_answer_at_once(version: Version, infer: bytes) -> None:
    async def play(app: ServingApp, state: Any) -> None:
        connection, transport = connected(app, state)
        feed(connection, infer)
        assert transport.statuses == [200]
        feed(connection, infer[:100])
        feed(connection, infer[100:])
        assert transport.statuses == [200], "one is scored between two looks of the loop at its connections"
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert transport.statuses == [200, 200]
        assert (app.gate.waiting, app.gate.bytes) == (0, 0)

    played(version, play)


def test_what_takes_long_to_count_is_counted_when_the_caller_has_had_time_to_take_its_answer(
    version: Version, infer: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted: list[int] = []
    count = VersionCounts.count

    async def play(app: ServingApp, state: Any) -> None:
        connection, transport = connected(app, state)
        later: list[tuple[float, Callable[[], object]]] = []
        monkeypatch.setattr(connection.loop, "call_later", lambda *call: later.append(call))
        monkeypatch.setattr(VersionCounts, "count", lambda counts: (counted.append(counts.requests), count(counts)))
        number = PENDING_REQUESTS + 3
        for _ in range(number):
            feed(connection, infer)
            await asyncio.sleep(0)
        assert transport.statuses == [200] * number
        assert not counted
        ((seconds, call),) = later  # one, however many answers there are until then
        assert seconds > 0, "the process sleeps, and whoever waits for its core runs"
        call()
        assert counted == [number]
        assert not app.metrics.is_due

    played(version, play)


def test_requests_in_one_packet_leave_room_for_other_connections_between_them(version: Version) -> None:
    async def play(app: ServingApp, state: Any) -> None:
        (many, answers), (probe, probed) = connected(app, state), connected(app, state)
        feed(many, get("/metrics") * 50)
        feed(probe, get("/v2/health/ready"))
        assert (answers.statuses, probed.statuses) == ([200], [200])
        assert answers.is_paused, "a caller that sends ahead waits with the rest"
        for _ in range(60):
            await asyncio.sleep(0)
        assert answers.statuses == [200] * 50
        assert not answers.is_paused

    played(version, play)


def test_whoever_takes_no_answers_gets_no_more_of_them_until_it_does(version: Version) -> None:
    async def play(app: ServingApp, state: Any) -> None:
        connection, transport = connected(app, state)
        connection.pause_writing()
        feed(connection, get("/v2"))
        assert (transport.statuses, transport.is_paused) == ([], True)
        connection.resume_writing()
        assert (transport.statuses, transport.is_paused) == ([200], False)

    played(version, play)


def test_a_body_is_welcome_before_it_is_sent_if_there_is_room(version: Version, infer: bytes) -> None:
    headers, _, body = infer.partition(b"\r\n\r\n")
    asking = headers + b"\r\nExpect: 100-Continue\r\n\r\n"

    async def play(app: ServingApp, state: Any) -> None:
        (first, welcome), (second, full) = connected(app, state), connected(app, state)
        feed(first, asking)
        feed(second, asking)
        assert (welcome.statuses, full.statuses) == ([100], [429])
        feed(first, body)
        assert welcome.statuses == [100, 200]

    played(version, play, Limits(max_waiting=1))


def test_callers_that_hang_up_leave_nothing_behind(version: Version, infer: bytes) -> None:
    async def play(app: ServingApp, state: Any) -> None:
        pairs = [connected(app, state) for _ in range(3)]
        feed(pairs[0][0], infer)
        feed(pairs[1][0], infer)  # waits for its turn
        feed(pairs[2][0], infer[:-1])
        assert app.gate.waiting == 2
        for connection, _ in pairs:
            connection.connection_lost(None)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert [transport.statuses for _, transport in pairs] == [[200], [], []]
        assert (app.gate.waiting, app.gate.bytes, state.connections) == (0, 0, set())
        fresh, transport = connected(app, state)
        await asyncio.sleep(0)
        feed(fresh, infer)
        assert transport.statuses == [200], "nobody holds the turn"

    played(version, play)
