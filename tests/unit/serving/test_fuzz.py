"""Generated requests against a real server (bench/fuzz_serving.py runs a hundred thousand of them)."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import psutil
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tidewheel.ranker import OpenBundle
from tidewheel.serving import Client, ServerProcess, start_server

EXAMPLES = 2000
MAX_GROWTH_BYTES = 400 * 1024 * 1024


@pytest.fixture(scope="module")
def fuzzed() -> ModuleType:
    path = Path(__file__).parents[3] / "bench" / "fuzzed.py"
    spec = importlib.util.spec_from_file_location("bench_fuzzed", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def server(tiny_bundle: OpenBundle, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    more = ("--body-seconds", "0.3", "--header-seconds", "0.3", "--max-body-bytes", str(2 * 1024 * 1024))
    with start_server(tiny_bundle.folder, log_folder=tmp_path_factory.mktemp("log"), more=more) as server:
        yield server


def test_no_request_makes_the_server_fail(fuzzed: ModuleType, server: ServerProcess, tiny_bundle: OpenBundle) -> None:
    document = fuzzed.valid_document(tiny_bundle.manifest.features)
    wire = fuzzed.Wire(server.url)
    assert [status for status, _ in wire.exchange(fuzzed.Exchange.valid(document))] == [200]
    process = psutil.Process(server.process.pid)
    before = process.memory_info().rss

    @settings(
        max_examples=EXAMPLES, deadline=None, database=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck)
    )
    @given(fuzzed.exchanges(document, tiny_bundle.digest))
    def every_answer_has_a_reason(exchange: Any) -> None:
        for status, body in wire.exchange(exchange):
            assert status < 500, (status, body)
            assert not any(leak in body for leak in fuzzed.LEAKS), body
            assert status < 400 or not body or json.loads(body)["error"]

    every_answer_has_a_reason()
    assert [status for status, _ in wire.exchange(fuzzed.Exchange.valid(document))] == [200]
    assert Client(server.url).get("/v2/health/ready") == (200, fuzzed.ALIVE)
    assert process.memory_info().rss - before < MAX_GROWTH_BYTES


@settings(max_examples=200, deadline=None)
@given(
    values=st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=3, max_size=3),
    whole=st.integers(-(2**63), 2**63 - 1),
)
def test_every_finite_number_has_a_finite_score(
    fuzzed: ModuleType, server: ServerProcess, tiny_bundle: OpenBundle, values: list[float], whole: int
) -> None:
    document = fuzzed.valid_document(tiny_bundle.manifest.features)
    for tensor in document["inputs"]:
        if tensor["datatype"] == "FP64":
            tensor["data"] = values[: len(tensor["data"])]
        elif tensor["datatype"] == "INT64":
            tensor["data"] = [whole] * len(tensor["data"])
    client = Client(server.url)
    status, body, _ = client._exchange("POST", "/v2/models/ranker/infer", json.dumps(document).encode())
    client.close()
    assert status == 200, body
    assert all(0 <= score <= 1 for output in json.loads(body)["outputs"] for score in output["data"])
