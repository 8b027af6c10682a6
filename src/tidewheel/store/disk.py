"""What a file system does not do by itself: say in one line that it is full, and change a folder in one step."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tidewheel.errors import ConfigError, TidewheelError

NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
OCCUPIED = frozenset({errno.ENOTEMPTY, errno.EEXIST})


@contextmanager
def room_in(folder: Path) -> Iterator[None]:
    """Inside, files are written that lie in `folder`.

    Raises:
        ConfigError: the disk, the quota or the largest file allowed is full: whoever runs this must make room.
    """
    try:
        yield
    except TidewheelError:
        raise
    except Exception as error:
        if (why := _no_room(error)) is None:
            raise
        raise ConfigError(
            f"{folder}: no room to write ({why}); nothing was published. "
            "Free some space or choose another folder with --home, then run again"
        ) from error


def _no_room(error: Exception) -> str | None:
    """Why nothing can be written, or None. Engines in other languages say it in errors of their own, by its words."""
    found = error.errno if isinstance(error, OSError) else None
    words = {number: os.strerror(number) for number in sorted(NO_ROOM)}
    return words.get(found or 0) or next((why for why in words.values() if why in str(error)), None)


def settle(folder: Path, target: Path, is_whole: Callable[[Path], bool], aside: Path) -> None:
    """Move `folder` to `target` in one step: whoever looks sees the old or the new folder, never a mix.

    A whole folder that is there already stays and `folder` goes; a damaged one is moved into `aside`, to be swept.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    while True:
        try:
            os.rename(folder, target)  # refused where a folder with files is
            return
        except OSError as error:
            if error.errno not in OCCUPIED:
                raise
        if is_whole(target):
            shutil.rmtree(folder)
            return
        with suppress(FileNotFoundError):  # another process that heals it was faster
            os.rename(target, Path(tempfile.mkdtemp(prefix="damaged-", dir=aside)) / target.name)
