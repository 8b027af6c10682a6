"""A real server process over HTTP."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tidewheel.contracts.recipe import Recipe
from tidewheel.contracts.schema import FeatureKind, feature_digest
from tidewheel.errors import ContractError, RetryableError
from tidewheel.ranker import OpenBundle, Scorer
from tidewheel.serving import Client, ServerProcess, start_server
from tidewheel.serving.gate import Limits
from tidewheel.serving.protocol import encode_request


@pytest.fixture(scope="module")
def server(tiny_bundle: OpenBundle) -> Iterator[ServerProcess]:
    with start_server(tiny_bundle.folder) as server:
        yield server


@pytest.fixture
def client(server: ServerProcess) -> Iterator[Client]:
    client = Client(server.url)
    yield client
    client.close()


def columns_for(bundle: OpenBundle, candidates: int = 8) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    columns: dict[str, np.ndarray] = {}
    for feature in bundle.manifest.features:
        size = candidates if feature.entity == "item" else 1
        if feature.kind is FeatureKind.HASHED:
            columns[feature.name] = rng.integers(1, 60, size)
        elif feature.kind is FeatureKind.VOCABULARY:
            columns[feature.name] = rng.choice(np.array(["a", "b", "unseen", None], dtype=object), size)
        else:
            columns[feature.name] = np.where(rng.random(size) < 0.1, np.nan, rng.gamma(2.0, 1.0, size))
    return columns


def test_what_is_served_is_what_the_scorer_says(client: Client, tiny_bundle: OpenBundle) -> None:
    columns = columns_for(tiny_bundle)
    answer = client.infer(columns)
    assert answer.bundle == tiny_bundle.digest
    assert answer.latency_seconds > 0
    want = Scorer(tiny_bundle).score(columns)
    assert set(answer.scores) == set(want)
    for label in want:
        assert answer.scores[label].shape == (8,)
        np.testing.assert_allclose(answer.scores[label], want[label], atol=1e-6)


@pytest.mark.parametrize(
    ("path", "status", "text"),
    [
        ("/v2", 200, '"name": "tidewheel"'),
        ("/v2/health/live", 200, "true"),
        ("/v2/health/ready", 200, "true"),
        ("/v2/models/ranker", 200, '"platform": "onnx"'),
        ("/v2/models/ranker/ready", 200, "true"),
        ("/v2/models/other", 404, "model other is unknown; this bundle has ranker"),
        ("/v2/models/other/ready", 404, "unknown"),
        ("/v2/models/ranker/infer", 405, "expected POST"),
        ("/v1/anything", 404, "no such address"),
    ],
)
def test_every_address_answers(client: Client, path: str, status: int, text: str) -> None:
    found, body = client.get(path)
    assert found == status
    assert text in body.decode()
    assert status == 200 or set(json.loads(body)) == {"error"}


def test_a_bad_request_is_refused_with_its_fault_and_the_connection_goes_on(client: Client, tiny_bundle: OpenBundle) -> None:
    columns = columns_for(tiny_bundle)
    with pytest.raises(ContractError, match="400 inputs: user_id is missing"):
        client.infer({name: column for name, column in columns.items() if name != "user_id"})
    with pytest.raises(ContractError, match="400"):
        client.infer(columns | {"user_id": np.array(["not an id"], dtype=object)})
    assert client.infer(columns).bundle == tiny_bundle.digest


def test_the_recipes_allowlist_is_what_the_server_says(server: ServerProcess, quickstart: Recipe) -> None:
    want = feature_digest(quickstart.features)
    with urllib.request.urlopen(f"{server.url}/v2/models/ranker", timeout=10) as answer:
        metadata, header = json.load(answer), answer.headers["tidewheel-features"]

    assert metadata["parameters"]["feature_digest"] == want
    assert header == want
    datatypes = {tensor["name"]: tensor["datatype"] for tensor in metadata["inputs"]}
    assert [datatypes[name] for name in ("user_id", "user_segment", "item_click_rate")] == ["INT64", "BYTES", "FP64"]


def test_a_request_made_for_other_features_is_refused(client: Client, tiny_bundle: OpenBundle) -> None:
    document = json.loads(encode_request(columns_for(tiny_bundle)))
    statuses = {}
    for digest in (tiny_bundle.manifest.feature_digest, "7" * 64):
        body = json.dumps(document | {"parameters": {"feature_digest": digest}}).encode()
        statuses[digest], answer, _ = client._exchange("POST", "/v2/models/ranker/infer", body)

    assert list(statuses.values()) == [200, 400]
    assert "parameters.feature_digest" in json.loads(answer)["error"]
    assert tiny_bundle.manifest.feature_digest in json.loads(answer)["error"]


def test_an_endless_body_is_cut_off(server: ServerProcess) -> None:
    client = Client(server.url)
    status, body, _ = client._exchange("POST", "/v2/models/ranker/infer", b" " * (Limits.max_body_bytes + 1))
    assert status == 413
    assert "larger than" in body.decode()


def test_metrics_count_requests_errors_and_scores(server: ServerProcess, tiny_bundle: OpenBundle) -> None:
    client = Client(server.url)

    def value(name: str) -> float:
        name, _, label = name.partition(" ")
        lines = client.get("/metrics")[1].decode().splitlines()
        return sum(float(line.split()[-1]) for line in lines if line.startswith(name) and label in line)

    names = ('tidewheel_requests_total{status="200"}', "tidewheel_errors_total", "tidewheel_request_seconds_count")
    names += ('tidewheel_score_count label="click"',)
    before = [value(name) for name in names]
    for _ in range(3):
        client.infer(columns_for(tiny_bundle))
    with pytest.raises(ContractError):
        client.infer({})
    assert [value(name) - old for name, old in zip(names, before, strict=True)] == [3, 1, 3, 24]
    assert value(f'tidewheel_bundle_info{{bundle="{tiny_bundle.digest}"}}') == 1


def test_a_bundle_with_one_flipped_byte_is_not_served(tiny_bundle: OpenBundle, tmp_path: Path) -> None:
    folder = tmp_path / tiny_bundle.digest
    shutil.copytree(tiny_bundle.folder, folder)
    graph = folder / tiny_bundle.model().graph
    data = bytearray(graph.read_bytes())
    data[len(data) // 2] ^= 1
    graph.write_bytes(data)
    command = [sys.executable, "-m", "tidewheel.serving", "--bundle", str(folder), "--port", "0"]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert ended.returncode == 3
    assert len(ended.stderr.splitlines()) == 1
    assert "graph.onnx: does not match its digest" in ended.stderr
    with pytest.raises(ContractError, match="does not match its digest"):
        start_server(folder)


def test_a_bundle_that_is_not_there_is_not_served(tmp_path: Path) -> None:
    with pytest.raises(ContractError, match="cannot be read"):
        start_server(tmp_path / ("0" * 64))


def test_a_server_ends_on_sigterm_and_its_client_says_so(tiny_bundle: OpenBundle) -> None:
    server = start_server(tiny_bundle.folder)
    client = Client(server.url)
    client.infer(columns_for(tiny_bundle))
    os.kill(server.process.pid, signal.SIGTERM)
    assert server.process.wait(20) in (0, -signal.SIGTERM)
    with pytest.raises(RetryableError, match="no answer"):
        client.infer(columns_for(tiny_bundle))
    server.stop()
    server.stop()


def test_a_server_does_not_outlive_a_parent_that_was_killed(tiny_bundle: OpenBundle) -> None:
    code = (
        "import sys, time; from pathlib import Path; from tidewheel.serving import start_server\n"
        f"server = start_server(Path({str(tiny_bundle.folder)!r})); print(server.process.pid, flush=True); time.sleep(60)"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    with open(f"/proc/{pid}/stat") as stat:
        assert stat.read()
    watched = os.pidfd_open(pid)
    parent.kill()
    parent.wait()
    parent.stdout.close()
    import select

    readable, _, _ = select.select([watched], [], [], 20)  # becomes readable when the process ends
    os.close(watched)
    assert readable
