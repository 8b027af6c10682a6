"""A Kubeflow Pipelines backend in memory, which can die before or after the effect of any call."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import TypeVar

from tidewheel.cluster.backend import Order, RecurringRun, Version

T = TypeVar("T")
BEGINNING = datetime(2026, 1, 1, tzinfo=UTC)


class Killed(BaseException):
    """The executor's process ends here."""


@dataclass
class BackendInMemory:
    """Keeps what it is told. `calls` names every call; `killed_runs` the recurring runs that were deleted with a run in flight.

    `watch` is called after every effect. `dies_at` counts calls from 0: the process dies there, before the effect, or
    after it with `dies_after_effect`.
    """

    runs: dict[str, RecurringRun] = field(default_factory=dict)
    busy: set[str] = field(default_factory=set)
    versions: dict[tuple[str, str], Version] = field(default_factory=dict)
    calls: list[str] = field(default_factory=list)
    killed_runs: list[str] = field(default_factory=list)
    watch: Callable[[], None] = lambda: None
    dies_at: int = -1
    dies_after_effect: bool = False
    _made: int = 0

    def upload(self, recipe: str, pipeline: bytes) -> Version:
        digest = hashlib.sha256(pipeline).hexdigest()

        def effect() -> Version:
            return self.versions.setdefault((recipe, digest), Version(f"pipeline {recipe}", f"version {digest[:8]}"))

        return self._call("upload", effect)

    def experiment(self, recipe: str) -> str:
        return self._call("experiment", lambda: f"experiment {recipe}")

    def recurring_runs(self) -> list[RecurringRun]:
        return self._call("list", lambda: list(self.runs.values()))

    def create_recurring_run(self, order: Order, cron: str, *, is_enabled: bool) -> str:
        def effect() -> str:
            self._made += 1
            made = f"r{self._made}"
            born = BEGINNING + timedelta(seconds=self._made)
            self.runs[made] = RecurringRun(made, order.title, order.description, cron, order.parameters, is_enabled, born)
            return made

        return self._call("create", effect)

    def enable(self, recurring_run_id: str) -> None:
        self._call("enable", lambda: self._set(recurring_run_id, True))

    def disable(self, recurring_run_id: str) -> None:
        self._call("disable", lambda: self._set(recurring_run_id, False))

    def delete_recurring_run(self, recurring_run_id: str) -> None:
        def effect() -> None:
            if recurring_run_id in self.busy:
                self.killed_runs.append(recurring_run_id)
            self.runs.pop(recurring_run_id, None)

        self._call("delete", effect)

    def in_flight(self) -> set[str]:
        return self._call("in_flight", lambda: set(self.busy))

    def enabled(self, name: str) -> list[str]:
        return [each.id for each in self.runs.values() if each.title == f"tidewheel-{name}" and each.is_enabled]

    def _set(self, recurring_run_id: str, is_enabled: bool) -> None:
        if recurring_run_id in self.runs:
            self.runs[recurring_run_id] = replace(self.runs[recurring_run_id], is_enabled=is_enabled)

    def _call(self, name: str, effect: Callable[[], T]) -> T:
        is_last = len(self.calls) == self.dies_at
        if is_last and not self.dies_after_effect:
            raise Killed(name)
        self.calls.append(name)
        result = effect()
        self.watch()
        if is_last:
            raise Killed(name)
        return result
