"""How long work says how far it is: a callable that takes the share done and a few words. Nothing in it may fail."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[float, str], None]


def silent(share: float, words: str) -> None:
    """For callers that show nothing."""
