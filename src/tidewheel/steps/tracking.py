"""The figures of every judged candidate in the registry: one run a candidate, beside the model's versions."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol

from tidewheel.contracts.evidence import Evaluation
from tidewheel.errors import TidewheelError
from tidewheel.evaluation.scalars import scalars


class Recorder(Protocol):
    """Keeps figures by run, once each however often it is asked. `record` does not wait; `unrecorded` does, and says why any
    of it was not kept, else nothing."""

    def record(self, run: str, tags: Mapping[str, str], figures: Mapping[str, float]) -> None: ...

    def unrecorded(self) -> str: ...


@dataclass(frozen=True)
class Judged:
    """A candidate and what `evaluate` found of it."""

    run_id: str
    recipe: str
    bundle: str
    found: Evaluation

    def announce(self, recorder: Recorder) -> None:
        """Let it begin while there is other work; `conclude` says what failed."""
        with suppress(TidewheelError):
            self._record(recorder, {})

    def conclude(self, recorder: Recorder, outcome: str) -> str:
        """Have it kept with its outcome and wait; why it was not, else an empty text. Nothing is decided by it."""
        try:
            self._record(recorder, {"tidewheel.outcome": outcome})
            failed = recorder.unrecorded()
        except TidewheelError as error:
            failed = str(error)
        return f"figures not recorded: {failed}" if failed else ""

    def _record(self, recorder: Recorder, tags: Mapping[str, str]) -> None:
        verdict = self.found.verdict.phase.value
        known = {"tidewheel.recipe": self.recipe, "tidewheel.bundle": self.bundle, "tidewheel.verdict": verdict}
        recorder.record(self.run_id, known | dict(tags), dict(scalars(self.found.metrics, self.found.comparison)))
