"""The harness of every step, driven with small work of its own."""

from __future__ import annotations

import errno
import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tidewheel.contracts.base import canonical_json
from tidewheel.contracts.dataset import DATASETS, DatasetManifest
from tidewheel.contracts.placement import Placed, StepPlacement
from tidewheel.contracts.report import Outcome, RunReport, StepRecord
from tidewheel.contracts.window import Window, parse_time
from tidewheel.errors import ConfigError, RejectedError, RetryableError, TidewheelError
from tidewheel.steps.job import Job, Result, run_step
from tidewheel.steps.records import document, put_record, put_report, records_of
from tidewheel.store import Home

WINDOW = Window.ending(parse_time("2026-01-12"), 7)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    monkeypatch.setenv("TIDEWHEEL_HOME", str(tmp_path / "home"))
    for name in ("TIDEWHEEL_STORE", "TIDEWHEEL_VERIFY", "TIDEWHEEL_RUN_ID", "MLFLOW_TRACKING_URI", "TIDEWHEEL_PLACED"):
        monkeypatch.delenv(name, raising=False)
    before = signal.getsignal(signal.SIGTERM)
    yield Home.resolve()
    signal.signal(signal.SIGTERM, before)


def publishing(calls: list[str]) -> Callable[[Job], Result]:
    """Work that publishes one small dataset, and notes that it was done."""

    def work(job: Job) -> Result:
        calls.append(job.run_id)
        folder = job.store.staging("rows")
        (folder / "part-0.parquet").write_text("rows")
        manifest = DatasetManifest(kind="train", window=WINDOW, rows=1, weight_sum=1.0, features=(), labels=())
        digest, manifest = job.store.publish(DATASETS, folder, manifest)
        return Result(documents={"train": manifest.to_json()}, folders={"train": f"{DATASETS}/{digest}"}, summary="1 row")

    return work


def step(
    run_id: str, work: Callable[[Job], Result], outputs: dict[str, str], key: object = "same", later_seconds: float = 0.0
) -> Result:
    reuse_key = None if key is None else lambda job: key
    return run_step("sample", run_id, "2026-01-12", {}, outputs, work, reuse_key, lambda: time.time() + later_seconds)


def record(home: Home, run_id: str) -> StepRecord:
    (found,) = records_of(home.store(), run_id)
    return found


def test_a_step_writes_its_outputs_its_record_and_its_events(home: Home, tmp_path: Path) -> None:
    step("one", publishing([]), {"train": str(tmp_path / "out" / "train")})

    manifest = DatasetManifest.read(tmp_path / "out" / "train")
    events = [json.loads(line)["event"] for line in (home.run("one") / "events.jsonl").read_text().splitlines()]
    assert (home.store().folder(DATASETS, manifest.digest) / "part-0.parquet").read_text() == "rows"
    assert record(home, "one").status == "succeeded"
    assert record(home, "one").summary == "1 row"
    assert events == ["started", "finished"]


def test_the_same_key_is_reused_and_says_so(home: Home) -> None:
    calls: list[str] = []
    first = step("one", publishing(calls), {})

    assert step("two", publishing(calls), {}) == first
    assert calls == ["one"]
    assert record(home, "two").reused
    assert document(home.store(), "two", "sample", "train") == first.documents["train"]


def test_another_key_is_work_again(home: Home) -> None:
    calls: list[str] = []
    step("one", publishing(calls), {}, key="a")
    step("two", publishing(calls), {}, key="b")

    assert calls == ["one", "two"]


def test_without_a_key_nothing_is_ever_reused(home: Home) -> None:
    calls: list[str] = []
    step("one", publishing(calls), {}, key=None)
    step("two", publishing(calls), {}, key=None)

    assert calls == ["one", "two"]


def test_a_result_whose_bytes_are_gone_is_not_believed(home: Home) -> None:
    calls: list[str] = []
    result = step("one", publishing(calls), {})
    (home.store().root / result.folders["train"] / "part-0.parquet").unlink()

    step("two", publishing(calls), {})

    assert calls == ["one", "two"]
    assert not record(home, "two").reused


def test_a_flipped_byte_is_found_when_every_digest_is_checked(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    result = step("one", publishing(calls), {})
    part = home.store().folder(*result.folders["train"].split("/")) / "part-0.parquet"
    part.write_text("rowz")
    monkeypatch.setenv("TIDEWHEEL_VERIFY", "full")

    step("two", publishing(calls), {})

    assert calls == ["one", "two"]
    assert part.read_text() == "rows"


def test_a_failed_step_gives_its_room_back_and_a_full_disk_is_for_whoever_runs_it(home: Home) -> None:
    def work(job: Job) -> Result:
        (job.store.staging("rows") / "part-0.parquet").write_text("rows")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(ConfigError, match="no room to write"):
        step("one", work, {})

    failed = record(home, "one")
    assert failed.failure is not None
    assert failed.failure.kind == "ConfigError"
    probe = home.store().staging("probe")
    assert list(probe.parent.iterdir()) == [probe]


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (RejectedError("no positives"), "RejectedError"),
        (ZeroDivisionError("oops"), "Bug"),
        (KeyboardInterrupt(), "Interrupted"),
    ],
)
def test_a_failure_is_recorded_by_who_must_act(home: Home, error: BaseException, kind: str) -> None:
    def work(job: Job) -> Result:
        raise error

    with pytest.raises(type(error)):
        step("one", work, {})

    failed = record(home, "one")
    assert failed.failure is not None
    assert failed.failure.kind == kind
    assert failed.status == ("interrupted" if kind == "Interrupted" else "failed")


def test_termination_interrupts_the_work(home: Home) -> None:
    def work(job: Job) -> Result:
        os.kill(os.getpid(), signal.SIGTERM)
        signal.sigtimedwait([], 5)
        raise AssertionError("the signal did not arrive")

    with pytest.raises(KeyboardInterrupt):
        step("one", work, {})

    assert record(home, "one").status == "interrupted"


def test_the_run_id_of_the_environment_wins(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIDEWHEEL_RUN_ID", "chosen")
    calls: list[str] = []

    step("from the orchestrator", publishing(calls), {})

    assert calls == ["chosen"]


@pytest.mark.parametrize("error", [RejectedError("no positives"), ZeroDivisionError("oops")])
def test_a_failure_that_another_try_cannot_change_comes_again_without_work(home: Home, error: Exception) -> None:
    tries = []

    def work(job: Job) -> Result:
        tries.append(job.run_id)
        raise error

    with pytest.raises(type(error)):
        step("one", work, {})
    first = record(home, "one")
    with pytest.raises(TidewheelError, match=first.failure.message if first.failure else ""):
        step("one", work, {})

    assert tries == ["one"]
    assert record(home, "one") == first, "who must act is still said"


def fails(error: BaseException) -> Callable[[Job], Result]:
    def work(job: Job) -> Result:
        raise error

    return work


# By hand: 30 s and 60 s between the three tries of a step, and two minutes for each of two pods to begin.
@pytest.mark.parametrize(("later_seconds", "is_believed"), [(320.0, True), (335.0, False)])
def test_a_failure_is_believed_while_retries_come_by_themselves(home: Home, later_seconds: float, is_believed: bool) -> None:
    with pytest.raises(RejectedError):
        step("one", fails(RejectedError("no positives")), {})
    calls: list[str] = []
    if is_believed:
        with pytest.raises(RejectedError, match="no positives"):
            step("one", publishing(calls), {}, later_seconds=later_seconds)
    else:
        step("one", publishing(calls), {}, later_seconds=later_seconds)

    assert calls == ([] if is_believed else ["one"])


def test_a_step_without_retries_is_tried_again_by_people_alone(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    placed = Placed(step=StepPlacement(retries=0))
    monkeypatch.setenv("TIDEWHEEL_PLACED", canonical_json(placed.model_dump(mode="json")))
    with pytest.raises(RejectedError):
        step("one", fails(RejectedError("no positives")), {})
    calls: list[str] = []
    step("one", publishing(calls), {}, later_seconds=1.0)

    assert calls == ["one"]


def test_a_run_that_had_ended_is_tried_again_by_a_person_who_mended_something(home: Home) -> None:
    with pytest.raises(ConfigError):
        step("one", fails(ConfigError("the Secret is wrong")), {})
    put_report(home.store("one"), report(record(home, "one")), {})
    calls: list[str] = []
    step("one", publishing(calls), {})

    assert calls == ["one"]


def test_a_failure_after_that_is_believed_again(home: Home) -> None:
    with pytest.raises(ConfigError):
        step("one", fails(ConfigError("the Secret is wrong")), {})
    put_report(home.store("one"), report(record(home, "one")), {})
    with pytest.raises(ConfigError):
        step("one", fails(ConfigError("the Secret is still wrong")), {})
    calls: list[str] = []
    with pytest.raises(ConfigError, match="still wrong"):
        step("one", publishing(calls), {})

    assert calls == []


def report(*steps: StepRecord) -> RunReport:
    return RunReport(
        run_id="one", recipe="shop", recipe_digest="r", window=WINDOW, outcome=Outcome.FAILED, reason="why", steps=steps
    )


def test_a_step_says_what_it_used(home: Home) -> None:
    step("one", publishing([]), {})

    found = record(home, "one")
    assert found.memory_bytes is None, "nothing limits it here"
    assert (found.peak_memory_bytes or 0) > 2**20


@pytest.mark.parametrize("error", [RetryableError("the store does not answer"), KeyboardInterrupt()])
def test_what_may_end_otherwise_is_worked_on_again(home: Home, error: BaseException, tmp_path: Path) -> None:
    def work(job: Job) -> Result:
        raise error

    with pytest.raises(type(error)):
        step("one", work, {})
    calls: list[str] = []
    step("one", publishing(calls), {"train": str(tmp_path / "train")})

    assert calls == ["one"]
    assert record(home, "one").status == "succeeded"


def test_a_step_that_was_killed_is_worked_on_again(home: Home, tmp_path: Path) -> None:
    calls: list[str] = []
    step("one", publishing(calls), {"train": str(tmp_path / "train")}, key=None)
    put_record(home.store(), "one", record(home, "one").model_copy(update={"status": "running"}))

    step("one", publishing(calls), {"train": str(tmp_path / "train")}, key=None)

    assert calls == ["one", "one"]
