"""How a server waits for its connections, with a clock that moves at every look."""

from __future__ import annotations

import selectors
import socket
from collections.abc import Iterator

import pytest

from tidewheel.ranker import OpenBundle
from tidewheel.serving import Client, start_server
from tidewheel.serving.polling import BusySelector


class CountingSelector(BusySelector):
    """Counts how often it slept; a sleep takes no time here."""

    slept = 0

    def _sleep(self, timeout: float | None) -> list[tuple[selectors.SelectorKey, int]]:
        self.slept += 1
        return super()._sleep(0)


@pytest.fixture
def two_ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


def test_whoever_has_just_spoken_is_waited_for_with_open_eyes_and_then_asleep(
    two_ends: tuple[socket.socket, socket.socket],
) -> None:
    ours, theirs = two_ends
    now = [0.0]

    def clock() -> float:
        now[0] += 1.0
        return now[0]

    with CountingSelector(10.0, clock) as selector:
        selector.register(ours, selectors.EVENT_READ)
        assert (selector.select(5.0), selector.slept) == ([], 1)  # nobody has spoken yet
        theirs.send(b"x")
        assert [key.fileobj for key, _ in selector.select(5.0)] == [ours]
        ours.recv(1)
        before = now[0]
        assert (selector.select(5.0), selector.slept) == ([], 1)
        assert now[0] >= before + 5.0
        assert (selector.select(None), selector.slept) == ([], 2)  # ten seconds are over
        assert now[0] >= before + 10.0


def test_a_wait_of_no_time_never_sleeps(two_ends: tuple[socket.socket, socket.socket]) -> None:
    with CountingSelector(10.0) as selector:
        selector.register(two_ends[0], selectors.EVENT_READ)
        assert (selector.select(0), selector.select(-1.0), selector.slept) == ([], [], 0)


def test_a_server_that_stays_awake_answers_and_leaves_like_any_other(tiny_bundle: OpenBundle) -> None:
    with start_server(tiny_bundle.folder, more=("--busy-poll-seconds", "0.05")) as server:
        client = Client(server.url)
        assert client.get("/v2/health/ready")[0] == 200
        client.close()
    assert server.process.returncode == 0
