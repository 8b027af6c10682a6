"""Where the requests of a canary come from, and what became of what was shown."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np


@dataclass(frozen=True)
class Request:
    """One request with C candidates.

    `features` are raw columns as in the impression table: user and context features have length 1, item features
    length C; integers are int64, text is object, numbers float64 with NaN for null.
    """

    request_id: str
    user_id: int
    item_ids: np.ndarray  # (C,) int64
    features: Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Outcome:
    """What the user did. `shown` are candidate indexes in the order shown, `labels` and `weights` are aligned with it.

    A recorded row weighs as many impressions as it stands for; live ones weigh 1 each, which `weights` None says.
    """

    shown: np.ndarray  # (S,) int64, S <= C
    labels: Mapping[str, np.ndarray]  # label -> (S,) int8
    weights: np.ndarray | None = None  # (S,) float64


class Traffic(Protocol):
    """Requests in the order of time. Deterministic: the same source gives the same requests and reactions."""

    @property
    def is_closed_loop(self) -> bool:
        """Whether users react to the ranking (world), or outcomes were recorded before (replay)."""

    @property
    def seconds(self) -> float:
        """How much of the traffic's own time has passed since its beginning."""

    def take(self, count: int) -> Sequence[Request]:
        """The next requests: `count` of them, fewer when the source ends."""

    def served_features(self, request: Request, is_candidate: bool) -> Mapping[str, np.ndarray]:
        """The features that this arm's servers see: the request's own, unless something is broken there."""

    def react(self, request: Request, scores: Mapping[str, np.ndarray]) -> Outcome:
        """What happens when the candidates are ranked by `scores` (label -> (C,) probabilities)."""


@runtime_checkable
class SelectiveTraffic(Traffic, Protocol):
    """Traffic that can pass over users at no cost: at a small share most requests belong to neither arm.

    Optional: of other traffic the router takes every request and drops those of the users who are not compared.
    """

    def take_of(self, count: int, is_wanted: Callable[[np.ndarray], np.ndarray]) -> Sequence[Request]:
        """The next `count` requests of wanted users; others' requests before them are gone.

        `is_wanted` maps user ids (N,) int64 to (N,) bool.
        """
