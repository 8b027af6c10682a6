"""Follows the newest assignment of a recipe in the store: what it names is opened beside what serves, then takes its place."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from tidewheel.contracts.assignment import ASSIGNMENTS, Assignment
from tidewheel.errors import ConfigError, ContractError
from tidewheel.ranker.bundle import load_bundle
from tidewheel.serving.versions import Opening, Table, Version
from tidewheel.store import Store

if TYPE_CHECKING:
    from tidewheel.serving.metrics import ServingMetrics

MAX_VERSIONS = 3
POLL_SECONDS = 1.0
LONGEST_PAUSE = 64  # looks that an assignment is left alone which could not be loaded
STOP_SECONDS = 5.0


class Following:
    """Whatever fails leaves the present table in force, is told on stderr and counted, and is tried again.

    `advance` looks once; `start` makes a thread call it every `poll_seconds`. At most `max_versions` bundles serve, and while
    one table takes the place of another, as many of the other.
    """

    def __init__(self, store: Store, recipe: str, opening: Opening, max_versions: int = MAX_VERSIONS) -> None:
        self.recipe = recipe
        self._store = store
        self._opening = opening
        self._max_versions = max_versions
        self._table = Table({})
        self._install: Callable[[Table], None] = lambda table: None
        self._metrics: ServingMetrics | None = None
        self._failed_number, self._pause, self._failures = 0, 0, 0
        self._said = ""
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    def first(self, fallback: Callable[[], Version] | None) -> Table:
        """The table to begin with: the newest assignment, else the fallback alone.

        Raises:
            ConfigError: there is neither.
            TidewheelError: the assignment cannot be loaded, and there is no fallback; or that cannot be opened.
        """
        try:
            found = newest(self._store, self.recipe, 0)
            if found is not None:
                self._table = self._prepared(found)[0]
                return self._table
        except Exception as error:
            if fallback is None:
                raise
            self._say(f"{error}; beginning with --bundle")
        if fallback is None:
            raise ConfigError(
                f"store {self._store.url}: has no {ASSIGNMENTS}/{self.recipe}; release something, or name a --bundle"
            )
        version = fallback()
        self._table = Table({version.digest: version})
        return self._table

    def start(self, install: Callable[[Table], None], metrics: ServingMetrics, poll_seconds: float) -> None:
        """Look every `poll_seconds`. `install` makes a table the one that serves, and returns when no request uses another."""
        self._install, self._metrics = install, metrics
        self._thread = threading.Thread(target=self._work, args=(poll_seconds,), name="following", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Look no more. A bundle that is being opened is forgotten."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join(STOP_SECONDS)

    def advance(self) -> bool:
        """Look once; whether another assignment came into force. Never raises."""
        present = self._table.assignment
        try:
            found = newest(self._store, self.recipe, present.number if present else 0)
        except Exception as error:  # whatever a store may throw: what serves goes on
            self._say(f"{self.recipe}: {error}")
            return False
        if found is None or self._is_paused(found.number):
            return False
        try:
            table, opened = self._prepared(found)
        except Exception as error:
            self._fail(found.number, error)
            return False
        return self._replace(table, opened)

    def _replace(self, table: Table, opened: Mapping[str, Version]) -> bool:
        before = self._table
        try:
            self._install(table)
        except TimeoutError:  # the server is ending
            for version in opened.values():
                version.close()
            return False
        self._table, self._said = table, ""
        for digest, version in before.versions.items():
            if digest not in table.versions:
                version.close()
        return True

    def _prepared(self, assignment: Assignment) -> tuple[Table, Mapping[str, Version]]:
        """The assignment's table, and which of its versions were opened for it; all of them or none."""
        wanted = [share.bundle for share in assignment.shares]
        if len(wanted) > self._max_versions:
            raise ContractError(
                f"assignment {assignment.number}: names {len(wanted)} bundles; this server holds {self._max_versions}: "
                "raise --max-versions"
            )
        opened: dict[str, Version] = {}
        try:
            for digest in wanted:
                if digest not in self._table.versions:
                    opened[digest] = Version(load_bundle(self._store, digest), self._opening)
        except BaseException:
            for version in opened.values():
                version.close()
            raise
        return Table.of({**self._table.versions, **opened}, assignment), opened

    def _is_paused(self, number: int) -> bool:
        if number != self._failed_number:
            self._failures = self._pause = 0
        self._pause = max(0, self._pause - 1)
        return self._pause > 0

    def _fail(self, number: int, error: Exception) -> None:
        self._failed_number = number
        self._failures += 1
        self._pause = min(2**self._failures, LONGEST_PAUSE)
        if self._metrics is not None:
            self._metrics.load_failures += 1
        self._say(f"assignment {number}: {error}")

    def _say(self, message: str) -> None:
        """Once, until something else is to be said."""
        line = " ".join(message.split())
        if line != self._said:
            serves = ", ".join(digest[:12] for digest in self._table.versions)
            print(f"tidewheel serving: {line}" + (f" ({serves} serves on)" if serves else ""), file=sys.stderr, flush=True)
            self._said = line

    def _work(self, poll_seconds: float) -> None:
        while not self._stopping.wait(poll_seconds):
            self.advance()


def newest(store: Store, recipe: str, after: int) -> Assignment | None:
    """The record with the greatest number where that is above `after`, else None.

    Raises:
        ContractError: the record is damaged or not that of its name.
        RetryableError: the store does not answer.
    """
    names = store.names(f"{ASSIGNMENTS}/{recipe}")
    numbered = {int(stem): name for name in names if (stem := name.rpartition("/")[2].removesuffix(".json")).isdecimal()}
    if not numbered or max(numbered) <= after:
        return None
    name = numbered[max(numbered)]
    text = store.get(name)
    if text is None:
        return None  # taken away since
    found = Assignment.parse(text, name)
    if found.number != max(numbered) or found.recipe != recipe:
        raise ContractError(f"{name}: is assignment {found.number} of {found.recipe}; restore the record of this name")
    return found
