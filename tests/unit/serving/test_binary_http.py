"""The binary tensor data extension, asked of a real server process."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator

import numpy as np
import pytest

from tests.unit.serving.test_server import columns_for
from tidewheel.ranker import OpenBundle
from tidewheel.serving import Client, ServerProcess, start_server
from tidewheel.serving.protocol import BinaryBody, decode_response, encode_request

PATH = "/v2/models/ranker/infer"


@pytest.fixture(scope="module")
def server(tiny_bundle: OpenBundle) -> Iterator[ServerProcess]:
    with start_server(tiny_bundle.folder) as server:
        yield server


@pytest.fixture
def connection(server: ServerProcess) -> Iterator[http.client.HTTPConnection]:
    connection = http.client.HTTPConnection(server.url.removeprefix("http://"), timeout=10)
    yield connection
    connection.close()


def test_bytes_are_scored_like_json_and_answered_with_bytes(
    server: ServerProcess, connection: http.client.HTTPConnection, tiny_bundle: OpenBundle
) -> None:
    columns = columns_for(tiny_bundle)
    want = Client(server.url).infer(columns).scores
    sent = encode_request(columns, is_binary=True)
    assert isinstance(sent, BinaryBody)
    connection.request("POST", PATH, sent, {"Inference-Header-Content-Length": str(sent.json_size)})
    answer = connection.getresponse()
    body = answer.read()

    assert (answer.status, answer.headers["content-type"]) == (200, "application/octet-stream")
    found = decode_response(body, int(answer.headers["inference-header-content-length"]))
    assert list(found) == list(want)
    for label in want:
        np.testing.assert_array_equal(found[label], want[label])


@pytest.mark.parametrize("size", ["7", "-1", "x", "99999"])
def test_a_header_that_lies_is_refused_and_the_connection_goes_on(
    connection: http.client.HTTPConnection, tiny_bundle: OpenBundle, size: str
) -> None:
    sent = encode_request(columns_for(tiny_bundle))
    connection.request("POST", PATH, sent, {"Inference-Header-Content-Length": size})
    answer = connection.getresponse()
    assert (answer.status, set(json.loads(answer.read()))) == (400, {"error"})
    connection.request("POST", PATH, sent)
    answer = connection.getresponse()
    assert (answer.status, len(json.loads(answer.read())["outputs"])) == (200, 3)


def test_the_server_names_the_extension(connection: http.client.HTTPConnection) -> None:
    connection.request("GET", "/v2")
    assert json.loads(connection.getresponse().read())["extensions"] == ["binary_tensor_data"]
