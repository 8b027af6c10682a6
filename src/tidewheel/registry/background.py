"""The registry in a child process: MLflow takes seconds to import, which pass while the canary runs."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections import deque
from collections.abc import Mapping
from types import TracebackType
from typing import IO, Any, Self

from tidewheel.errors import RetryableError
from tidewheel.registry.versions import CANDIDATE

RECORD = "record"


class BackgroundRegistry:
    """Implements `versions.Registry` by asking a child process, whose import starts now and is waited for when needed.

    One call a line, answered in order. A child that died answers nothing: RetryableError, never a guess.

    Figures are for people to look at: one that could not be recorded is said by `unrecorded` and fails no other call.
    """

    def __init__(self, tracking_uri: str, model: str, bundles: str) -> None:
        arguments = json.dumps({"tracking_uri": tracking_uri, "model": model, "bundles": bundles})
        self._log: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115  lives as long as the child
        self._child = subprocess.Popen(
            [sys.executable, "-m", "tidewheel.registry", arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
        )
        self._unread: deque[str] = deque()  # verbs whose answers nobody has read yet
        self._unrecorded = ""

    def announce(self, bundle: str, tags: Mapping[str, str]) -> None:
        """Have the candidate registered under the alias `candidate`, without waiting; a later call raises what failed."""
        self._ask("register", bundle, dict(tags))
        self._ask("point", CANDIDATE, bundle)

    def record(self, run: str, tags: Mapping[str, str], figures: Mapping[str, float]) -> None:
        """Have the figures of a run kept, see `MlflowRegistry.record`, without waiting: `unrecorded` says what failed."""
        self._ask(RECORD, run, dict(tags), dict(figures))

    def unrecorded(self) -> str:
        """Wait for all that was asked; why figures could not be recorded, empty if they were. Never raises for that."""
        try:
            self._answer()
        except RetryableError as error:
            self._unrecorded = self._unrecorded or str(error)
        return self._unrecorded

    def register(self, bundle: str, tags: Mapping[str, str]) -> str:
        self._ask("register", bundle, dict(tags))
        return str(self._answer())

    def versions(self) -> dict[str, dict[str, str]]:
        self._ask("versions")
        return {digest: dict(tags) for digest, tags in self._answer().items()}

    def aliases(self) -> dict[str, str]:
        self._ask("aliases")
        return dict(self._answer())

    def point(self, alias: str, bundle: str | None) -> None:
        self._ask("point", alias, bundle)
        self._answer()

    def close(self) -> None:
        """End the child after what it was asked to do. Idempotent."""
        if self._child.stdin is not None and not self._child.stdin.closed:
            try:
                self._child.stdin.close()
            except BrokenPipeError:
                self._child.kill()
        try:
            self._child.wait(timeout=30.0)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.wait()
        if self._child.stdout is not None:
            self._child.stdout.close()
        self._log.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if error is not None:
            self._child.kill()  # an interrupted step does not wait for an import
        self.close()

    def _ask(self, verb: str, *arguments: Any) -> None:
        assert self._child.stdin is not None
        try:
            self._child.stdin.write(json.dumps([verb, *arguments]) + "\n")
            self._child.stdin.flush()
        except OSError as error:
            raise RetryableError(f"registry: its process ended ({self._last_words()})") from error
        self._unread.append(verb)

    def _answer(self) -> Any:
        """The answer to the last call, after those to calls that nobody waited for."""
        assert self._child.stdout is not None
        value: Any = None
        while self._unread:
            line = self._child.stdout.readline()
            if not line:
                raise RetryableError(f"registry: its process ended ({self._last_words()})")
            verb, answer = self._unread.popleft(), json.loads(line)
            if "error" not in answer:
                value = answer["value"]
            elif verb == RECORD:
                self._unrecorded = f"registry: {answer['error']}"
            else:
                raise RetryableError(f"registry: {answer['error']}")
        return value

    def _last_words(self) -> str:
        self._log.seek(0)
        return self._log.read().decode("utf-8", "replace").strip().rsplit("\n", 1)[-1] or "said nothing"
