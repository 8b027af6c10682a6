"""How much memory a step uses at most: of its container in a pod, of its own process elsewhere."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

CGROUP = Path("/sys/fs/cgroup")  # of the container itself, where a container has a view of its own
STATUS = Path("/proc/self/status")
LOOK_SECONDS = 0.1


class Usage:
    """The most memory that was seen in use, bytes; None: nothing was seen.

    Pages of files do not count: the kernel takes them back before it kills anything, so the peak that a cgroup keeps of
    itself comes near its limit whatever a step needs, once it reads and writes as much. What needs memory for less than
    LOOK_SECONDS may be missed.
    """

    def __init__(self, is_pod: bool, root: Path = CGROUP) -> None:
        self._folder = (
            next((each for each in (root, root / "memory") if (each / "memory.stat").exists()), None) if is_pod else None
        )
        self._most: int | None = None

    @property
    def peak_bytes(self) -> int | None:
        return self._most if self._folder is not None else _process_peak()

    def look(self) -> None:
        """Take notice of what is in use now."""
        if self._folder is not None:
            self._most = max(self._most or 0, in_use(self._folder))

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Look all the time, and once more at the end."""
        if self._folder is None:
            yield
            return
        is_over = threading.Event()

        def watch() -> None:
            while not is_over.wait(LOOK_SECONDS):
                self.look()

        watcher = threading.Thread(target=watch, name="memory in use", daemon=True)
        self.look()
        watcher.start()
        try:
            yield
        finally:
            is_over.set()
            watcher.join()
            self.look()


def in_use(folder: Path) -> int:
    """What a cgroup (version 1 or 2) uses that is no page of a file, bytes."""
    current = next(path for name in ("memory.current", "memory.usage_in_bytes") if (path := folder / name).exists())
    found = dict(line.split() for line in (folder / "memory.stat").read_text(encoding="ascii").splitlines())
    prefix = "total_" if "total_inactive_file" in found else ""  # version 1 counts what lies below it apart
    files = int(found[f"{prefix}inactive_file"]) + int(found[f"{prefix}active_file"])
    return max(int(current.read_text(encoding="ascii")) - files, 0)


def _process_peak() -> int | None:
    """Resident at most, pages of files included: what a process began with before `exec` does not count, unlike `ru_maxrss`."""
    if not STATUS.exists():
        return None
    line = next((each for each in STATUS.read_text(encoding="ascii").splitlines() if each.startswith("VmHWM:")), None)
    return 1024 * int(line.split()[1]) if line else None
