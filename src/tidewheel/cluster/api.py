"""What `doctor --cluster` asks of an API server: one question, one answer, never an exception and never a long wait."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol


class Why(StrEnum):
    """Why something was not seen."""

    ABSENT = "absent"  # it is not there, or its kind is not
    FORBIDDEN = "forbidden"  # this account may not look
    REFUSED = "refused"  # the credentials are not accepted
    SILENT = "silent"  # nobody answers
    UNTRUSTED = "untrusted"  # somebody answers whose certificate is not the cluster's
    STRANGE = "strange"  # an answer that no API server gives, or an error of its own
    LATE = "late"  # it was not asked: the time was up


@dataclass(frozen=True)
class Unseen:
    """No answer, and why: `words` are for people."""

    why: Why
    words: str


Answer = Mapping[str, Any] | Unseen


class Api(Protocol):
    """The one way to a cluster."""

    def ask(self, path: str, body: Mapping[str, Any] | None = None) -> Answer:
        """GET the path, or POST the body to it. Reads and reviews only: a repetition changes nothing. Does IO, never raises."""
        ...


class RememberedApi:
    """Answers by path, in memory. A review is answered by whether its attributes are among `allowed`."""

    def __init__(self, answers: Mapping[str, Answer], allowed: frozenset[str] | None = None) -> None:
        self._answers = answers
        self._allowed = allowed

    def ask(self, path: str, body: Mapping[str, Any] | None = None) -> Answer:
        if body is not None and "resourceAttributes" in body.get("spec", {}):
            asked = body["spec"]["resourceAttributes"]
            right = f"{asked['verb']} {asked['resource']}"
            return {"status": {"allowed": self._allowed is None or right in self._allowed}}
        return self._answers.get(path, Unseen(Why.ABSENT, f"{path} is not there"))


def items(answer: Answer) -> list[Mapping[str, Any]]:
    """Of a list; none where it was not seen."""
    return [] if isinstance(answer, Unseen) else list(answer.get("items") or ())
