"""`python -m tidewheel.serving.log_writer`: the process behind `log_process`. When its server is gone it writes the rest."""

from __future__ import annotations

import fcntl
import json
import marshal
import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from tidewheel.contracts.hybrid import Part
from tidewheel.contracts.schema import FeatureSpec
from tidewheel.errors import ConfigError, ContractError
from tidewheel.serving.hybrid_log import HybridLog, LogLimits
from tidewheel.serving.log_process import HEAD, PARTS
from tidewheel.serving.rows import parse_events

NICENESS = 5  # requests come first
PAUSE_SECONDS = 0.02
SMALLEST_PIPE_BYTES = 64 * 1024


class Writer:
    """Makes rows of what a server hands over: the columns that it scored with, so the log has what was scored."""

    def __init__(self, given: dict[str, Any]) -> None:
        features = tuple(FeatureSpec.model_validate(one) for one in given["features"])
        labels = tuple(given["labels"])
        self._unread = dict.fromkeys(Part, 0)
        limits = LogLimits(**given["limits"])
        self.log = HybridLog(Path(given["root"]), given["bundle"], features, labels, limits=limits, told=self._tell)

    def write(self, part: Part, rows: int, item: bytes) -> None:
        """Queue one item for the log's thread."""
        try:
            if part is Part.BACKEND:
                self.log.write_served(item)
            else:
                body, logged_time = marshal.loads(item)
                now = datetime.fromisoformat(logged_time)
                self.log.write_events(parse_events(body, now)[0], now)
        except ContractError as error:  # the server found nothing wrong with it: a bug, and not worth the other rows
            self._unread[part] += rows
            print(f"tidewheel serving: log, {part} part: {error}", file=sys.stderr)

    def _tell(self, log: HybridLog) -> None:
        told = {}
        for part, stream in log.streams.items():
            counts = stream.counts
            lost = counts.unwritable + counts.dropped + self._unread[part]
            told[part.value] = {"unwritable": lost, "written": counts.written, "segments": counts.segments}
            told[part.value]["failures"] = counts.failures
        _say(told)


def main() -> None:
    """Messages from stdin, a line of counts to stdout after every round of writing."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # whoever leaves closes the pipe
    os.nice(NICENESS)
    if sys.platform == "linux":
        with suppress(OSError):  # a sandbox may not let it; then it is a process like any other
            os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))  # it takes no core from a request when it wakes up
    messages = _messages(sys.stdin.fileno())
    writer = Writer(json.loads(next(messages)[2]))
    with ExitStack() as stack:
        try:
            stack.enter_context(writer.log)
        except ConfigError as error:
            _say({"error": str(error)})
            return
        _say({"ready": True})
        for part, rows, item in messages:
            writer.write(part, rows, item)


def _messages(pipe: int) -> Iterator[tuple[Part, int, bytes]]:
    """Whole messages until the other end closes, or is gone in the middle of one.

    They are taken a few at a time: a writer that waits for each would be woken by each, in the time of the request behind it.
    """
    room = fcntl.fcntl(pipe, fcntl.F_GETPIPE_SZ) if sys.platform == "linux" else SMALLEST_PIPE_BYTES
    held = bytearray()
    while came := os.read(pipe, room):
        held += came
        at = 0
        while len(held) - at >= HEAD.size:
            size, rows, part = HEAD.unpack_from(held, at)
            if len(held) - at < HEAD.size + size:
                break
            at += HEAD.size + size
            yield PARTS[part], rows, bytes(memoryview(held)[at - size : at])
        del held[:at]
        if len(came) < room // 2:
            time.sleep(PAUSE_SECONDS)


def _say(document: Any) -> None:
    try:
        sys.stdout.write(json.dumps(document) + "\n")
        sys.stdout.flush()
    except BrokenPipeError:  # nobody listens any more; what it has is written all the same
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115  as long as this process


if __name__ == "__main__":
    main()
