"""Leads a canary through its journal: whoever starts again, wherever the last one was killed, comes to the same end."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from tidewheel.contracts.progress import Progress, silent
from tidewheel.contracts.recipe import CanaryStep
from tidewheel.contracts.rollout import CanaryBatch, CanaryRecord
from tidewheel.contracts.verdict import Phase
from tidewheel.errors import RetryableError
from tidewheel.rollout.canary import Canary
from tidewheel.store import Store
from tidewheel.store.records import name_of, read_all

JOURNALS = "canaries"  # folder of the store


class Source(Protocol):
    """Where evidence comes from: traffic split by user between servers that run, of which batches are taken."""

    def observe(self, step: CanaryStep) -> CanaryBatch:
        """The next batch at the step's share. What breaks is a batch with a `fault`, not an exception."""

    def skip(self, step: CanaryStep) -> None:
        """Pass over a batch that an earlier controller took, so that the next one is what it would have been."""


class Journal(Protocol):
    """The batches of one canary, in order."""

    def lead(self) -> Sequence[CanaryBatch]:
        """Take the lead from whoever has it; returns what was written so far."""

    def append(self, batch: CanaryBatch) -> None:
        """Write the next batch.

        Raises:
            RetryableError: another controller took the lead; the batch is not part of the canary.
        """


class MemoryJournal:
    """A journal that ends with its process: for a dry run, and where nothing outlives it."""

    def __init__(self) -> None:
        self._batches: list[CanaryBatch] = []

    def lead(self) -> Sequence[CanaryBatch]:
        return tuple(self._batches)

    def append(self, batch: CanaryBatch) -> None:
        self._batches.append(batch)


class StoredJournal:
    """Numbered records in the store, each created exactly once. Taking the lead is a record too: of two controllers the older
    finds its next number taken, and stops."""

    def __init__(self, store: Store, canary: str, controller: str) -> None:
        """
        Args:
            canary: identifies what is compared with what under which plan; one journal each.
            controller: names this process to people.
        """
        self._store = store
        self._folder = f"{JOURNALS}/{canary}"
        self._controller = controller
        self._number = 0

    def lead(self) -> Sequence[CanaryBatch]:
        """As `Journal.lead`.

        Raises:
            ContractError: the journal is damaged.
            RetryableError: another controller took the lead at this moment.
        """
        records = read_all(self._store, self._folder, CanaryRecord, "canary")
        self._number = len(records)
        self._write(None)
        return [record.batch for record in records if record.batch is not None]

    def append(self, batch: CanaryBatch) -> None:
        self._write(batch)

    def _write(self, batch: CanaryBatch | None) -> None:
        record = CanaryRecord(number=self._number + 1, controller=self._controller, batch=batch)
        name = name_of(self._folder, record.number)
        if not self._store.create(name, record.to_json() + "\n"):
            other = CanaryRecord.parse(self._store.get(name) or "", name).controller
            raise RetryableError(f"canary: {other} took the lead at record {record.number}; {self._controller} stops")
        self._number = record.number


class Controller:
    """Asks the source for batch after batch and writes each down before it counts."""

    def __init__(self, canary: Canary, journal: Journal, progress: Progress = silent) -> None:
        """Take the lead, and see again what was seen before.

        Raises:
            RetryableError: another controller took the lead at this moment.
        """
        self._canary = canary
        self._journal = journal
        self._progress = progress
        self._passed: list[CanaryStep] = []
        for batch in journal.lead():
            if canary.step is not None:
                self._passed.append(canary.step)
                canary.add(batch)

    @property
    def has_ended(self) -> bool:
        return self._canary.step is None

    def resume(self, source: Source) -> None:
        """Bring a fresh source to where the journal ends."""
        for step in self._passed:
            source.skip(step)

    def advance(self, source: Source) -> None:
        """One batch: observed, written down, looked at.

        Raises:
            RetryableError: another controller leads; what it writes is the canary.
        """
        step = self._canary.step
        assert step is not None, "the canary has ended"
        batch = source.observe(step)
        self._journal.append(batch)
        phase = self._canary.add(batch)
        done = min(self._canary.progress().requests / step.min_requests, 1.0) if phase is Phase.RUNNING else 1.0
        number, steps = self._canary.number, len(self._canary.steps)
        self._progress((number - 1 + done) / steps, f"step {number}/{steps}: {self._canary.words()}")
