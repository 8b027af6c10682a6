"""What every step shares: inputs and outputs as manifests, reuse, progress events, one record of how it ended."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from types import FrameType
from typing import TypeVar

import psutil

from tidewheel import __version__
from tidewheel.contracts.base import Contract, digest_of
from tidewheel.contracts.dataset import DATASETS, DatasetManifest
from tidewheel.contracts.placement import Placed, StepPlacement, retrying_seconds
from tidewheel.contracts.report import StepFailure, StepRecord
from tidewheel.contracts.window import parse_time
from tidewheel.errors import KINDS, ContractError, TidewheelError
from tidewheel.pods.beside import is_beside
from tidewheel.steps.beside import MADE, Again, work_beside
from tidewheel.steps.memory import StepMemory
from tidewheel.steps.records import put_document, put_record, record_of, report_of
from tidewheel.steps.shown import show_run
from tidewheel.store.disk import room_in
from tidewheel.store.home import RUN_VARIABLE, Home
from tidewheel.store.settings import take_settings
from tidewheel.store.store import Store

C = TypeVar("C", bound=Contract)


class Result(Contract):
    """What a step made: documents (JSON text of contracts) by output name, and the folders they describe.

    `folders` maps an output to `<kind>/<digest>` in the store; reuse is believed only while all of them are intact.
    """

    documents: dict[str, str]
    folders: dict[str, str] = {}
    summary: str = ""


@dataclass
class Job:
    """One step of one run: where it reads, writes and reports."""

    step: str
    run_id: str
    window_end: datetime
    home: Home
    store: Store
    inputs: Mapping[str, str]
    _overhead_seconds: float = 0.0
    _last_event: float = field(default=0.0, repr=False)

    @cached_property
    def memory(self) -> StepMemory:
        """Of this try, and of the pods that it starts."""
        return StepMemory.of(self.store, self.step, os.environ, self.say)

    @property
    def folder(self) -> Path:
        return self.home.run(self.run_id)

    def input(self, name: str, contract: type[C]) -> C:
        """The manifest that an upstream step handed over.

        Raises:
            ContractError: it is not what the contract says.
        """
        return contract.read(Path(self.inputs[name]))

    def dataset(self, name: str) -> tuple[Path, DatasetManifest]:
        """An input dataset: its folder, checked for completeness, and its manifest.

        Raises:
            ContractError: a file of it is missing or has another size.
        """
        digest = self.input(name, DatasetManifest).digest
        return self.store.load(DATASETS, digest, DatasetManifest)

    def input_digests(self) -> dict[str, str]:
        """Input name -> digest of its manifest: what a pure step's result depends on, beside its config."""
        return {name: hashlib.sha256(Path(path).read_bytes()).hexdigest() for name, path in self.inputs.items()}

    def keep(self, name: str, contract: Contract) -> None:
        """Keep a document for the report although the step is about to fail."""
        put_document(self.store, self.run_id, self.step, name, contract.to_json())

    def progress(self, share: float, words: str) -> None:
        """Tell how far the step is; at most ten events a second are written."""
        now = time.monotonic()
        if now - self._last_event >= 0.1 or share >= 1.0:
            self._last_event = now
            self.event("progress", share=round(min(max(share, 0.0), 1.0), 3), words=words)

    def event(self, kind: str, **details: object) -> None:
        """Append one line to the run's `events.jsonl`, which `tidewheel run` follows."""
        line = json.dumps({"time": time.time(), "step": self.step, "event": kind, **details})
        with (self.folder / "events.jsonl").open("a", encoding="utf-8") as stream:
            stream.write(line + "\n")

    def say(self, words: str) -> None:
        """Tell what people should know of this try, where its log is read and where the run is followed."""
        print(f"tidewheel: {self.step}: {words}", file=sys.stderr)
        self.event("said", words=words)

    @contextmanager
    def overhead(self) -> Iterator[None]:
        """Time spent inside is start-up or bookkeeping, not work: engines starting, imports, manifests."""
        started = time.monotonic()
        try:
            yield
        finally:
            self._overhead_seconds += time.monotonic() - started

    def record(self, record: StepRecord) -> None:
        put_record(self.store, self.run_id, record)
        show_run(self.store, self.run_id, self.window_end)


Work = Callable[[Job], Result]


def run_step(
    step: str,
    run_id: str,
    window_end: str,
    inputs: Mapping[str, str],
    outputs: Mapping[str, str],
    work: Work,
    reuse_key: Callable[[Job], object] | None,
    now: Callable[[], float] = time.time,
    again: Again | None = None,
) -> Result:
    """Run `work`, or reuse what an earlier run made from the same key, and write its documents to `outputs`.

    Args:
        run_id: what the orchestrator calls this run; `$TIDEWHEEL_RUN_ID` wins.
        inputs: input name -> path of a manifest.
        outputs: output name -> path to write the manifest to.
        reuse_key: everything the result depends on beside the version of this code, as JSON data; None: never reuse.
        now: seconds since the epoch.
        again: how another pod calls this step; None: its work stays in this one.

    A step that this run tried before, and that failed of something that another try cannot change, fails of it again at once,
    unless it is a person who tries it again. One that was killed because its memory was not enough gets more (steps/memory.py).

    Raises:
        TidewheelError: as `work` does; the record says why, and the exit code of the run follows from it.
    """
    started = _process_start()
    take_settings(os.environ)
    home = Home.resolve()
    run_id = os.environ.get(RUN_VARIABLE) or run_id
    job = Job(step, run_id, parse_time(window_end), home, home.store(run_id), inputs)
    job.folder.mkdir(parents=True, exist_ok=True)
    memory = job.memory
    if not memory.was_killed:
        _expect_retryable(job, now())
    record = StepRecord(
        name=step, status="running", started=datetime.fromtimestamp(started, UTC), memory_bytes=memory.given_bytes
    )
    job.record(record)
    job.event("started")
    signal.signal(signal.SIGTERM, _interrupt)
    job._overhead_seconds = time.time() - started
    try:
        with job.overhead():
            if memory.climb(can_leave=again is not None):
                record = record.model_copy(update={"memory_bytes": memory.given_bytes})
                job.record(record)
        if again is not None and memory.beside_bytes:
            result = Result.parse(work_beside(job, again, outputs), step)  # whose record says how it ended
            _write(job, result, outputs)
            job.event("finished", seconds=time.time() - started, reused=False, words=result.summary)
            return result
        with room_in(home.root), memory.watched():
            result, reused = _work_or_reuse(job, work, reuse_key)
        with job.overhead():
            _write(job, result, outputs)
            if is_beside(os.environ):
                put_document(job.store, job.run_id, job.step, MADE, result.to_json())
            if not reused:
                memory.ended_well()
    except BaseException as error:
        job.store.abandon()  # on a full disk this is what makes room to say so
        seconds, failure = time.time() - started, _failure(error)
        status = "interrupted" if isinstance(error, KeyboardInterrupt) else "failed"
        ended = {"status": status, "seconds": seconds, "failure": failure, "peak_memory_bytes": memory.peak_bytes}
        job.record(record.model_copy(update=ended))
        job.event(status, seconds=seconds, words=failure.message)
        raise
    seconds = time.time() - started
    ended = {
        "status": "succeeded",
        "seconds": seconds,
        "overhead_seconds": seconds if reused else min(job._overhead_seconds, seconds),
        "reused": reused,
        "summary": result.summary,
        "peak_memory_bytes": memory.peak_bytes,
    }
    job.record(record.model_copy(update=ended))
    job.event("finished", seconds=seconds, reused=reused, words=result.summary)
    return result


def _write(job: Job, result: Result, outputs: Mapping[str, str]) -> None:
    """Hand the documents to the orchestrator, and keep them for whoever asks about the run."""
    for name, path in outputs.items():
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_text(result.documents[name], encoding="utf-8")
    for name, text in result.documents.items():
        put_document(job.store, job.run_id, job.step, name, text)


def _expect_retryable(job: Job, now: float) -> None:
    """Fail at once as the try before this one did, if another cannot end otherwise: orchestrators try everything again.

    A step that was killed or interrupted left no failure of its own, and is worth another try. So is one that a person tries
    again, who has seen the failure: its run had ended with it, or it is older than retries are that come by themselves.
    """
    earlier = record_of(job.store, job.run_id, job.step)
    if earlier is None or earlier.status != "failed" or earlier.failure is None:
        return
    report = report_of(job.store, job.run_id)
    if report is not None and earlier in report.steps:
        return
    placed = Placed.of(os.environ)
    retries = (placed.step if placed is not None else StepPlacement()).retries
    if now - earlier.started.timestamp() - earlier.seconds > retrying_seconds(retries):
        return
    kind = KINDS.get(earlier.failure.kind, TidewheelError)  # a bug has no kind
    if not kind.is_retryable:
        raise kind(earlier.failure.message)


def _work_or_reuse(job: Job, work: Work, reuse_key: Callable[[Job], object] | None) -> tuple[Result, bool]:
    if reuse_key is None:
        return work(job), False
    key = reuse_key(job)  # not overhead: ingest lets the built-in world live up to its window here
    with job.overhead():
        name = f"reuse/{job.step}/{digest_of({'version': __version__, 'key': key})}.json"
        earlier = _reusable(job.store, name)
    if earlier is not None:
        return earlier, True
    result = work(job)
    with job.overhead():
        job.store.put(name, result.to_json())
    return result, False


def _reusable(store: Store, name: str) -> Result | None:
    """The earlier result, unless a folder it made is gone or damaged: bytes are checked, never believed."""
    text = store.get(name)
    if text is None:
        return None
    try:
        result = Result.parse(text, name)
        for folder in result.folders.values():
            kind, digest = folder.split("/")
            store.verify(kind, digest)
    except ContractError:
        return None
    return result


def _failure(error: BaseException) -> StepFailure:
    if isinstance(error, TidewheelError):
        return StepFailure(kind=type(error).__name__, message=str(error))
    if isinstance(error, KeyboardInterrupt):
        return StepFailure(kind="Interrupted", message="interrupted")
    last = traceback.extract_tb(error.__traceback__)[-1]
    place = f"{Path(last.filename).name}:{last.lineno}"
    return StepFailure(kind="Bug", message=f"{type(error).__name__} at {place}: {error}")


def _process_start() -> float:
    """When this process began, seconds since the epoch: its imports belong to the step's overhead."""
    stat = Path("/proc/self/stat")
    if not stat.exists():
        return psutil.Process().create_time()
    # psutil adds ticks since boot to a boot time in whole seconds; the clock since boot itself is exact to a tick.
    ticks = int(stat.read_text().rsplit(")", 1)[1].split()[19])
    age = time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")
    return time.time() - age


def _interrupt(signum: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt
