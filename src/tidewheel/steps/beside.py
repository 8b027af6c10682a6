"""The work of a step in a second pod: what is handed to it, and what it hands back; both lie with the run's documents."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from tidewheel.contracts.base import Contract
from tidewheel.errors import KINDS, RetryableError, TidewheelError
from tidewheel.pods.beside import run_beside, words_of
from tidewheel.pods.ladder import shown
from tidewheel.pods.memory import killed_bytes
from tidewheel.steps.records import document, put_document, record_of
from tidewheel.store.home import Home
from tidewheel.store.settings import take_settings

if TYPE_CHECKING:
    from tidewheel.steps.job import Job

HANDED, MADE = "handed", "made"  # names that no output of a step has


class Again(Contract):
    """How a step is called once more: the function of a module that takes `arguments` beside what every step takes."""

    entry: str
    arguments: dict[str, str | bool]


class Handed(Contract):
    """What the second pod needs: the documents behind the inputs, by name, and which outputs are wanted."""

    window_end: str
    inputs: dict[str, str]
    outputs: tuple[str, ...]
    arguments: dict[str, str | bool]


def work_beside(job: Job, again: Again, outputs: Mapping[str, str]) -> str:
    """Have the step done in a second pod with as much memory as `job.memory` says; its result, once it has ended well.

    Raises:
        TidewheelError: as the step itself does; RetryableError where its pod was lost or its memory was not enough.
    """
    handed = Handed(
        window_end=job.window_end.isoformat(),
        inputs={name: Path(path).read_text(encoding="utf-8") for name, path in job.inputs.items()},
        outputs=tuple(outputs),
        arguments=again.arguments,
    )
    put_document(job.store, job.run_id, job.step, HANDED, handed.to_json())
    command = [sys.executable, "-m", "tidewheel.steps.beside", again.entry, job.run_id, job.step]
    job.say(f"memory: {shown(job.memory.beside_bytes)} in a second pod; Kueue let this one in with what it has")
    found = run_beside(*job.memory.second_pod(job.run_id, command), job.say)
    if killed := killed_bytes([found]):
        job.memory.killed_beside(killed)
        raise RetryableError(f"{words_of(found)}: {shown(killed)} of memory was not enough; the next try gives more")
    made = document(job.store, job.run_id, job.step, MADE)
    if found["status"]["phase"] == "Succeeded" and made is not None:
        return made
    record = record_of(job.store, job.run_id, job.step)
    if record is not None and record.status == "failed" and record.failure is not None:
        raise KINDS.get(record.failure.kind, TidewheelError)(record.failure.message)
    raise RetryableError(f"the pod of the step's work was lost: {words_of(found)}")


def main(entry: str, run_id: str, step: str) -> None:
    """In the second pod: call the step as the first one was called."""
    take_settings(os.environ)
    text = document(Home.resolve().store(run_id), run_id, step, HANDED)
    if text is None:
        raise RetryableError(f"{step} of {run_id}: nothing was handed over; run again")
    handed = Handed.parse(text, f"{step} of {run_id}")
    module, _, name = entry.partition(":")
    with TemporaryDirectory(prefix="handed-") as folder:
        inputs = {each: str(Path(folder) / f"{each}.json") for each in handed.inputs}
        for each, path in inputs.items():
            Path(path).write_text(handed.inputs[each], encoding="utf-8")
        outputs = {each: str(Path(folder) / "outputs" / each) for each in handed.outputs}
        getattr(import_module(module), name)(
            run_id=run_id,
            window_end=handed.window_end,
            inputs=inputs,
            outputs=outputs,
            **handed.arguments,
        )


if __name__ == "__main__":
    main(*sys.argv[1:])
