"""A real server that follows a store: versions by header, by user and by address; swapped while callers ask."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.unit.serving.conftest import RECIPE, Assign
from tests.unit.serving.test_server import columns_for
from tests.unit.serving.wire import INFER, Wire, get, head, metric
from tidewheel.contracts.assignment import Assignment
from tidewheel.errors import RetryableError
from tidewheel.ranker import OpenBundle
from tidewheel.serving import Client, ServerProcess, start_server
from tidewheel.serving.protocol import encode_request
from tidewheel.store import Store

Shelf = tuple[Store, tuple[str, str, str]]


@pytest.fixture(scope="module")
def assignment(shelf: Shelf, assign: Assign) -> Assignment:
    store, (first, second, _) = shelf
    return assign(store, 1, {first: 0.3, second: 0.7})


def follow(store: Store, *more: str) -> tuple[str, ...]:
    return ("--follow", store.url, RECIPE, "--poll-seconds", "0.02", *more)


@pytest.fixture(scope="module")
def server(shelf: Shelf, assignment: Assignment) -> Iterator[ServerProcess]:
    with start_server(None, more=follow(shelf[0], "--model-name", "feed")) as server:
        yield server


@pytest.fixture
def body(tiny_bundle: OpenBundle) -> bytes:
    return encode_request(columns_for(tiny_bundle), {"user_id": 5})


def test_a_user_is_served_by_the_bundle_of_its_place(
    server: ServerProcess, assignment: Assignment, tiny_bundle: OpenBundle
) -> None:
    client = Client(server.url)
    columns = columns_for(tiny_bundle)
    by_parameter = [client.infer(columns, {"user_id": user}).bundle for user in range(100)]
    by_tensor = [client.infer(columns | {"user_id": columns["user_id"][:1] * 0 + user}).bundle for user in range(100)]
    assert by_parameter == [assignment.bundle_of(user) for user in range(100)]
    assert by_tensor == by_parameter
    assert len(set(by_parameter)) == 2
    counted = client.get("/metrics")[1]
    for share in assignment.shares:
        want = 2 * by_parameter.count(share.bundle)
        assert metric(counted, "tidewheel_bundle_requests_total", share.bundle) == want
        assert metric(counted, "tidewheel_score_count", share.bundle, 'label="click"') == 8 * want
        assert metric(counted, "tidewheel_bundle_share", share.bundle) == share.share
    assert metric(counted, "tidewheel_assignment_number") == 1
    client.close()


def test_a_request_may_name_its_version_in_a_header_or_in_its_address(server: ServerProcess, shelf: Shelf, body: bytes) -> None:
    first, second, third = shelf[1]
    with Wire(server.url) as wire:
        for digest in (first, second):
            for asked in (digest, digest[:8]):
                status, headers, said = wire.send(head(len(body), more=f"tidewheel-bundle: {asked}\r\n") + body).answer()
                assert (status, headers["tidewheel-bundle"], json.loads(said)["model_version"]) == (200, digest, digest)
                path = f"/v2/models/ranker/versions/{asked}"
                assert wire.send(head(len(body), f"{path}/infer") + body).answer()[1]["tidewheel-bundle"] == digest
                assert json.loads(wire.send(get(f"{path}/ready")).answer()[2]) == {"name": "ranker", "ready": True}
                assert wire.send(get(path)).answer()[1]["tidewheel-bundle"] == digest

        status, reason = wire.send(head(len(body), more=f"tidewheel-bundle: {third}\r\n") + body).error()
        assert status == 404
        assert f"is not resident; resident are {second[:12]}, {first[:12]}" in reason
        assert wire.send(head(len(body), more="tidewheel-bundle: ../x\r\n") + body).error()[0] == 400
        assert wire.send(get(f"/v2/models/ranker/versions/{third}/ready")).error()[0] == 404


def test_the_models_address_lists_every_version_and_the_name_of_the_service_is_one_of_its_own(
    server: ServerProcess, shelf: Shelf, body: bytes
) -> None:
    first, second, _ = shelf[1]
    with Wire(server.url) as wire:
        assert json.loads(wire.send(get("/v2/models")).answer()[2]) == {"models": ["ranker", "feed"]}
        said = json.loads(wire.send(get("/v2/models/feed")).answer()[2])
        assert (said["name"], said["versions"], said["parameters"]["shares"]) == (
            "feed",
            [second, first],
            {first: 0.3, second: 0.7},
        )
        assert wire.send(get("/v2/models/feed/ready")).answer()[0] == 200
        answer = json.loads(wire.send(head(len(body), "/v2/models/feed/infer") + body).answer()[2])
        assert answer["model_name"] == "feed"


def test_no_request_fails_while_assignments_change(shelf: Shelf, assignment: Assignment, assign: Assign, body: bytes) -> None:
    """Its bundle serves every answer; the tenth and last assignment is in force in the end. `assignment` is the first."""
    store, bundles = shelf
    with start_server(None, more=follow(store)) as server:
        is_over = False

        def ask() -> list[tuple[int, str]]:
            with Wire(server.url) as wire:
                found = []
                while not is_over:
                    status, headers, _ = wire.send(head(len(body)) + body).answer()
                    found.append((status, headers["tidewheel-bundle"]))
                return found

        with ThreadPoolExecutor(3) as pool, Wire(server.url) as watcher:
            callers = [pool.submit(ask) for _ in range(3)]
            for number in range(2, 11):
                assign(store, number, {bundles[number % 3]: 0.5, bundles[(number + 1) % 3]: 0.5})
                while metric(watcher.send(get("/metrics")).answer()[2], "tidewheel_assignment_number") < number:
                    continue
            is_over = True
            answers = [answer for caller in callers for answer in caller.result()]
            counted = watcher.send(get("/metrics")).answer()[2]
            shares = json.loads(watcher.send(get("/v2/models/ranker")).answer()[2])["parameters"]["shares"]
        assert {status for status, _ in answers} == {200}
        assert {bundle for _, bundle in answers} <= set(bundles)
        assert metric(counted, "tidewheel_version_swaps_total") == 9
        assert shares == {bundles[1]: 0.5, bundles[2]: 0.5}
        assert metric(counted, "tidewheel_bundle_info") == 2


def test_rows_of_every_version_reach_the_log(shelf: Shelf, assign: Assign, tiny_bundle: OpenBundle, tmp_path: Path) -> None:
    """Versions that went have written theirs; their counters go on."""
    bundles = shelf[1]
    store = Store.open(str(tmp_path / "store"))
    (tmp_path / "store" / "bundles").symlink_to(Path(shelf[0].location("bundles")))
    assign(store, 1, {bundles[0]: 1.0})
    name = "tidewheel_log_offered_rows_total"
    with start_server(None, log_folder=tmp_path / "log", more=follow(store)) as server:
        client = Client(server.url)
        for number, digest in enumerate(bundles, start=1):
            if number > 1:
                assign(store, number, {digest: 1.0})
            while metric(client.get("/metrics")[1], "tidewheel_assignment_number") < number:
                continue
            assert client.infer(columns_for(tiny_bundle), {"request_id": f"r{number}"}).bundle == digest
        assert client.get("/v2/health/live") == (200, b'{"live": true}')
        counted = client.get("/metrics")[1]
        client.close()
    assert metric(counted, name, 'part="backend"') == 3 * 8
    tables = [pq.read_table(path, partitioning=None) for path in (tmp_path / "log").glob("backend/date=*/part-*.parquet")]
    found = {(row["request_id"], row["bundle"]) for table in tables for row in table.to_pylist()}
    assert found == {("r1", bundles[0]), ("r2", bundles[1]), ("r3", bundles[2])}


def test_a_bundle_that_cannot_be_loaded_is_in_the_metrics_and_the_server_stays_ready(
    shelf: Shelf, assign: Assign, tmp_path: Path
) -> None:
    store = Store.open(str(tmp_path / "store"))
    (tmp_path / "store" / "bundles").symlink_to(Path(shelf[0].location("bundles")))
    first = shelf[1][0]
    assign(store, 1, {first: 1.0})
    with start_server(None, more=follow(store)) as server, Wire(server.url) as wire:
        assign(store, 2, {"7" * 64: 1.0})
        while not metric(wire.send(get("/metrics")).answer()[2], "tidewheel_version_load_failures_total"):
            continue
        assert metric(wire.send(get("/metrics")).answer()[2], "tidewheel_assignment_number") == 1
        status, headers, _ = wire.send(get("/v2/health/ready")).answer()
        assert (status, headers["tidewheel-bundle"]) == (200, first)
        os.kill(server.process.pid, signal.SIGTERM)
        assert server.process.wait(30) in (0, -signal.SIGTERM)


def test_whoever_follows_nothing_that_is_there_is_told_so(tmp_path: Path) -> None:
    with pytest.raises(RetryableError, match="has no assignments/quickstart; release something, or name a --bundle"):
        start_server(None, more=follow(Store.open(str(tmp_path / "store"))))
    with pytest.raises(RetryableError, match="nothing to serve; name a --bundle"):
        start_server(None)


def test_addresses_of_another_model_are_unknown(server: ServerProcess, body: bytes) -> None:
    with Wire(server.url) as wire:
        status, reason = wire.send(head(len(body), INFER.replace("ranker", "other")) + body).error()
        assert (status, reason) == (404, "model other is unknown; this bundle has ranker, feed")
        assert wire.send(head(len(body)) + body).answer()[0] == 200
