"""Where the driver of distributed training runs: beside this process, or where a caller knows better."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

POLL_SECONDS = 0.25


class Driver(Protocol):
    """Runs `python -m tidewheel.training FOLDER`, and starts it again when it dies: it goes on from its checkpoints."""

    @property
    def owner(self) -> str:
        """Whom it works for: two that may work at once have different ones. Equal for every try of the same step."""

    def run(self, folder: Path, has_ended: Callable[[], bool], tell: Callable[[str], None]) -> str | None:
        """Until the driver has ended for good: what it died of, or None. When this returns or raises, nothing runs any more.

        Args:
            folder: has its settings, and gets its result; the same path wherever it runs.
            has_ended: whether a result or a failure lies there, so that it need not be started again.
            tell: to be called every few seconds, with what is being waited for, or an empty text while the driver works.
        """


@dataclass(frozen=True)
class Here:
    """A process beside this one. It starts Ray, or joins the cluster of `RAY_ADDRESS`."""

    max_failures: int
    owner: str = "here"

    def run(self, folder: Path, has_ended: Callable[[], bool], tell: Callable[[str], None]) -> str | None:
        died: str | None = None
        for tries_left in range(self.max_failures, -1, -1):
            died = self._run_once(folder, tell)
            if died is None or has_ended():
                return None
            if tries_left:
                tell(f"Ray's driver died ({died}); starting again from the last checkpoint")
        return f"{died}, {self.max_failures + 1} times"

    def _run_once(self, folder: Path, tell: Callable[[str], None]) -> str | None:
        command = [sys.executable, "-m", "tidewheel.training", str(folder)]
        with (folder / "driver.log").open("ab") as log:
            driver = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
            try:
                while driver.poll() is None:
                    try:
                        driver.wait(POLL_SECONDS)
                    except subprocess.TimeoutExpired:
                        tell("")
            except BaseException:
                driver.terminate()  # Ray's own processes end with their driver
                driver.wait()
                raise
        if driver.returncode == 0:
            return None
        lines = (folder / "driver.log").read_text(errors="replace").strip().splitlines()
        return f"exit code {driver.returncode}: {lines[-1] if lines else 'it said nothing'}"
