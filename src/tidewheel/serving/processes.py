"""Several processes behind one address, a core for each: every one is a whole server, and none waits for another.

They share the listening socket, so a connection goes to whichever takes it first, and none is lost that waits while one of them
ends. Who watches here starts them, passes signals on, and puts another in the place of one that ended or is not live. How
they count together, see `siblings`.
"""

from __future__ import annotations

import argparse
import json
import os
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

from tidewheel.serving.launch import announce, bind, end_with_parent
from tidewheel.serving.siblings import bury

TICK_SECONDS = 0.1
SILENT_SECONDS = 30.0  # without a beat: asked to end
STUBBORN_SECONDS = 120.0  # without a beat: killed. A log may be long to write
SHORT_LIFE_SECONDS = 10.0  # of one that ends sooner the next begins later
LONGEST_PAUSE_SECONDS = 60.0


@dataclass
class Child:
    """One process. It says on its stdout which bundle it serves, and from then on every second that it is live."""

    place: int
    process: subprocess.Popen[bytes]
    began: float = field(default_factory=time.monotonic)
    heard: bytes = b""
    bundle: str = ""  # once it answers
    silent_seconds: float = 0.0
    is_asked: bool = False  # to end

    @property
    def is_ready(self) -> bool:
        return bool(self.bundle)

    def hear(self, data: bytes) -> None:
        self.silent_seconds = 0.0
        if not self.is_ready:
            self.heard += data
            line, newline, _ = self.heard.partition(b"\n")
            self.bundle = json.loads(line)["bundle"] if newline else ""


class Processes:
    """Keeps `--processes` of them alive until a signal comes; every signal is passed on.

    Args:
        arguments: the command line that `options` are of.
    """

    def __init__(self, options: argparse.Namespace, arguments: Sequence[str]) -> None:
        self._options = options
        self._command = [sys.executable, "-m", "tidewheel.serving", *arguments, "--processes", "1", "--exit-on-stdin-eof"]
        self._children: dict[int, Child] = {}
        self._signals: list[int] = []
        self._is_ending = self._is_announced = False
        self._kill_at = float("inf")
        self._pause_seconds, self._not_before = 0.0, 0.0
        self._selector = selectors.DefaultSelector()
        self._code = 0

    def serve(self) -> int:
        """The exit code: 0 after a signal; that of the first process which ended before all of them answered.

        Raises:
            TidewheelError: the address is taken or none of this machine's.
        """
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._note)
        if self._options.exit_on_stdin_eof:
            end_with_parent()
        with ExitStack() as stack:
            self._folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tidewheel-serving-")))
            self._listener = stack.enter_context(bind(self._options.host, self._options.port))
            stack.enter_context(self._selector)
            self._start()  # the others find what it has fetched and checked
            while self._children:
                self._advance()
        return self._code

    def _advance(self) -> None:
        before = time.monotonic()
        for key, _ in self._selector.select(TICK_SECONDS):
            self._hear(key.data)
        if self._signals:
            self._end()
        if self._is_ending:
            if time.monotonic() > self._kill_at:
                for child in self._children.values():
                    child.process.kill()
        else:
            # Not by the clock: where all were stopped for a while (a suspended machine), nobody was silent.
            self._watch(min(time.monotonic() - before, 2 * TICK_SECONDS))
            self._fill()

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._signals.append(number)

    def _fill(self) -> None:
        """Start what is missing, once the first one answers; announce when all do."""
        ready = [child for child in self._children.values() if child.is_ready]
        if ready and len(self._children) < self._options.processes and time.monotonic() >= self._not_before:
            try:
                self._start()
            except OSError as error:  # the others serve on
                self._wait_longer()
                self._say(f"another process cannot be started ({error}); tried again in {self._pause_seconds:g} s")
        if len(ready) == self._options.processes and not self._is_announced:
            self._is_announced = True
            announce(self._listener, ready[0].bundle, self._options.announce_file)

    def _start(self) -> None:
        place = min(set(range(self._options.processes)) - self._children.keys())
        socket = self._listener.fileno()
        process = subprocess.Popen(
            [*self._command, "--sibling", str(socket), str(self._folder), str(place)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            pass_fds=(socket,),
            start_new_session=True,  # a terminal's Ctrl-C comes to this process alone, which passes it on
        )
        child = self._children[place] = Child(place, process)
        assert process.stdout is not None
        self._selector.register(process.stdout, selectors.EVENT_READ, child)

    def _hear(self, child: Child) -> None:
        assert child.process.stdout is not None
        if data := os.read(child.process.stdout.fileno(), 65536):
            child.hear(data)
            return
        self._selector.unregister(child.process.stdout)
        child.process.stdout.close()
        code = child.process.wait()
        assert child.process.stdin is not None
        child.process.stdin.close()
        del self._children[child.place]
        self._ended(child, code)

    def _ended(self, child: Child, code: int) -> None:
        try:
            bury(self._folder, child.place)
        except OSError as error:
            self._say(f"/metrics goes on counting process {child.process.pid} as alive: {error}")
        if self._is_ending:
            self._code = self._code or int(code not in (0, -signal.SIGTERM))
            return
        if not self._is_announced or not any(other.is_ready for other in self._children.values()):
            self._code = code if code > 0 else 1
            if self._is_announced or code < 0:  # else it has said why
                self._say(f"process {child.process.pid} ended ({_ending(code)}); no other answers")
            self._end()
            return
        if time.monotonic() - child.began < SHORT_LIFE_SECONDS:
            self._wait_longer()
        else:
            self._pause_seconds = self._not_before = 0.0
        when = f" in {self._pause_seconds:g} s" if self._pause_seconds else ""
        self._say(f"process {child.process.pid} ended ({_ending(code)}); another takes its place{when}")

    def _wait_longer(self) -> None:
        self._pause_seconds = min(max(1.0, 2 * self._pause_seconds), LONGEST_PAUSE_SECONDS)
        self._not_before = time.monotonic() + self._pause_seconds

    def _watch(self, seconds: float) -> None:
        """End what has not said for long that it is live."""
        for child in self._children.values():
            child.silent_seconds += seconds if child.is_ready else 0.0
            if child.silent_seconds >= STUBBORN_SECONDS:
                child.process.kill()
            elif child.silent_seconds >= SILENT_SECONDS and not child.is_asked:
                child.is_asked = True
                self._say(f"process {child.process.pid} is not live; it is ended")
                child.process.terminate()

    def _end(self) -> None:
        """Ask all to end; they answer what they have begun."""
        if not self._is_ending:
            self._is_ending = True
            self._kill_at = time.monotonic() + self._options.drain_seconds + STUBBORN_SECONDS
            self._listener.close()  # or connections would go on queueing when the last of them has left
        self._signals.clear()
        for child in self._children.values():
            child.process.terminate()

    def _say(self, text: str) -> None:
        print(f"tidewheel serving: {text}", file=sys.stderr, flush=True)


def _ending(code: int) -> str:
    return f"exit code {code}" if code >= 0 else signal.Signals(-code).name
