"""What went wrong in the dataframe engine, in one line: is it the log, or the engine itself?"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tidewheel.errors import ContractError, RetryableError

# gRPC's words for a server that is gone, full or too slow; what is wrong with a query has others.
_OF_THE_ENGINE = ("UNAVAILABLE", "CANCELLED", "ABORTED", "DEADLINE_EXCEEDED", "RESOURCE_EXHAUSTED")
_STATUS, _DETAILS = re.compile(r"status = StatusCode\.(\w+)"), re.compile(r'details = "(.*?)"\s*$', re.MULTILINE)


@contextmanager
def engine_faults_named(folder: Path) -> Iterator[None]:
    """The engine's exceptions carry stack traces and no file name; its users need one line.

    Raises:
        ContractError: the engine could not read the log in `folder`.
        RetryableError: the engine itself did not answer.
    """
    from pyspark.errors import PySparkException

    try:
        yield
    except PySparkException as error:
        status, fault = words_of(str(error))
        if status in _OF_THE_ENGINE:
            raise RetryableError(f"{folder}: the dataframe engine did not answer ({status}: {fault}); run again") from error
        raise ContractError(f"{folder}: the log cannot be read ({fault}); restore its files or correct the recipe") from error


def words_of(message: str) -> tuple[str, str]:
    """The gRPC status in an exception's message, or nothing, and what it says in one line."""
    status, details = _STATUS.search(message), _DETAILS.search(message)
    first = (message.strip().splitlines() or ["no message"])[0]
    return (status.group(1) if status else ""), (details.group(1) if details else "") or first
