"""Where the ladder is tried: a namespace with the accounts of runs, and a store for each test."""

from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from tests.cluster.bucket import bucket
from tests.cluster.kubectl import kubectl, new_namespace, require_cluster
from tests.cluster.memory.ladder import Shelf, allow


@pytest.fixture(scope="module")
def variables() -> Iterator[Mapping[str, str]]:
    require_cluster()
    with bucket() as found:
        yield found


@pytest.fixture
def shelf(variables: Mapping[str, str], tmp_path: Path, request: pytest.FixtureRequest) -> Shelf:
    return Shelf.of(request.node.name.replace("_", "-"), variables, tmp_path / "cache")


@pytest.fixture(scope="module")
def namespace(variables: Mapping[str, str]) -> Iterator[str]:
    """With an account that has the rights of a run's, and one that has none."""
    name = new_namespace("ladder")
    for account in ("climber", "nobody"):
        kubectl("--namespace", name, "create", "serviceaccount", account)
    allow(name, "ladder-test", "climber")
    yield name
    kubectl("delete", "namespace", name, "--wait=false")
