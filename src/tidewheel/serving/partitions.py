"""One part of a hybrid log on disk, as one of several writers sees it: whole segments, and the marker once, last.

Every step is one atomic rename, so a process may end between any two of them:

```
date=D/.open-W/.part-….parquet.partial   writer W may still write here; its segments are born in its folder ...
date=D/part-….parquet                    ... and renamed out of it when whole
date=D/.closed-W/                        W is done with this day: it left, or was silent for the grace and taken over
date=D/.closing                          nobody opens this day any more; renamed to the marker when no writer is left
```

A writer that was only asleep cannot spoil a day that was closed meanwhile: its folder has another name, so its rename fails,
and its rows go to the day that it wakes up in. Needs a POSIX file system; clocks of hosts may differ by less than the grace.
"""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from tidewheel.contracts.hybrid import MARKER

if TYPE_CHECKING:
    import pyarrow as pa

OPEN, CLOSED, CLOSING = ".open-", ".closed-", ".closing"
PREFIX = "date="


class Partitions:
    """The partitions of the part in `root`. `writer` names this process and no other one, ever."""

    def __init__(self, root: Path, writer: str) -> None:
        self.root = root
        self.writer = writer
        self.entered: set[date] = set()
        self._complete: set[str] = set()
        self._segments = 0

    def enter(self, day: date, now: datetime) -> bool:
        """Announce that this writer may write into the day; False where the day is complete or about to be."""
        folder = self._folder(day)
        mine = self._mine(day)
        mine.mkdir(parents=True, exist_ok=True)
        if (folder / CLOSING).exists() or (folder / MARKER).exists():  # in this order: one is renamed to the other
            with suppress(FileNotFoundError):  # taken over already
                mine.rmdir()
            return False
        self.entered.add(day)
        self.beat(now)
        return True

    def publish(self, day: date, table: pa.Table, now: datetime) -> bool:
        """Write one segment that readers see whole or not at all; False where the day was taken from this writer.

        Raises:
            OSError: the disk refuses; nothing was published.
        """
        import pyarrow.parquet as pq
        import pyarrow.types as types

        # Ids and numbers differ from row to row: looking for repeats among them takes longer than all the rest, for more bytes.
        # A segment's smallest and greatest values tell a reader of whole days nothing.
        texts = [field.name for field in table.schema if types.is_string(field.type)]
        name = f"part-{now.astimezone(UTC):%Y%m%dT%H%M%S}-{self.writer}-{self._segments}.parquet"
        partial = self._mine(day) / f".{name}.partial"
        try:
            pq.write_table(table, partial, compression="zstd", use_dictionary=texts, write_statistics=False)
            _sync(partial)
            partial.rename(self._folder(day) / name)
        except FileNotFoundError:
            if self._mine(day).is_dir():
                raise
            self.entered.discard(day)
            return False
        self._segments += 1
        self.beat(now)
        return True

    def leave(self, day: date) -> None:
        """This writer is done with the day."""
        with suppress(FileNotFoundError):  # taken over: somebody else said so for us
            self._mine(day).rename(self._folder(day) / (CLOSED + self.writer))
        self.entered.discard(day)

    def beat(self, now: datetime) -> None:
        """Show the other writers that this one lives."""
        for day in sorted(self.entered):
            try:
                os.utime(self._mine(day), (now.timestamp(), now.timestamp()))
            except FileNotFoundError:
                self.entered.discard(day)

    def close_ended(self, now: datetime, grace: timedelta) -> list[date]:
        """Mark the days that ended more than `grace` ago and into which no writer can write any more; returns them.

        Only days that servers wrote: a folder that nobody opened belongs to somebody else.
        """
        days = []
        for folder in sorted(self.root.glob(PREFIX + "*")):
            day = day_of(folder)
            if day is None or folder.name in self._complete or end_of(day) + grace > now:
                continue
            if (folder / MARKER).exists() or _close(folder, now, grace):
                self._complete.add(folder.name)
                days.append(day)
        return days

    def _folder(self, day: date) -> Path:
        return self.root / f"{PREFIX}{day.isoformat()}"

    def _mine(self, day: date) -> Path:
        return self._folder(day) / (OPEN + self.writer)


def day_of(folder: Path) -> date | None:
    """The day of a partition's folder, None where the name is not `date=YYYY-MM-DD`."""
    try:
        return date.fromisoformat(folder.name.removeprefix(PREFIX))
    except ValueError:
        return None


def end_of(day: date) -> datetime:
    """The first moment after the UTC day."""
    return datetime(day.year, day.month, day.day, tzinfo=UTC) + timedelta(days=1)


def _close(folder: Path, now: datetime, grace: timedelta) -> bool:
    """Whether the day is complete now. Safe for any number of callers at once."""
    if not any(path.name.startswith((OPEN, CLOSED, CLOSING)) for path in folder.iterdir()):
        return False
    for opened in folder.glob(OPEN + "*"):
        with suppress(FileNotFoundError):  # its writer left meanwhile
            if opened.stat().st_mtime + grace.total_seconds() <= now.timestamp():
                opened.rename(folder / (CLOSED + opened.name.removeprefix(OPEN)))
    if any(folder.glob(OPEN + "*")):
        return False
    closing = folder / CLOSING
    closing.touch()
    # Whoever opened before it saw `.closing` is seen here; whoever opens later sees `.closing` and goes elsewhere.
    if any(folder.glob(OPEN + "*")):
        return False
    for closed in folder.glob(CLOSED + "*"):
        shutil.rmtree(closed, ignore_errors=True)
    _sync(folder)
    with suppress(FileNotFoundError):  # another closer was faster
        closing.rename(folder / MARKER)
    _sync(folder)
    return (folder / MARKER).exists()


def _sync(path: Path) -> None:
    """Make it outlive a power cut before anything that relies on it is written."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
