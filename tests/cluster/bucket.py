"""An S3-compatible server that tests and pods reach alike, at the address by which this machine speaks to the cluster."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from urllib.parse import urlsplit

import boto3

from tests.cluster.kubectl import kubectl

BUCKET = "wheel"
SERVER = """
import sys, threading
from moto.server import ThreadedMotoServer
server = ThreadedMotoServer(ip_address=sys.argv[1], port=0, verbose=False)
server.start()
print(*server.get_host_and_port(), flush=True)
sys.stdin.read()
"""


def own_address() -> str:
    """This machine's address on the way to the API server."""
    api = json.loads(kubectl("config", "view", "--minify", "--output=json"))["clusters"][0]["cluster"]["server"]
    place = urlsplit(api)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:  # connecting a datagram socket sends nothing
        probe.connect((place.hostname, place.port or 443))
        return probe.getsockname()[0]


@contextmanager
def bucket() -> Iterator[Mapping[str, str]]:
    """The variables by which a client finds the bucket, while its server runs."""
    server = subprocess.Popen(
        [sys.executable, "-c", SERVER, own_address()],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert server.stdout is not None
    assert server.stdin is not None
    try:
        host, port = server.stdout.readline().split()
        variables = {
            "AWS_ENDPOINT_URL": f"http://{host}:{port}",
            "AWS_ACCESS_KEY_ID": "key",
            "AWS_SECRET_ACCESS_KEY": "secret",
            "AWS_DEFAULT_REGION": "us-east-1",
        }
        before = dict(os.environ)
        os.environ.update(variables)
        try:
            boto3.client("s3").create_bucket(Bucket=BUCKET)
            yield variables
        finally:
            os.environ.clear()
            os.environ.update(before)
    finally:
        server.stdin.close()
        server.wait(60)
