"""Runs without an ending: which of them are at work, and the ending of those that were killed after they had decided."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tidewheel.contracts.ledger import OF_RUNS, LedgerEntry
from tidewheel.contracts.recipe import Recipe
from tidewheel.contracts.report import RunReport
from tidewheel.contracts.steps import ConcludePart, parts
from tidewheel.registry.ledger import Ledger
from tidewheel.store.home import Home

LOCK = "at_work.lock"


@contextmanager
def at_work(folder: Path) -> Iterator[int]:
    """Hold the lock of a run's folder; yields its descriptor. A child that inherits it holds the lock too: it is free only once
    all of them are gone, however they ended."""
    with (folder / LOCK).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield lock.fileno()


def is_at_work(folder: Path) -> bool:
    """Whether a process of this machine works on the run."""
    try:
        with (folder / LOCK).open("r") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


def conclude_killed(recipe: str, home: Home) -> list[RunReport]:
    """Give every run its ending that decided, stands in the ledger and was killed before it could say so. Safe to repeat.

    Without it the window would seem undecided, and the next run would release it again.
    """
    decided = {entry.run_id: entry for entry in Ledger(home.store(), recipe).entries() if entry.decision in OF_RUNS}
    return [_conclude(home, entry) for run_id, entry in decided.items() if _was_killed(home.run(run_id))]


def _was_killed(folder: Path) -> bool:
    return (folder / "recipe.json").exists() and not (folder / "run.json").exists() and not is_at_work(folder)


def _conclude(home: Home, entry: LedgerEntry) -> RunReport:
    from tidewheel.steps.conclude import conclude_interrupted

    part = parts(Recipe.read(home.run(entry.run_id) / "recipe.json"))["conclude"]
    assert isinstance(part, ConcludePart)
    assert entry.window is not None  # runs know theirs
    return conclude_interrupted(part, home, entry.run_id, entry.window.end.isoformat(), dry_run=False)
