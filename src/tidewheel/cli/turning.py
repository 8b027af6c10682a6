"""One turn of the wheel as the command line sees it: a child process runs the compiled pipeline, we follow it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import suppress
from datetime import datetime, timedelta
from pathlib import Path
from types import FrameType

from rich.console import Console

from tidewheel.cli.progress import follow
from tidewheel.cli.reports import reports
from tidewheel.cli.unfinished import at_work
from tidewheel.contracts.base import canonical_json
from tidewheel.contracts.recipe import Recipe
from tidewheel.contracts.report import Outcome, RunReport
from tidewheel.contracts.steps import ConcludePart, parts
from tidewheel.contracts.window import iso
from tidewheel.errors import ConfigError, TidewheelError
from tidewheel.registry.ledger import Ledger
from tidewheel.registry.release import expect_open
from tidewheel.registry.schema import SchemaHistory
from tidewheel.store.home import Home
from tidewheel.store.store import Store

# Seconds that a pipeline gets to stop its servers after an interrupt, before it is killed.
GRACE_SECONDS = 10
UNDECIDED = (Outcome.FAILED, Outcome.DATA_REJECTED)


def turn(recipe: Recipe, home: Home, window_end: datetime, reason: str, dry_run: bool, console: Console) -> RunReport:
    """Run the pipeline of `recipe` for one window and return what it concluded.

    Raises:
        ConfigError: the home cannot be written, or the recipe changes its registered features other than by addition;
            nothing was started.
        PausedError: retraining is paused; nothing was started.
        KeyboardInterrupt: interrupted; the run is concluded as failed first, and nothing was published.
        TidewheelError: the orchestrator itself failed; the message names its log.
    """
    store = home.store()
    expect_open(Ledger(store, recipe.name).entries(), recipe.name)
    features = SchemaHistory(store, recipe.name)
    check_features(recipe, features)
    run_id, folder = _new_run(recipe, home, store, window_end)
    if not dry_run:
        _register(recipe, features, reason, run_id, folder)
    recipe.write(folder / "recipe.json")
    log = folder / "pipeline.log"
    end = window_end.isoformat()
    command = [sys.executable, "-m", "tidewheel.cluster.local", str(folder / "recipe.json"), str(folder / "pipeline.yaml")]
    command += [end, reason, str(dry_run).lower()]
    with log.open("wb") as output, at_work(folder) as lock, _termination_interrupts():
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, **home.environment(run_id)},
            pass_fds=(lock,),
            start_new_session=True,  # the terminal's Ctrl-C reaches us alone; we stop the pipeline and all its children
        )
        try:
            follow(folder / "events.jsonl", lambda: process.poll() is not None, console)
        except KeyboardInterrupt:
            _stop(process)
            _conclude(recipe, home, run_id, end, dry_run)
            raise
        finally:
            _stop(process)
        if not (folder / "run.json").exists():
            _conclude(recipe, home, run_id, end, dry_run)
    report = RunReport.read(folder / "run.json")
    if not report.steps:
        raise TidewheelError(f"run {run_id}: the pipeline did not start; see {log}")
    return report


def check_features(recipe: Recipe, registered: SchemaHistory) -> None:
    """Refuse a recipe whose features cannot become the registered ones, or that its log cannot have: before an id is taken.

    Raises:
        ConfigError: a change is not additive, or a feature leaks or is unknown to the log.
    """
    from tidewheel.logs import sources

    sources.check_features(recipe.source, recipe.active_features, recipe.labels, recipe.ingest.counters)
    if (found := registered.plan(recipe.features)).refused:
        raise ConfigError(f"recipe {recipe.name}: {found.explain_refusal()}")


def _register(recipe: Recipe, features: SchemaHistory, reason: str, run_id: str, folder: Path) -> None:
    """Register what the recipe adds; where another process was faster and that is refused now, there is no run."""
    try:
        features.register(recipe.features, reason=reason, by=run_id)
    except TidewheelError:
        folder.rmdir()
        raise


def next_window_end(recipe: Recipe, home: Home) -> datetime:
    """The end of the window after the last one that this recipe decided about, or its first.

    The ledger counts beside the reports: a run that was killed after its decision has none, and reports may be swept.
    """
    entries = Ledger(home.store(), recipe.name).entries()
    ends = {*decided(recipe, home), *(entry.window.end for entry in entries if entry.window is not None)}
    return max(ends) + timedelta(days=recipe.window.stride_days) if ends else recipe.window.first_end


def decided(recipe: Recipe, home: Home) -> dict[datetime, RunReport]:
    """Window end -> the latest run of this recipe that came to a release decision; a dry run decides nothing."""
    return {
        report.window.end: report
        for report in reports(home)
        if report.recipe == recipe.name and report.outcome not in UNDECIDED and not report.dry_run
    }


def _new_run(recipe: Recipe, home: Home, store: Store, window_end: datetime) -> tuple[str, Path]:
    """A run id that nobody has yet, in this home or in another that shares the store: recipe, window end, attempt.

    Its record in the store and its folder here, each created exactly once, reserve it.
    """
    day = iso(window_end).replace("-", "").replace(":", "")
    try:
        home.runs.mkdir(parents=True, exist_ok=True)
        for attempt in range(1, 10_000):
            run_id = f"{recipe.name}-{day}-{attempt}"
            with suppress(FileExistsError):
                if store.create(f"runs/{run_id}.json", canonical_json({"recipe_digest": recipe.digest})):
                    home.run(run_id).mkdir()
                    return run_id, home.run(run_id)
    except OSError as error:
        raise ConfigError(f"home {home.root}: cannot be written ({error.strerror}); choose another with --home") from error
    raise ConfigError(f"home {home.root}: 10,000 runs of {recipe.name} for {day}; choose another with --home")


def _conclude(recipe: Recipe, home: Home, run_id: str, window_end: str, dry_run: bool) -> None:
    from tidewheel.steps.conclude import conclude_interrupted

    part = parts(recipe)["conclude"]
    assert isinstance(part, ConcludePart)
    conclude_interrupted(part, home, run_id, window_end, dry_run)


def _stop(process: subprocess.Popen[bytes]) -> None:
    """End the pipeline and every process it started: politely, then for good."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with suppress(subprocess.TimeoutExpired):
            process.wait(GRACE_SECONDS)


class _termination_interrupts:
    """Inside, SIGTERM raises KeyboardInterrupt, as Ctrl-C does."""

    def __enter__(self) -> None:
        self._previous = signal.signal(signal.SIGTERM, self._raise)

    def __exit__(self, *_: object) -> None:
        signal.signal(signal.SIGTERM, self._previous)

    @staticmethod
    def _raise(signum: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt
