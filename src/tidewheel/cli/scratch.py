"""A run that nobody will ask about later, for verbs that look at a window outside the wheel."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tidewheel.errors import ConfigError
from tidewheel.steps.records import DOCUMENTS
from tidewheel.store.home import Home


@contextmanager
def scratch_run(recipe: str, home: Home, purpose: str) -> Iterator[Path]:
    """The folder of a run with the environment that steps read, gone when the block ends, and all that it said.

    Raises:
        ConfigError: a thousand of them are at work.
    """
    store = home.store()
    home.runs.mkdir(parents=True, exist_ok=True)
    for attempt in range(1, 1000):
        folder = home.run(f"{recipe}-{purpose}-{attempt}")
        try:
            folder.mkdir()
        except FileExistsError:
            continue
        try:
            store.remove(DOCUMENTS, folder.name)  # of one that was killed
            os.environ.update(home.environment(folder.name))
            yield folder
        finally:
            store.remove(DOCUMENTS, folder.name)
            shutil.rmtree(folder, ignore_errors=True)
        return
    raise ConfigError(f"home {home.root}: 1,000 of {recipe}-{purpose} at work; remove {home.runs}/{recipe}-{purpose}-*")
