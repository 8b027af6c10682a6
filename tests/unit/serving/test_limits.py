"""A real server and callers that want too much, are too slow, or leave: refused with a reason, and nobody else notices."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest

from tests.unit.serving.test_server import columns_for
from tests.unit.serving.wire import Wire, get, head, metric
from tidewheel.errors import ContractError, RetryableError
from tidewheel.ranker import OpenBundle
from tidewheel.serving import Client, ServerProcess, start_server
from tidewheel.serving.protocol import encode_request

MAX_WAITING = 3
OPTIONS = ("--max-waiting", str(MAX_WAITING), "--max-candidates", "50", "--max-body-bytes", "20000")
PATIENT = ("--body-seconds", "60", "--header-seconds", "60")
HASTY = ("--body-seconds", "0.2", "--header-seconds", "0.2", "--idle-seconds", "1")


@pytest.fixture(scope="module")
def server(tiny_bundle: OpenBundle) -> Iterator[ServerProcess]:
    """Takes its time with slow callers."""
    with start_server(tiny_bundle.folder, more=(*OPTIONS, *PATIENT)) as server:
        yield server


@pytest.fixture(scope="module")
def hasty(tiny_bundle: OpenBundle) -> Iterator[ServerProcess]:
    with start_server(tiny_bundle.folder, more=(*OPTIONS, *HASTY)) as server:
        yield server


@pytest.fixture
def body(tiny_bundle: OpenBundle) -> bytes:
    return encode_request(columns_for(tiny_bundle))


def metrics(server: ServerProcess) -> bytes:
    with Wire(server.url) as wire:
        return wire.send(get("/metrics")).answer()[2]


# --- how much ---


def test_more_candidates_than_allowed_are_refused_with_both_numbers(server: ServerProcess, tiny_bundle: OpenBundle) -> None:
    client = Client(server.url)
    with pytest.raises(ContractError, match="400 inputs: 51 candidates; expected 1 to 50"):
        client.infer(columns_for(tiny_bundle, 51))
    assert client.infer(columns_for(tiny_bundle, 50)).bundle == tiny_bundle.digest
    client.close()


def test_a_body_beyond_the_limit_is_refused_and_the_connection_goes_on(server: ServerProcess, body: bytes) -> None:
    with Wire(server.url) as wire:
        assert wire.send(head(20_001) + b" " * 20_001).error() == (413, "request is larger than 20000 bytes; send less at once")
        assert wire.send(head(len(body)) + body).answer()[0] == 200


def test_a_body_without_end_is_cut_off(server: ServerProcess) -> None:
    chunk = b"4000\r\n" + b" " * 0x4000 + b"\r\n"
    with Wire(server.url) as wire:
        wire.send(head(0).replace(b"Content-Length: 0", b"Transfer-Encoding: chunked"))
        with pytest.raises((BrokenPipeError, ConnectionResetError)):
            wire.send(chunk * 2000)
    assert metric(metrics(server), "tidewheel_closed_connections_total", "endless") == 1


def test_requests_beyond_those_that_may_wait_get_429_and_probes_never_do(server: ServerProcess, body: bytes) -> None:
    waiting = [Wire(server.url).send(head(len(body)) + body[:9]) for _ in range(MAX_WAITING)]
    with Wire(server.url) as wire:
        while metric(metrics(server), "tidewheel_waiting_requests") < MAX_WAITING:
            continue
        status, headers, said = wire.send(head(len(body)) + body).answer()
        assert (status, headers["retry-after"], b"3 requests wait already" in said) == (429, "1", True)
        assert [wire.send(get(f"/v2/health/{probe}")).answer()[0] for probe in ("live", "ready")] == [200, 200]
        assert wire.send(get("/v2/models/ranker")).answer()[0] == 200
        with pytest.raises(RetryableError, match="429 busy"):
            Client(server.url).infer({})

        assert [one.send(body[9:]).answer()[0] for one in waiting] == [200] * MAX_WAITING
        assert wire.send(head(len(body)) + body).answer()[0] == 200, "it takes requests again, over the same connection"
    for one in waiting:
        one.__exit__(None, None, None)
    assert metric(metrics(server), "tidewheel_shed_requests_total", "requests") == 2
    assert metric(metrics(server), "tidewheel_requests_total", 'status="429"') == 2
    assert metric(metrics(server), "tidewheel_waiting_bytes") == 0


def test_bodies_beyond_the_bytes_that_may_wait_get_429(tiny_bundle: OpenBundle, body: bytes) -> None:
    with start_server(tiny_bundle.folder, more=(*PATIENT, "--max-waiting-bytes", "100000")) as server:
        with Wire(server.url) as large, Wire(server.url) as other:
            large.send(head(99_999) + b" " * 99_000)
            while metric(metrics(server), "tidewheel_waiting_bytes") < 99_000:
                continue
            status, headers, _ = other.send(head(len(body)) + body).answer()
            assert (status, headers["retry-after"], headers["connection"]) == (429, "1", "close")
        while metric(metrics(server), "tidewheel_waiting_bytes"):
            continue
        with Wire(server.url) as wire:
            assert wire.send(head(len(body)) + body).answer()[0] == 200


# --- how long ---


def test_a_body_that_does_not_come_whole_is_told_so_and_its_connection_closes(hasty: ServerProcess, body: bytes) -> None:
    with Wire(hasty.url) as wire:
        wire.send(head(len(body)) + body[:50])
        assert wire.error() == (408, "the request was not whole after 0.2 seconds")
        assert wire.is_closed()
    assert metric(metrics(hasty), "tidewheel_requests_total", 'status="408"') == 1


def test_headers_that_do_not_come_whole_are_told_so_and_their_connection_closes(hasty: ServerProcess) -> None:
    with Wire(hasty.url) as wire:
        assert wire.send(b"GET /v2 HTTP/1.1\r\nHost").error() == (408, "the headers were not whole after 0.2 seconds")
        assert wire.is_closed()


def test_a_connection_without_a_request_is_closed(hasty: ServerProcess) -> None:
    with Wire(hasty.url) as silent, Wire(hasty.url) as once:
        assert once.send(get("/v2")).answer()[0] == 200
        assert silent.is_closed()
        assert once.is_closed()


def test_a_refused_body_that_goes_on_for_ever_is_cut_off(hasty: ServerProcess) -> None:
    with Wire(hasty.url) as wire:
        assert wire.send(head(40_000) + b" " * 21_000).error()[0] == 413
        assert wire.is_closed()


# --- who leaves ---


def test_a_caller_that_closed_its_half_gets_its_answer(server: ServerProcess, body: bytes, tiny_bundle: OpenBundle) -> None:
    with Wire(server.url) as wire:
        status, headers, _ = wire.send(head(len(body)) + body).close_half().answer()
        assert (status, headers["tidewheel-bundle"]) == (200, tiny_bundle.digest)
        assert wire.is_closed()


@pytest.mark.parametrize("sent", [b"POST /v2 HT", head(100), head(100) + b"{"])
def test_half_a_request_is_refused_when_no_more_can_come(server: ServerProcess, sent: bytes) -> None:
    with Wire(server.url) as wire:
        assert wire.send(sent).close_half().error() == (400, "the caller closed its side before the request was whole")
        assert wire.is_closed()


def test_requests_in_one_packet_are_answered_in_order(server: ServerProcess, body: bytes) -> None:
    with Wire(server.url) as wire:
        wire.send((head(len(body)) + body) * 2 + get("/v2/nothing"))
        assert [wire.answer()[0] for _ in range(3)] == [200, 200, 404]


@pytest.mark.parametrize(
    ("sent", "want"),
    [
        (b"\x16\x03\x01\x02\x00", 400),
        (b"GET /v2 HTTP/1.1\r\n: nothing\r\n\r\n", 400),
        (b"CONNECT here:80 HTTP/1.1\r\n\r\n", 400),
        (b"POST /v2 HTTP/1.1\r\nContent-Length: -1\r\n\r\n", 400),
        (b"GET /v2 HTTP/1.1\r\n" + b"a: b\r\n" * 201 + b"\r\n", 431),
        (b"GET /v2 HTTP/1.1\r\nlong: " + b"a" * 400_000, 431),
    ],
)
def test_what_is_no_request_is_refused_with_a_reason(server: ServerProcess, sent: bytes, want: int) -> None:
    with Wire(server.url) as wire:
        status, reason = wire.send(sent).error()
        assert (status, len(reason) > 10) == (want, True)


def test_a_wish_for_another_protocol_is_answered_in_this_one_and_a_body_with_it_is_refused(
    server: ServerProcess, body: bytes
) -> None:
    wish = "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMA\r\n"
    with Wire(server.url) as wire:
        status, headers, _ = wire.send(get("/v2").replace(b"Host: here\r\n", wish.encode())).answer()
        assert (status, headers["connection"]) == (200, "close")
    with Wire(server.url) as wire:
        status, reason = wire.send(head(len(body), more=wish) + body).error()
        assert (status, "without the header Upgrade" in reason) == (400, True)
        assert wire.is_closed()


# --- leaving without dropping anything ---


def test_a_draining_server_is_not_ready_but_answers_until_its_time_is_over(tiny_bundle: OpenBundle, body: bytes) -> None:
    server = start_server(tiny_bundle.folder, more=("--drain-seconds", "600"))
    with Wire(server.url) as kept, Wire(server.url) as begun:
        assert kept.send(get("/v2/health/ready")).answer()[0] == 200
        begun.send(head(len(body)) + body[:9])
        os.kill(server.process.pid, signal.SIGTERM)
        status, said = 200, b""
        while status == 200:
            with Wire(server.url) as probe:
                status, _, said = probe.send(get("/v2/health/ready")).answer()
        assert (status, said) == (503, b'{"ready": false}')
        with Wire(server.url) as probe:
            assert probe.send(get("/v2/health/live")).answer()[0] == 200
        with Wire(server.url) as probe:
            assert probe.send(get("/v2/models/ranker/ready")).answer()[0] == 503
        for wire, data in ((kept, head(len(body)) + body), (begun, body[9:])):
            status, headers, _ = wire.send(data).answer()
            assert (status, headers["connection"]) == (200, "close")
    os.kill(server.process.pid, signal.SIGTERM)
    assert server.process.wait(30) == 0, "the second signal ends it at once"
    server.stop()
