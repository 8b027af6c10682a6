"""A step for tests of second pods: `python -m tidewheel.steps.beside tests.unit.steps.beside_step:main …` calls it."""

import os
from pathlib import Path

from tidewheel.errors import ContractError
from tidewheel.steps.beside import Again
from tidewheel.steps.job import Job, Result, run_step


def main(run_id: str, window_end: str, inputs: dict[str, str], outputs: dict[str, str], kind: str, is_dry: bool) -> None:
    def work(job: Job) -> Result:
        if kind == "fail":
            raise ContractError("the data is not what it should be")
        if kind == "vanish":
            os._exit(137)
        said = f"{kind} {is_dry} {Path(job.inputs['found']).read_text(encoding='utf-8')}"
        return Result(documents={"made": said}, summary=f"{kind} in a second pod")

    again = Again(entry="tests.unit.steps.beside_step:main", arguments={"kind": kind, "is_dry": is_dry})
    run_step("train", run_id, window_end, inputs, outputs, work, None, again=again)
