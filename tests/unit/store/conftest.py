"""S3-compatible servers for the tests of the store, and a fresh place in them for each."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator

import boto3
import pytest
from moto.server import ThreadedMotoServer

from tests.s3 import seaweedfs
from tests.unit.store.backing import BucketBacking
from tests.unit.store.unreliable import UnreliableStore

VARIABLES_OF_OTHERS = ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL_S3")
_NUMBERS = itertools.count(1)


@pytest.fixture(scope="session")
def object_server() -> Iterator[tuple[str, int]]:
    """Host and port of a server that speaks S3."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    yield server.get_host_and_port()
    server.stop()


@pytest.fixture
def door(object_server: tuple[str, int], monkeypatch: pytest.MonkeyPatch) -> Iterator[UnreliableStore]:
    """The way to that server, set in the standard variables; it can be told to misbehave."""
    for name in VARIABLES_OF_OTHERS:
        monkeypatch.delenv(name, raising=False)
    door = UnreliableStore(*object_server)
    monkeypatch.setenv("AWS_ENDPOINT_URL", door.url)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    yield door
    door.close()


@pytest.fixture
def bucket(object_server: tuple[str, int], door: UnreliableStore) -> str:
    """URL of a fresh bucket's prefix."""
    name = f"bucket-{next(_NUMBERS)}"
    client(object_server).create_bucket(Bucket=name)
    return f"s3://{name}/wheel"


@pytest.fixture(scope="session")
def weed() -> Iterator[dict[str, str]]:
    """The variables by which a SeaweedFS is found that has a bucket `wheel`."""
    with seaweedfs("wheel") as variables:
        yield variables


@pytest.fixture
def weed_place(weed: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> tuple[str, BucketBacking]:
    """URL of a fresh prefix in SeaweedFS's bucket, with nothing in between, and what lies behind it."""
    for name in VARIABLES_OF_OTHERS:
        monkeypatch.delenv(name, raising=False)
    for name, value in weed.items():
        monkeypatch.setenv(name, value)
    prefix = f"wheel-{next(_NUMBERS)}"
    return f"s3://wheel/{prefix}", BucketBacking(boto3.client("s3"), "wheel", prefix)


@functools.cache
def client(server: tuple[str, int]) -> object:
    """What anybody may do to the bucket behind the store's back."""
    return boto3.client(
        "s3",
        endpoint_url=f"http://{server[0]}:{server[1]}",
        region_name="us-east-1",
        aws_access_key_id="key",
        aws_secret_access_key="secret",
    )
