"""The night call as it is typed: production is taken back with all that follows, and what was so is found again later."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import subprocess
import time
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import psutil
import pytest

from tests.e2e.command import PROGRAM, QUICKSTART, ROOT, SMALL, environment, settings, tidewheel
from tidewheel.contracts.assignment import Assignment
from tidewheel.contracts.state import ReleaseState
from tidewheel.store import Home

pytestmark = pytest.mark.slow

RUN = ["run", "--recipe", str(QUICKSTART), *settings(*SMALL)]
RUNBOOK = ROOT / "docs" / "operations" / "rollback.md"
PATIENCE_SECONDS = 240


@pytest.fixture(scope="module")
def released(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with two releases, the second taught by the first."""
    home = tmp_path_factory.mktemp("released") / "home"
    ended = tidewheel("simulate", "--recipe", QUICKSTART, "--turns", "2", *settings(*SMALL), "--json", home=home)
    assert [turn["outcome"] for turn in ended.document] == ["bootstrap", "promoted"], ended.err
    return home


@pytest.fixture
def home(released: Path, tmp_path: Path) -> Path:
    """A copy of that home."""
    shutil.copytree(released, tmp_path / "home", symlinks=True)
    return tmp_path / "home"


@pytest.fixture
def bundles(home: Path) -> tuple[str, str]:
    """The first release and the second."""
    first, second = tidewheel("history", "--json", home=home).document
    return first["bundle"], second["bundle"]


def state(home: Path) -> ReleaseState:
    return ReleaseState.model_validate(tidewheel("status", "--json", home=home).document["state"]["quickstart"])


def teaches(home: Path) -> dict[str, str]:
    """Digest -> what its version says in the registry."""
    from mlflow import MlflowClient

    versions = MlflowClient(f"sqlite:///{home / 'registry.db'}").search_model_versions("name = 'quickstart'")
    return {version.tags["tidewheel.digest"]: version.tags["tidewheel.teaches"] for version in versions}


def test_one_command_takes_everything_back(home: Path, bundles: tuple[str, str]) -> None:
    first, second = bundles

    ended = tidewheel("rollback", "--reason", "complaints", "--json", home=home)

    assert ended.code == 0, ended.err
    assert ended.document["entry"]["decision"] == "reverted"
    assert ended.document["unprojected"] == ""
    store = Home.resolve(home, {}).store()
    assigned = Assignment.parse(store.get("assignments/quickstart/000003.json") or "", "assignment")
    assert [(share.bundle, share.share) for share in assigned.shares] == [(first, 1.0)]
    found = state(home)
    assert (found.number, found.production, found.teachers) == (3, first, ())
    assert found.not_teaching == {second: "reverted from (entry 3: complaints)"}
    assert (found.retraining.phase, found.retraining.entry) == ("reanchored", 3)
    assert ReleaseState.parse(store.get("state/quickstart.json") or "", "state") == found
    assert teaches(home) == {first: "yes", second: "no: reverted from (entry 3: complaints)"}
    assert tidewheel("reconcile", "--json", home=home).document == {"repaired": []}


def test_the_next_run_learns_from_labels_alone_and_says_so(home: Path) -> None:
    tidewheel("rollback", "--reason", "complaints", home=home)

    ended = tidewheel(*RUN, "--json", home=home)

    assert ended.code == 0, ended.err
    assert ended.document["window"]["end"].startswith("2026-01-26")
    assert ended.document["teacher"] is None
    assert ended.document["teaching"]["reason"] == (
        "re-anchored on labels until the next release: entry 3 took production back (complaints)"
    )


def test_a_pause_lets_no_run_begin_until_somebody_resumes(home: Path) -> None:
    tidewheel("rollback", "--reason", "complaints", "--retraining", "pause", home=home)
    runs = sorted((home / "runs").iterdir())

    refused = tidewheel(*RUN, "--json", home=home)

    assert refused.code == 2
    assert refused.document["error"]["kind"] == "PausedError"
    assert "paused since entry 3 took production back (complaints)" in refused.last_line
    assert "tidewheel resume --reason WHY" in refused.last_line
    assert sorted((home / "runs").iterdir()) == runs
    assert "retraining of quickstart is paused" in tidewheel("status", home=home).out
    assert tidewheel("resume", "--reason", "found it", home=home).code == 0
    assert state(home).retraining.phase == "open"
    again = tidewheel("resume", "--reason", "found it", home=home)
    assert again.code == 2
    assert "nothing is held up" in again.last_line


def test_what_was_in_production_then_is_told_with_what_it_stood_on(home: Path, bundles: tuple[str, str]) -> None:
    first, second = bundles
    before = datetime.now(UTC).isoformat()
    tidewheel("rollback", "--reason", "complaints", home=home)

    then = tidewheel("history", "--at", before, "--json", home=home).document

    assert (then["bundle"], then["run_id"]) == (second, "quickstart-20260119-1")
    assert [teacher["bundle"] for teacher in then["teachers"]] == [first]
    assert set(then["datasets"]) == {"train", "calibration", "eval", "randomized"}
    assert set(then["verdicts"]) == {"validate_data", "evaluate", "deploy"}
    assert [event["what"] for event in then["later"]] == [f"reverted to {first[:12]}: complaints"]
    assert then["notes"] == []
    assert "served quickstart at" in tidewheel("history", "--at", before, home=home).out
    nothing = tidewheel("history", "--at", "2020-01-01", home=home)
    assert "nothing served at 2020-01-01: the first release was entry 1 at" in nothing.out
    for bad, words in (("2999-01-01", "lies ahead"), ("noon", "expected an ISO 8601 date or time")):
        refused = tidewheel("history", "--at", bad, home=home)
        assert (refused.code, words in refused.last_line) == (2, True)


def test_gc_removes_what_nothing_needs_and_the_wheel_turns_on(home: Path, bundles: tuple[str, str]) -> None:
    before = datetime.now(UTC).isoformat()
    asked = ["gc", "--keep-days", "0", "--keep-releases", "1"]

    would = tidewheel(*asked, "--dry-run", "--json", home=home).document
    done = tidewheel(*asked, "--json", home=home).document

    assert would["removed"] == done["removed"]
    assert {folder["kind"] for folder in done["removed"]} == {"datasets", "models"}  # of the first run; its bundle can teach
    assert set(done["kept"]) == set(bundles)
    assert tidewheel(*asked, "--json", home=home).document["removed"] == []
    assert tidewheel("history", "--at", before, "--json", home=home).document["notes"] == []
    assert tidewheel("rollback", "--reason", "complaints", home=home).code == 0
    ended = tidewheel(*RUN, "--window-end", "2026-01-12", "--dry-run", "--json", home=home)
    assert ended.code == 0, ended.err
    assert not next(step for step in ended.document["steps"] if step["name"] == "ingest")["reused"]


def test_a_run_killed_after_its_decision_is_concluded_and_not_released_twice(home: Path) -> None:
    kill_after_entry(home, 3)
    assert not (home / "runs" / "quickstart-20260126-1" / "run.json").exists()
    (decision,) = [entry["decision"] for entry in tidewheel("history", "--json", home=home).document[2:]]

    ended = tidewheel(*RUN, "--dry-run", "--json", home=home)

    assert f"quickstart-20260126-1 was killed after its decision: {decision}" in ended.err
    assert ended.document["window"]["end"].startswith("2026-02-02")
    assert ended.document["production"] == state(home).production
    concluded = tidewheel("explain", "quickstart-20260126-1", "--json", home=home).document
    assert concluded["outcome"] == decision
    store = Home.resolve(home, {}).store()
    assert store.get("assignments/quickstart/000003.json") is not None
    assert len(tidewheel("history", "--json", home=home).document) == 3
    assert tidewheel("reconcile", home=home).code == 0


def test_every_command_of_the_runbook_works_in_its_order(home: Path, bundles: tuple[str, str]) -> None:
    blocks = re.findall(r"```sh\n(.*?)```", RUNBOOK.read_text(encoding="utf-8"), re.DOTALL)
    commands = [shlex.split(line) for block in blocks for line in block.splitlines()]
    assert len(commands) == 9

    for program, *words in commands:
        ended = tidewheel(*[bundles[0] if word == "BUNDLE" else word for word in words], home=home)

        assert program == "tidewheel"
        assert ended.code == 0, ended.err


def kill_after_entry(home: Path, number: int) -> None:
    """Start a run, and end all its processes without warning once its entry is in the ledger."""
    process = subprocess.Popen([*PROGRAM, *RUN], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment(home))
    entry = home / "store" / "ledger" / "quickstart" / f"{number:06d}.json"
    deadline, children = time.monotonic() + PATIENCE_SECONDS, []
    while not entry.exists():
        assert time.monotonic() < deadline, "no decision"
        assert process.poll() is None, "it ended before it decided"
        children = psutil.Process(process.pid).children(recursive=True)
        time.sleep(0.005)
    process.send_signal(signal.SIGSTOP)  # first whoever would conclude it
    for child in children:
        with suppress(ProcessLookupError):
            os.kill(child.pid, signal.SIGKILL)
    process.kill()
    process.wait()
