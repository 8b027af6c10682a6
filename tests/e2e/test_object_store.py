"""Whole turns as a team runs them: the store is a bucket of SeaweedFS, the registry an MLflow server."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import pytest

from tests.e2e.command import PROGRAM, QUICKSTART, SMALL, Ended, environment, settings
from tests.mlflow_server import mlflow_server
from tests.s3 import seaweedfs
from tidewheel.registry import BackgroundRegistry
from tidewheel.store.home import REGISTRY_VARIABLE, STORE_VARIABLE

pytestmark = pytest.mark.slow

RUN = ["run", "--recipe", str(QUICKSTART), *settings(*SMALL)]
BUCKET, PREFIX = "wheel", "team/ranker"


@dataclass(frozen=True)
class Bucket:
    """A bucket, and the environment in which tidewheel finds it."""

    client: Any
    variables: Mapping[str, str]

    def tidewheel(self, *arguments: str | Path, home: Path) -> Ended:
        ended = subprocess.run(
            [*PROGRAM, *map(str, arguments)],
            capture_output=True,
            text=True,
            env=environment(home, self.variables),
            timeout=600,
        )
        return Ended(ended.returncode, ended.stdout, ended.stderr)

    def names(self) -> list[str]:
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=PREFIX)
        return [item["Key"].removeprefix(f"{PREFIX}/") for page in pages for item in page.get("Contents", [])]

    def read(self, name: str) -> bytes:
        return self.client.get_object(Bucket=BUCKET, Key=f"{PREFIX}/{name}")["Body"].read()

    def write(self, name: str, data: bytes) -> None:
        self.client.put_object(Bucket=BUCKET, Key=f"{PREFIX}/{name}", Body=data)


@pytest.fixture(scope="module")
def bucket() -> Iterator[Bucket]:
    with seaweedfs(BUCKET) as variables, mlflow_server() as registry:
        client = boto3.client(
            "s3",
            endpoint_url=variables["AWS_ENDPOINT_URL"],
            region_name="us-east-1",
            aws_access_key_id="key",
            aws_secret_access_key="secret",
        )
        yield Bucket(client, variables | {STORE_VARIABLE: f"s3://{BUCKET}/{PREFIX}", REGISTRY_VARIABLE: registry})


@pytest.fixture(scope="module")
def first(bucket: Bucket, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """The home of a first release into the bucket, and its report."""
    home = tmp_path_factory.mktemp("first") / "home"
    ended = bucket.tidewheel(*RUN, "--require", "bootstrap", "--json", home=home)
    assert ended.code == 0, ended.err
    return home, ended.document


def test_a_turn_leaves_everything_in_the_bucket(bucket: Bucket, first: tuple[Path, dict[str, Any]]) -> None:
    home, report = first
    names = bucket.names()

    assert f"bundles/{report['bundle']}/manifest.json" in names
    assert {f"datasets/{data['digest']}/manifest.json" for data in report["datasets"].values()} <= set(names)
    assert "ledger/quickstart/000001.json" in names
    assert not any(name.startswith("staging/") for name in names)
    assert not (home / "store").exists()
    assert not (home / "registry.db").exists()
    assert bucket.tidewheel("reconcile", "--json", home=home).document == {"repaired": []}


def test_another_machine_goes_on_where_the_first_stopped(
    bucket: Bucket, first: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    """Its teacher, production and ledger come from the bucket, and the same bytes are made under no other name."""
    _, report = first
    home = tmp_path / "home"

    second = bucket.tidewheel(*RUN, "--window-end", "2026-01-19", "--json", home=home)

    assert second.code == 0, second.err
    assert second.document["teacher"] == report["bundle"]
    history = bucket.tidewheel("history", "--json", home=home).document
    assert [entry["number"] for entry in history] == [1, 2]
    assert history[1]["previous"] == report["bundle"]
    state = bucket.tidewheel("status", "--json", home=home).document["state"]["quickstart"]  # as the ledger has it
    aliases, decided = registered(bucket)
    assert aliases == {alias: state[alias] for alias in ("production", "previous") if state[alias]}
    assert decided[report["bundle"]] == "1"
    assert bucket.tidewheel("reconcile", "--json", home=home).document == {"repaired": []}


def registered(bucket: Bucket) -> tuple[dict[str, str], dict[str, str]]:
    """What the server says to MLflow's own client: digest by alias, and number of the newest decision by digest."""
    from mlflow import MlflowClient

    client = MlflowClient(bucket.variables[REGISTRY_VARIABLE])
    versions = {str(version.version): version for version in client.search_model_versions("name = 'quickstart'")}
    assert all(version.source.startswith(f"s3://{BUCKET}/{PREFIX}/bundles/") for version in versions.values())
    digests = {number: version.tags["tidewheel.digest"] for number, version in versions.items()}
    aliases = client.get_registered_model("quickstart").aliases
    numbers = {digests[number]: version.tags["tidewheel.ledger"] for number, version in versions.items()}
    return {alias: digests[str(number)] for alias, number in aliases.items()}, numbers


def test_homes_that_share_a_store_never_share_a_run_id(
    bucket: Bucket, first: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    _, report = first

    again = bucket.tidewheel(*RUN, "--window-end", "2026-01-12", "--dry-run", "--json", home=tmp_path / "home")

    assert again.code == 0, again.err
    assert again.document["run_id"] != report["run_id"]


def test_a_byte_flipped_in_the_bucket_is_found_by_verify_full_and_rebuilt(
    bucket: Bucket, first: tuple[Path, dict[str, Any]]
) -> None:
    home, report = first
    name = f"datasets/{report['datasets']['train']['digest']}/part-00000.parquet"
    whole = bucket.read(name)
    bucket.write(name, whole[:100] + bytes([whole[100] ^ 1]) + whole[101:])

    ended = bucket.tidewheel(*RUN, "--window-end", "2026-01-12", "--dry-run", "--verify", "full", "--json", home=home)

    assert ended.code == 0, ended.err
    reused = {step["name"]: step["reused"] for step in ended.document["steps"]}
    assert (reused["ingest"], reused["sample"]) == (True, False)
    assert bucket.read(name) == whole


def test_a_store_that_is_down_is_one_line(first: tuple[Path, dict[str, Any]], bucket: Bucket) -> None:
    home, _ = first
    gone = Bucket(bucket.client, {**bucket.variables, "AWS_ENDPOINT_URL": "http://127.0.0.1:9"})

    ended = gone.tidewheel("status", home=home)

    assert ended.code == 1
    assert "s3://wheel/team/ranker: create store.json failed in 6 attempts" in ended.last_line
    assert "Traceback" not in ended.err


def test_a_registry_behind_a_server_takes_bundles_of_a_folder_too(bucket: Bucket, tmp_path: Path) -> None:
    """MLflow's server refuses a source that is a path: it would be one of its own."""
    with BackgroundRegistry(bucket.variables[REGISTRY_VARIABLE], "of a folder", str(tmp_path / "bundles")) as registry:
        registry.announce("a" * 64, {"tidewheel.run_id": "run-1"})

        assert registry.aliases() == {"candidate": "a" * 64}


def test_serve_copies_the_bundle_to_this_machine(bucket: Bucket, first: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    _, report = first
    home = tmp_path / "home"
    home.mkdir()
    command = [*PROGRAM, "serve", "--bundle", report["bundle"], "--port", "0"]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment(home, bucket.variables))
    try:
        assert report["bundle"] in server.stdout.readline()
    finally:
        server.terminate()
        server.wait(60)
    assert (home / "cache" / "bundles" / report["bundle"] / "manifest.json").exists()
