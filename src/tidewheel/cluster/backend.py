"""What submitted and recurring runs need of a Kubeflow Pipelines backend; `kubeflow.py` is the real one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

Parameters = Mapping[str, str | bool]
MAX_CONCURRENCY = 1  # a schedule never overtakes itself


@dataclass(frozen=True)
class Version:
    """A compiled pipeline that the backend has."""

    pipeline_id: str
    version_id: str


@dataclass(frozen=True)
class Order:
    """What shall run: a version of a pipeline with parameters, in an experiment, its pods as a service account."""

    title: str
    description: str
    version: Version
    experiment_id: str
    parameters: Parameters
    service_account: str


@dataclass(frozen=True)
class RecurringRun:
    """A recurring run as the backend has it."""

    id: str
    title: str
    description: str
    cron: str
    parameters: Parameters
    is_enabled: bool
    created_at: datetime
    is_ours: bool = True  # one run at a time, none made up for: as tidewheel makes them


@dataclass(frozen=True)
class TaskState:
    """One task of a run, e.g. `ingest SUCCEEDED`."""

    name: str
    state: str
    seconds: float | None


@dataclass(frozen=True)
class RunState:
    """How far a run is. `state` is the backend's: PENDING RUNNING SUCCEEDED FAILED CANCELED …"""

    id: str
    state: str
    tasks: tuple[TaskState, ...]
    error: str = ""


class Recurring(Protocol):
    """The calls that keep schedules; each is one request or a few, and may raise ConfigError or RetryableError."""

    def upload(self, recipe: str, pipeline: bytes) -> Version:
        """The version of this YAML under its digest, made when it is not there. Idempotent."""
        ...

    def experiment(self, recipe: str) -> str:
        """Id of the recipe's experiment, made when it is not there. Idempotent."""
        ...

    def recurring_runs(self) -> list[RecurringRun]:
        """All that the backend has, whoever made them."""
        ...

    def create_recurring_run(self, order: Order, cron: str, *, is_enabled: bool) -> str:
        """Id of a new one. Not idempotent: twice makes two."""
        ...

    def enable(self, recurring_run_id: str) -> None:
        """Idempotent."""
        ...

    def disable(self, recurring_run_id: str) -> None:
        """No further run starts; the one in flight goes on. Idempotent; fine when it is gone."""
        ...

    def delete_recurring_run(self, recurring_run_id: str) -> None:
        """Kills its run in flight. Idempotent; fine when it is gone."""
        ...

    def in_flight(self) -> set[str]:
        """Ids of the recurring runs that have a run which has not ended."""
        ...
