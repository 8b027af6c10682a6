"""A child process that is killed in the middle of writing to a store.

    python -m tests.unit.store.dying lines ROOT     one writer for each place in the code, each in its own copy of ROOT
    python -m tests.unit.store.dying told URL       for each line on stdin one writer, which says its id and waits for a line

Writers are forks, so that nobody imports anything again.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import tempfile
from pathlib import Path
from types import FrameType
from typing import Any

from tests.unit.store.backing import publish
from tidewheel.store import Store

NEW_TEXT = "new " * 5000
NEW_ENTRY = "entry " * 5000
WRITING = ("/tidewheel/store/local.py", "/tidewheel/store/disk.py")
CALLS = ("open", "os.rename", "os.mkdir", "os.link", "os.remove", "os.rmdir", "tempfile.mk", "shutil.rmtree")


def write(store: Store) -> None:
    """One folder and two records."""
    publish(store, a="new rows", b="more new rows")
    store.put("documents/1.json", NEW_TEXT)
    store.create("ledger/2.json", NEW_ENTRY)


def die_at(place: int) -> None:
    """Kill this process before it executes that line of the store, or enters that system call that may write."""
    passed = 0

    def step() -> None:
        nonlocal passed
        passed += 1
        if passed == place:
            os.kill(os.getpid(), signal.SIGKILL)

    def trace(frame: FrameType, event: str, argument: Any) -> Any:
        if not any(part in frame.f_code.co_filename for part in WRITING):
            return None
        if event == "line":
            step()
        return trace

    sys.addaudithook(lambda event, arguments: step() if event.startswith(CALLS) else None)
    sys.settrace(trace)


def every_line(root: Path) -> None:
    """ROOT.1 is what a writer left that was killed at the first place, and so on until one got through."""
    for place in range(1, 100_000):
        copy = Path(f"{root}.{place}")
        shutil.copytree(root, copy)
        writer = os.fork()
        if writer == 0:
            store = Store.open(str(copy))
            die_at(place)
            write(store)
            os.kill(os.getpid(), signal.SIGTERM)
        if os.WTERMSIG(os.waitpid(writer, 0)[1]) == signal.SIGTERM:
            return


def as_told(url: str) -> None:
    from tidewheel.store import s3  # noqa: F401  imported once for all

    while os.read(0, 1):
        writer = os.fork()
        if writer == 0:
            print(os.getpid(), flush=True)
            os.read(0, 1)
            write(Store.open(url, Path(tempfile.mkdtemp())))
            os._exit(0)
        print(os.WTERMSIG(os.waitpid(writer, 0)[1]), flush=True)


if __name__ == "__main__":
    {"lines": lambda at: every_line(Path(at)), "told": as_told}[sys.argv[1]](sys.argv[2])
