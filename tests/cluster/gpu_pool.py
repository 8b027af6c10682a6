"""A pool of one fake GPU node: pods are scheduled there, and run nothing."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.cluster.kubectl import kubectl, require_cluster


def fake_gpu_nodes() -> list[str]:
    """Nodes of kwok that say they have GPUs and are in no pool."""
    found = json.loads(kubectl("get", "nodes", "--selector=type=kwok,!tidewheel/pool", "--output=json"))["items"]
    return [each["metadata"]["name"] for each in found if int(each["status"]["allocatable"].get("nvidia.com/gpu", 0))]


@contextmanager
def gpu_pool() -> Iterator[tuple[str, str]]:
    """(pool, node): one fake GPU node is the pool, at least one more is none."""
    require_cluster()
    nodes = fake_gpu_nodes()
    if len(nodes) < 2:
        pytest.skip(f"{len(nodes)} fake GPU nodes (kwok, nvidia.com/gpu) that are in no pool; two are needed")
    name = f"pool-{os.getpid()}-{time.monotonic_ns() % 1_000_000}"
    kubectl("label", "node", nodes[0], f"tidewheel/pool={name}")
    try:
        yield name, nodes[0]
    finally:
        kubectl("label", "node", nodes[0], "tidewheel/pool-")
