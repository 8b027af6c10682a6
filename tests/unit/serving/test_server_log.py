"""A real server process that writes the hybrid log."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow.parquet as pq
import pytest

from tests.unit.serving.test_server import columns_for
from tidewheel.errors import ContractError, RetryableError
from tidewheel.ranker import OpenBundle
from tidewheel.serving import Client, ServerProcess, start_server
from tidewheel.serving.gate import Limits


@pytest.fixture(scope="module")
def logging(tiny_bundle: OpenBundle, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[ServerProcess, Path]]:
    root = tmp_path_factory.mktemp("log")
    with start_server(tiny_bundle.folder, log_folder=root) as server:
        yield server, root


@pytest.fixture
def client(logging: tuple[ServerProcess, Path]) -> Iterator[Client]:
    client = Client(logging[0].url)
    yield client
    client.close()


def metric(client: Client, name: str) -> float:
    lines = client.get("/metrics")[1].decode().splitlines()
    return next(float(line.split()[-1]) for line in lines if line.startswith(name))


def click(parameters: Any, **changed: Any) -> dict[str, Any]:
    one = {"item_id": 1, "event": "click", "logging_rate": 1.0, "event_time": parameters["served_time"]}
    return dict(parameters) | one | changed


def test_what_is_taken_and_what_is_refused_is_in_the_metrics(client: Client, tiny_bundle: OpenBundle) -> None:
    names = ('tidewheel_log_offered_rows_total{part="backend"}', 'tidewheel_log_offered_rows_total{part="frontend"}')
    names += ("tidewheel_refused_events_total",)
    before = [metric(client, name) for name in names]
    answer = client.infer(columns_for(tiny_bundle), {"request_id": "r1"})
    said = client.post_events([click(answer.parameters), click(answer.parameters, logging_rate=0), click(answer.parameters)])

    assert answer.parameters["request_id"] == "r1"
    assert (said["accepted"], said["refused"]) == (2, 1)
    assert said["first_refusal"].startswith("events[1]: logging_rate: ")
    assert [metric(client, name) - old for name, old in zip(names, before, strict=True)] == [8, 2, 1]
    assert metric(client, 'tidewheel_log_dropped_rows_total{part="backend"}') == 0


def test_a_request_that_the_log_cannot_hold_is_refused_and_not_logged(client: Client, tiny_bundle: OpenBundle) -> None:
    name = 'tidewheel_log_offered_rows_total{part="backend"}'
    before = metric(client, name)
    with pytest.raises(ContractError, match=r"400 parameters\.propensity: missing"):
        client.infer(columns_for(tiny_bundle), {"is_randomized": True})
    assert metric(client, name) == before


@pytest.mark.parametrize(
    ("method", "body", "status", "text"),
    [
        ("GET", None, 405, "expected POST"),
        ("POST", b"{}", 400, "expected a list"),
        ("POST", b"[", 400, "expected a JSON list"),
        ("POST", b" " * (Limits.max_event_bytes + 1), 413, "larger than"),
    ],
)
def test_events_in_another_form_are_refused(client: Client, method: str, body: bytes | None, status: int, text: str) -> None:
    found, answer, _ = client._exchange(method, "/v2/events", body)
    client.close()

    assert (found, text in answer.decode()) == (status, True)


def test_a_server_without_a_log_takes_no_events_and_leaves_parameters_alone(tiny_bundle: OpenBundle) -> None:
    with start_server(tiny_bundle.folder) as server:
        client = Client(server.url)
        assert client.infer(columns_for(tiny_bundle), {"request_id": ""}).parameters == {}
        with pytest.raises(ContractError, match="404 /v2/events: this server has no log; start it with --log DIR"):
            client.post_events([])
        client.close()


def test_a_killed_server_leaves_no_half_file_and_loses_only_what_was_in_no_segment(
    tiny_bundle: OpenBundle, tmp_path: Path
) -> None:
    server = start_server(tiny_bundle.folder, log_folder=tmp_path, log_seconds=0)
    client = Client(server.url)
    sent = 0
    while metric(client, 'tidewheel_log_segments_total{part="backend"}') < 2:
        client.infer(columns_for(tiny_bundle), {"request_id": f"r{sent}"})
        sent += 1
    written = metric(client, 'tidewheel_log_written_rows_total{part="backend"}')
    os.kill(server.process.pid, signal.SIGKILL)
    server.stop()
    client.close()

    tables = [pq.read_table(path, partitioning=None) for path in sorted(tmp_path.glob("backend/date=*/part-*.parquet"))]
    found = [name for table in tables for name in table["request_id"].to_pylist()]
    assert len(found) >= written > 0
    assert found == list(np.repeat([f"r{at}" for at in range(sent)], 8)[: len(found)])
    assert list(tmp_path.rglob("_SUCCESS")) == []


def test_without_its_writer_a_server_answers_counts_what_it_drops_and_is_not_live(
    tiny_bundle: OpenBundle, tmp_path: Path
) -> None:
    with start_server(tiny_bundle.folder, log_folder=tmp_path) as server:
        client = Client(server.url)
        client.infer(columns_for(tiny_bundle), {})
        (writer,) = psutil.Process(server.process.pid).children()
        writer.kill()
        while client.get("/v2/health/live")[0] == 200:
            continue
        before = metric(client, 'tidewheel_log_dropped_rows_total{part="backend"}')
        assert client.infer(columns_for(tiny_bundle), {}).bundle == tiny_bundle.digest
        assert metric(client, 'tidewheel_log_dropped_rows_total{part="backend"}') == before + 8
        assert client.get("/v2/health/ready")[0] == 503
        client.close()


def test_a_log_that_cannot_be_written_is_said_at_the_start(tiny_bundle: OpenBundle, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(RetryableError, match=r"log .*file: cannot be written \(.*\); choose another --log"):
        start_server(tiny_bundle.folder, log_folder=tmp_path / "file")
