"""Errors by who must act. Their message is one line: place, what was found, what was expected, what to do."""

from __future__ import annotations


class TidewheelError(Exception):
    """Base of every error that a user is meant to read; anything else is a bug.

    Attributes:
        exit_code: what the command line ends with when this error reaches it.
        is_retryable: whether the same call may succeed later without anybody acting.
    """

    exit_code = 1
    is_retryable = False


class ConfigError(TidewheelError):
    """The recipe or the command is wrong: its author must act."""

    exit_code = 2


class PausedError(ConfigError):
    """The recipe paused its own retraining when production was taken back: somebody must look, then resume."""


class ContractError(TidewheelError):
    """Stored bytes are not what their manifest or schema promises: the owner of the data must act."""

    exit_code = 3


class RejectedError(TidewheelError):
    """The data was read and judged unfit: somebody must look at it."""

    exit_code = 3


class RetryableError(TidewheelError):
    """Something outside failed for now (lost race, busy store): try again."""

    is_retryable = True


KINDS: dict[str, type[TidewheelError]] = {
    kind.__name__: kind for kind in (TidewheelError, ConfigError, PausedError, ContractError, RejectedError, RetryableError)
}
