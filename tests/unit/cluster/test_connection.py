"""The real door, against a server on loopback: answers and faults become what `checks` judges."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from kubernetes import client

from tests.e2e.test_doctor_without_cluster import server, silent_server
from tidewheel.cluster.api import Unseen, Why
from tidewheel.cluster.connection import Connection


def connection(host: str, deadline: float = 60.0, clock: Callable[[], float] = lambda: 0.0) -> Connection:
    settings = client.Configuration()
    settings.host, settings.retries = host, False
    return Connection(client.ApiClient(settings), deadline, clock)


def test_an_object_is_given_as_it_is() -> None:
    with server(200, b'{"items": [{"spec": {"a": 1}}]}') as address:
        assert connection(address).ask("/api/v1/pods?limit=5") == {"items": [{"spec": {"a": 1}}]}


@pytest.mark.parametrize(
    ("status", "body", "want"),
    [
        (401, b'{"message": "Unauthorized"}', Unseen(Why.REFUSED, "Unauthorized")),
        (403, b'{"message": "pods is\\nforbidden"}', Unseen(Why.FORBIDDEN, "pods is forbidden")),
        (404, b"", Unseen(Why.ABSENT, "404 Not Found")),
        (503, b"<html>", Unseen(Why.STRANGE, "503 Service Unavailable")),
        (200, b"<html>", Unseen(Why.STRANGE, "its answer is no JSON")),
        (200, b"[]", Unseen(Why.STRANGE, "its answer is no object of an API server")),
    ],
)
def test_a_fault_is_an_answer_too(status: int, body: bytes, want: Unseen) -> None:
    with server(status, body) as address:
        assert connection(address).ask("/version") == want
        assert connection(address).ask("/version", {"kind": "Review"}) == want


def test_nothing_is_asked_when_the_time_is_up() -> None:
    with server(200, b"{}") as address:
        late = connection(address, deadline=10.0, clock=lambda: 10.0).ask("/api/v1/pods?limit=5")

    assert late == Unseen(Why.LATE, "/api/v1/pods was not asked for: the time was up")


def test_a_question_waits_no_longer_than_what_is_left() -> None:
    with silent_server() as address:
        silent = connection(f"http://{address}", deadline=10.0, clock=lambda: 9.95).ask("/version")

    assert isinstance(silent, Unseen)
    assert silent.why is Why.SILENT
    assert "read timeout=0.05" in silent.words
