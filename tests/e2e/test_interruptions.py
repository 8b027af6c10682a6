"""Stopped at any moment: nothing half-published, production still served, and the next run works."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import psutil
import pytest

from tests.e2e.command import PROGRAM, QUICKSTART, SMALL, Ended, environment, settings, tidewheel

pytestmark = pytest.mark.slow

RUN = ["run", "--recipe", str(QUICKSTART), *settings(*SMALL)]
PATIENCE_SECONDS = 300  # on a busy machine; a quiet one needs seconds


@pytest.fixture(scope="module")
def released(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with a first release."""
    home = tmp_path_factory.mktemp("released") / "home"
    ended = tidewheel(*RUN, "--require", "bootstrap", home=home)
    assert ended.code == 0, ended.err
    return home


@pytest.fixture
def home(released: Path, tmp_path: Path) -> Path:
    """A copy of that home, to be damaged."""
    shutil.copytree(released, tmp_path / "home", symlinks=True)
    return tmp_path / "home"


def production(home: Path) -> str:
    return tidewheel("status", "--json", home=home).document["production"]["quickstart"]


def interrupt(home: Path, step: str, number: signal.Signals) -> tuple[int, str, set[int]]:
    """Start a run, signal it once `step` has begun; exit code, stderr, and every process it had started."""
    before = set(home.glob("runs/*"))
    process = subprocess.Popen(
        [*PROGRAM, *RUN], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=environment(home)
    )
    seen: set[int] = set()
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        seen |= {child.pid for child in psutil.Process(process.pid).children(recursive=True)}
        for run in set(home.glob("runs/*")) - before:
            events = run / "events.jsonl"
            if events.exists() and any(_starts(line, step) for line in events.read_text().splitlines()):
                seen |= {child.pid for child in psutil.Process(process.pid).children(recursive=True)}
                process.send_signal(number)
                _, err = process.communicate(timeout=PATIENCE_SECONDS)
                return process.returncode, err, seen
        time.sleep(0.02)
    process.kill()
    raise AssertionError(f"{step} did not begin: {process.communicate()[1]}")


def _starts(line: str, step: str) -> bool:
    event = json.loads(line)
    return event["step"] == step and event["event"] == "started"


def running(pids: set[int]) -> set[int]:
    return {pid for pid in pids if psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("step", ["sample", "deploy"])
def test_an_interrupted_run_leaves_production_and_no_process(home: Path, step: str, number: signal.Signals) -> None:
    before, ledger = production(home), sorted(home.glob("store/ledger/**/*.json"))

    code, err, pids = interrupt(home, step, number)

    assert code == 1
    assert "interrupted" in err
    assert "Traceback" not in err
    assert running(pids) == set()
    assert production(home) == before
    assert sorted(home.glob("store/ledger/**/*.json")) == ledger
    latest = tidewheel("explain", "--json", home=home).document
    assert latest["outcome"] == "failed"
    assert "interrupted" in latest["reason"] or "killed" in latest["reason"]


def test_the_run_after_an_interruption_reuses_what_was_finished_and_says_so(home: Path) -> None:
    interrupt(home, "distill", signal.SIGTERM)

    ended = tidewheel(*RUN, "--json", home=home)

    reused = {step["name"]: step["reused"] for step in ended.document["steps"]}
    assert ended.code == 0, ended.err
    assert ended.document["outcome"] in ("promoted", "rolled_back", "rejected")
    assert all(reused[name] for name in ("ingest", "sample", "validate_data", "train"))
    assert "reused" in ended.err


def test_a_pipeline_killed_without_warning_is_concluded_and_its_canary_goes_on_where_it_was(home: Path) -> None:
    before, led = production(home), set(home.glob("store/canaries/*/*"))
    run = [*RUN, *settings("deploy.batch_requests=40")]
    process = subprocess.Popen([*PROGRAM, *run], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment(home))
    deadline, servers, records = time.monotonic() + PATIENCE_SECONDS, [], []
    while time.monotonic() < deadline and len(records) < 3:  # its lead and two batches
        records = [path for canary in set(home.glob("store/canaries/*/*")) - led for path in sorted(canary.glob("*.json"))]
        time.sleep(0.01)
    children = psutil.Process(process.pid).children(recursive=True)
    servers = [child for child in children if "tidewheel.serving" in _command(child)]
    assert len(servers) == 2
    steps = [child for child in psutil.Process(process.pid).children(recursive=True) if "executor_main" in _command(child)]

    for step in steps:
        os.kill(step.pid, signal.SIGKILL)
    code = process.wait(PATIENCE_SECONDS)

    _, alive = psutil.wait_procs(servers, timeout=30)
    assert code == 1
    assert alive == []
    assert production(home) == before

    ended = tidewheel(*run, "--json", home=home)

    assert ended.document["outcome"] in ("promoted", "rolled_back"), ended.err
    (canary,) = set(home.glob("store/canaries/*/*")) - led
    journal = [json.loads(path.read_text()) for path in sorted(canary.glob("*.json"))]
    leads = [record["number"] for record in journal if record["batch"] is None]
    assert leads[0] == 1
    assert len(leads) == 2
    assert leads[1] > len(records)
    seen = sum(step["looks"] for step in json.loads(_canary_of(home, ended))["steps"])
    assert seen == len(journal) - len(leads)  # batches of the killed process count, too


def _canary_of(home: Path, ended: Ended) -> str:
    return (home / "store/documents" / ended.document["run_id"] / "deploy.canary.json").read_text()


def _command(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))


def refuses(ended: Ended, file: str) -> None:
    said = ended.err + ended.out
    assert ended.code == 3, said
    assert file in said
    assert "Traceback" not in said


def test_one_flipped_byte_of_production_is_refused_by_server_and_by_the_next_run(home: Path) -> None:
    digest = production(home)
    flip(home / "store" / "bundles" / digest / "ranker" / "weights.safetensors")
    ledger = sorted(home.glob("store/ledger/**/*.json"))

    refuses(tidewheel("serve", "--port", "0", home=home), "weights.safetensors")
    refuses(tidewheel(*RUN, home=home), "weights.safetensors")
    assert sorted(home.glob("store/ledger/**/*.json")) == ledger


def test_a_dataset_deleted_behind_its_back_is_rebuilt_not_believed(home: Path) -> None:
    digest = tidewheel("explain", "--json", home=home).document["datasets"]["train"]["digest"]
    folder = home / "store" / "datasets" / digest
    for part in folder.glob("*.parquet"):
        part.unlink()

    ended = tidewheel(*RUN, "--window-end", "2026-01-12", "--dry-run", "--json", home=home)

    reused = {step["name"]: step["reused"] for step in ended.document["steps"]}
    assert ended.code == 0, ended.err
    assert reused["ingest"]
    assert not reused["sample"]
    assert ended.document["datasets"]["train"]["digest"] == digest
    assert list(folder.glob("*.parquet"))


def test_a_rejected_candidate_ends_green_and_stands_in_the_ledger(home: Path) -> None:
    before = production(home)

    ended = tidewheel(*RUN, *settings("evaluate.min_auc={click: 0.99}"), "--json", home=home)

    assert ended.code == 0, ended.err
    assert ended.document["outcome"] == "rejected"
    assert "0.99" in ended.document["reason"]
    assert ended.document["verdicts"]["evaluate"]["phase"] == "Failed"
    assert production(home) == before
    assert tidewheel("history", "--json", home=home).document[-1]["decision"] == "rejected"


def test_drifted_data_stops_the_run_with_production_untouched(home: Path) -> None:
    before = production(home)

    ended = tidewheel(
        *RUN, *settings("validate_data.max_psi=0.000001", "validate_data.unchecked_drift=[]"), "--json", home=home
    )

    assert ended.code == 3
    assert ended.document["outcome"] == "data_rejected"
    assert ended.document["verdicts"]["validate_data"]["phase"] == "Failed"
    assert [step["name"] for step in ended.document["steps"]][-1] == "validate_data"
    assert production(home) == before
    assert len(tidewheel("history", "--json", home=home).document) == 1


def test_a_simulation_goes_on_where_it_stopped_and_a_finished_one_is_kept_aside(home: Path) -> None:
    simulate = ["simulate", "--recipe", str(QUICKSTART), *settings(*SMALL)]

    second = tidewheel(*simulate, "--turns", "2", home=home)
    again = tidewheel(*simulate, "--turns", "1", home=home)

    assert second.code == 0, second.err
    assert "turn 1 of 2: decided before: bootstrap" in second.err
    assert again.code == 0, again.err
    assert "kept as home.1" in again.err
    assert len(list((home.parent / "home.1" / "runs").iterdir())) == 2
    assert len(list((home / "runs").iterdir())) == 1
