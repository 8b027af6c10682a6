"""The runs that this home or its store knows: how they ended, and which of them are at work."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

from tidewheel.contracts.report import RunReport, StepRecord
from tidewheel.steps.records import end_of, last_words, records_of, report_of
from tidewheel.store.home import Home
from tidewheel.store.store import Store

T = TypeVar("T")
READS = 16  # at once: a read of a bucket is a wait


@dataclass(frozen=True)
class Runs:
    """The newest runs, and how many older ones there are. `concluded` oldest first, `at_work` by run id."""

    concluded: tuple[RunReport, ...]
    at_work: Mapping[str, list[StepRecord]]
    older: int


def reports(home: Home) -> list[RunReport]:
    """Every concluded run of this home, oldest first."""
    paths = sorted(home.runs.glob("*/run.json"), key=lambda path: path.stat().st_mtime)
    return [RunReport.read(path) for path in paths]


def newest_runs(home: Home, store: Store, last: int) -> Runs:
    """The `last` newest concluded runs, and as many without an ending, of this home and of all that share its store.

    The store is listed once; only what is returned is read, several at once.
    """
    ended, begun = last_words(store)
    here = {path.parent.name: path for path in home.runs.glob("*/run.json")}
    ended |= {run_id: _time(path) for run_id, path in here.items()}
    begun |= {folder.name: _time(folder) for folder in home.runs.glob("*") if folder.is_dir()}
    begun = {run_id: moment for run_id, moment in begun.items() if run_id not in ended}

    def read(run_id: str) -> RunReport | None:
        return RunReport.read(here[run_id]) if run_id in here else report_of(store, run_id)

    concluded = [report for report in _at_once(read, _newest(ended, last)) if report is not None]
    working = sorted(_newest(begun, last))
    steps = _at_once(lambda run_id: sorted(records_of(store, run_id), key=lambda step: step.started), working)
    older = max(len(ended) - last, 0) + max(len(begun) - last, 0)
    return Runs(tuple(sorted(concluded, key=end_of)), dict(zip(working, steps, strict=True)), older)


def _newest(moments: Mapping[str, datetime], last: int) -> list[str]:
    return sorted(moments, key=lambda run_id: (moments[run_id], run_id), reverse=True)[:last]


def _time(path: Path) -> datetime:
    return datetime.fromtimestamp(path.stat().st_mtime, UTC)


def _at_once(read: Callable[[str], T], run_ids: Iterable[str]) -> list[T]:
    with ThreadPoolExecutor(READS) as pool:
        return list(pool.map(read, run_ids))
