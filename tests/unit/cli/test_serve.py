"""`tidewheel serve` as a user types it: production as it changes, or one bundle for good."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import TinyRun
from tests.e2e.command import PROGRAM, environment
from tidewheel.contracts.assignment import Assignment, Share, name_of
from tidewheel.contracts.ledger import Decision, LedgerEntry
from tidewheel.contracts.verdict import Phase, Verdict
from tidewheel.ranker.bundle import BUNDLES
from tidewheel.registry import Ledger
from tidewheel.serving import Client
from tidewheel.store import Home, Store

RECIPE = "quickstart"


@pytest.fixture
def home(tiny_run: TinyRun, tmp_path: Path) -> Path:
    """A home with one release."""
    store = Home.resolve(tmp_path / "home", {}).store()
    (tmp_path / "home" / "store" / BUNDLES).symlink_to(Path(tiny_run.store.location(BUNDLES)))
    bundle = tiny_run.bundle
    Ledger(store, RECIPE).append(
        LedgerEntry(
            number=1,
            time=datetime(2026, 1, 12, tzinfo=UTC),
            decision=Decision.BOOTSTRAP,
            recipe=RECIPE,
            run_id="tiny",
            window=None,
            bundle=bundle.digest,
            production=bundle.digest,
            previous=None,
            teacher=None,
            generation=0,
            feature_digest=bundle.manifest.feature_digest,
            verdict=Verdict(phase=Phase.SUCCESSFUL),
            reason="first",
        )
    )
    return tmp_path / "home"


@contextmanager
def serving(home: Path, options: Sequence[str]) -> Iterator[dict[str, Any]]:
    """What the server announces; it is stopped by a signal and must have ended well."""
    command = [*PROGRAM, "serve", "--port", "0", "--poll-seconds", "0.02", *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment(home), text=True) as process:
        assert process.stdout is not None
        try:
            yield json.loads(process.stdout.readline())
        finally:
            os.kill(process.pid, signal.SIGTERM)
        assert process.wait(60) == 0


def numbered(url: str, until: int) -> float:
    """The number of the assignment in force, once it is `until`."""
    client, found = Client(url), -1.0
    while found < until:
        lines = client.get("/metrics")[1].decode().splitlines()
        found = next(float(line.split()[1]) for line in lines if line.startswith("tidewheel_assignment_number "))
    client.close()
    return found


def test_production_serves_at_once_and_an_assignment_is_followed_when_it_comes(home: Path, tiny_run: TinyRun) -> None:
    digest = tiny_run.bundle.digest
    with serving(home, ["--drain-seconds", "0", "--max-waiting", "10"]) as said:
        assert said["bundle"] == digest
        assert numbered(said["url"], 0) == 0
        assignment = Assignment(recipe=RECIPE, number=1, salt=0, shares=(Share(bundle=digest, share=1.0),))
        Store.open(str(home / "store")).create(name_of(RECIPE, 1), assignment.to_json())
        assert numbered(said["url"], 1) == 1


def test_a_named_bundle_is_served_whatever_is_assigned(home: Path, tiny_run: TinyRun) -> None:
    digest = tiny_run.bundle.digest
    assignment = Assignment(recipe=RECIPE, number=1, salt=0, shares=(Share(bundle="7" * 64, share=1.0),))
    Store.open(str(home / "store")).create(name_of(RECIPE, 1), assignment.to_json())
    with serving(home, ["--bundle", digest]) as said:
        assert said["bundle"] == digest
        client = Client(said["url"])
        assert client.get("/v2/health/ready")[0] == 200
        client.close()


def test_production_serves_where_the_assignment_cannot(home: Path, tiny_run: TinyRun) -> None:
    assignment = Assignment(recipe=RECIPE, number=1, salt=0, shares=(Share(bundle="7" * 64, share=1.0),))
    Store.open(str(home / "store")).create(name_of(RECIPE, 1), assignment.to_json())
    with serving(home, []) as said:
        assert said["bundle"] == tiny_run.bundle.digest
