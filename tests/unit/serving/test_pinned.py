"""`--store URL --digest DIGEST`: a real process serves exactly that bundle, whatever the store's assignments say."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import boto3
import numpy as np
import pytest
from moto.server import ThreadedMotoServer

from tests.unit.serving.conftest import Assign, Publish
from tests.unit.serving.test_server import columns_for
from tidewheel.ranker import OpenBundle, Scorer
from tidewheel.ranker.bundle import BUNDLES
from tidewheel.serving import Client, start_server
from tidewheel.store import Store

Shelf = tuple[Store, tuple[str, str, str]]


@pytest.fixture
def object_store(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """URL of a prefix in a bucket of an S3-compatible server, whose address is in the environment."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL_S3"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    boto3.client("s3").create_bucket(Bucket="pods")
    yield "s3://pods/wheel"
    server.stop()


def ended(*arguments: str) -> tuple[int, str]:
    """Exit code and stderr of a server that does not come up."""
    command = [sys.executable, "-m", "tidewheel.serving", "--port", "0", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.stdout == ""
    return done.returncode, done.stderr


def test_it_serves_the_bundle_that_is_named_and_follows_nothing(shelf: Shelf, assign: Assign, tiny_bundle: OpenBundle) -> None:
    store, (first, second, _) = shelf
    assign(store, 1, {second: 1.0})
    with start_server(None, more=("--store", store.url, "--digest", first, "--poll-seconds", "0.02")) as server:
        assert server.bundle == first
        columns = columns_for(tiny_bundle)
        answer = Client(server.url).infer(columns)
        assert answer.bundle == first
        for label, want in Scorer(tiny_bundle).score(columns).items():
            np.testing.assert_allclose(answer.scores[label], want, atol=1e-6)
        status, text = Client(server.url).get("/metrics")
    assert status == 200
    assert "tidewheel_assignment_number 0.0" in text.decode().splitlines()
    assert f'tidewheel_bundle_share{{bundle="{first}"}} 1.0' in text.decode().splitlines()


def test_a_bundle_of_a_bucket_is_fetched_into_the_cache_and_served(object_store: str, publish: Publish, tmp_path: Path) -> None:
    digest = publish(Store.open(object_store, tmp_path / "publisher"), "first")
    more = ("--store", object_store, "--digest", digest, "--cache", str(tmp_path / "cache"))
    with start_server(None, more=more) as server:
        assert server.bundle == digest
        assert json.loads(Client(server.url).get("/v2/models/ranker")[1])["versions"] == [digest]
    assert (tmp_path / "cache" / BUNDLES / digest / "manifest.json").is_file()


def test_a_bundle_that_the_store_does_not_have_is_one_line_and_exit_code_3(shelf: Shelf, object_store: str) -> None:
    for url in (shelf[0].url, object_store):
        code, said = ended("--store", url, "--digest", "7" * 64)
        assert (code, len(said.splitlines())) == (3, 1), said
        assert "7777777" in said


def test_one_flipped_byte_in_the_store_is_exit_code_3(publish: Publish, tmp_path: Path) -> None:
    store = Store.open(str(tmp_path / "store"))
    digest = publish(store, "first")
    graph = store.folder(BUNDLES, digest) / "ranker" / "graph.onnx"
    graph.chmod(0o600)
    data = bytearray(graph.read_bytes())
    data[len(data) // 2] ^= 1
    graph.write_bytes(data)
    code, said = ended("--store", store.url, "--digest", digest)
    assert (code, len(said.splitlines())) == (3, 1), said
    assert "graph.onnx does not match its digest" in said


def test_a_store_that_is_not_there_is_one_line_and_leaves_nothing_behind(tmp_path: Path) -> None:
    code, said = ended("--store", str(tmp_path / "nowhere"), "--digest", "7" * 64)
    assert (code, len(said.splitlines())) == (2, 1), said
    assert "there is no such folder" in said
    assert not (tmp_path / "nowhere").exists()


def test_a_bucket_that_does_not_answer_is_one_line_and_exit_code_1(object_store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")  # nobody listens
    code, said = ended("--store", object_store, "--digest", "7" * 64)
    assert (code, len(said.splitlines())) == (1, 1), said
    assert f"store {object_store}: create store.json failed in 6 attempts" in said


def test_before_the_first_release_a_pod_says_what_is_missing() -> None:
    arguments = ["--store", "$TIDEWHEEL_STORE", "--digest", "$TIDEWHEEL_BUNDLE"]
    environment = {"TIDEWHEEL_STORE": "s3://bucket/wheel", "TIDEWHEEL_BUNDLE": ""}
    code, said = ended(*(environment.get(one.removeprefix("$"), one) for one in arguments))
    assert (code, len(said.splitlines())) == (2, 1), said
    assert "no bundle was released yet" in said


def test_a_port_that_is_taken_is_one_line_and_exit_code_1(shelf: Shelf) -> None:
    store, (first, *_) = shelf
    with start_server(None, more=("--store", store.url, "--digest", first)) as server:
        taken = server.url.rpartition(":")[2]
        code, said = ended("--store", store.url, "--digest", first, "--port", taken)
    assert (code, len(said.splitlines())) == (1, 1), said
    assert f"cannot listen on 127.0.0.1:{taken}: {os.strerror(98)}" in said
