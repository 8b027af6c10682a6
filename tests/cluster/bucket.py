"""A SeaweedFS that tests and pods reach alike, at the address by which this machine speaks to the cluster."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from unittest import mock
from urllib.parse import urlsplit

from tests.cluster.kubectl import kubectl
from tests.s3 import seaweedfs

BUCKET = "wheel"


def own_address() -> str:
    """This machine's address on the way to the API server."""
    api = json.loads(kubectl("config", "view", "--minify", "--output=json"))["clusters"][0]["cluster"]["server"]
    place = urlsplit(api)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:  # connecting a datagram socket sends nothing
        probe.connect((place.hostname, place.port or 443))
        return probe.getsockname()[0]


@contextmanager
def bucket() -> Iterator[Mapping[str, str]]:
    """The variables by which a client finds the bucket, while its server runs; this process has them meanwhile."""
    with seaweedfs(BUCKET, own_address()) as variables, mock.patch.dict(os.environ, variables):
        yield variables
