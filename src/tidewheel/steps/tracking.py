"""The figures of every judged candidate in the registry: one run a candidate, beside the model's versions."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol, Self

from tidewheel.contracts.evidence import Evaluation
from tidewheel.errors import ContractError, TidewheelError
from tidewheel.evaluation.report.scalars import scalars
from tidewheel.steps.records import document
from tidewheel.store.store import Store


class Recorder(Protocol):
    """Keeps figures by run, once each however often it is asked. `record` does not wait; `unrecorded` does, and says why any
    of it was not kept, else nothing."""

    def record(self, run: str, tags: Mapping[str, str], figures: Mapping[str, float]) -> None: ...

    def unrecorded(self) -> str: ...


@dataclass(frozen=True)
class Judged:
    """A candidate and what `evaluate` found of it; None where the store has lost that."""

    run_id: str
    recipe: str
    bundle: str
    found: Evaluation | None

    @classmethod
    def of(cls, store: Store, run_id: str, recipe: str, bundle: str) -> Self:
        """From what `evaluate` of that run kept."""
        text = document(store, run_id, "evaluate", "evaluation")
        return cls(run_id, recipe, bundle, Evaluation.parse(text, "evaluate evaluation") if text is not None else None)

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
        if self.found is None:
            raise ContractError(f"run {self.run_id}: what evaluate found is not in the store")
        verdict = self.found.verdict.phase.value
        known = {"tidewheel.recipe": self.recipe, "tidewheel.bundle": self.bundle, "tidewheel.verdict": verdict}
        recorder.record(self.run_id, known | dict(tags), dict(scalars(self.found.metrics, self.found.comparison)))
