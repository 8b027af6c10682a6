"""How the world's service ranks: by a model's scores, or by popularity until there is one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import numpy as np

from tidewheel.errors import ContractError

# Worth of one reaction when ranking; labels that a model does not score count nothing.
LABEL_WORTH: Mapping[str, float] = {"click": 1.0, "long_view": 0.5, "like": 0.5}
EXPLORATION = 0.5  # standard deviation of the logarithm of the worth when the log is served


class Scorer(Protocol):
    """A model: raw columns of n rows in, label -> (n,) probabilities out. The same columns give the same scores."""

    def score(self, columns: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]: ...


def utility(scores: Mapping[str, np.ndarray]) -> np.ndarray:
    """Expected worth of showing each candidate, in the shape of the scores.

    Raises:
        ContractError: no score of `click`, without which nothing can be ranked.
    """
    if "click" not in scores:
        raise ContractError(f"scores of {', '.join(sorted(scores)) or 'no label'}; expected click among them to rank by")
    total: np.ndarray = sum(
        (worth * np.asarray(scores[label], dtype=np.float64) for label, worth in LABEL_WORTH.items() if label in scores),
        start=np.zeros(np.shape(scores["click"])),
    )
    return total


def rank(worth: np.ndarray, slate_size: int) -> np.ndarray:
    """(..., C) worth -> (..., S) candidate indexes, best first; equal worth in the order of retrieval, NaN last."""
    order: np.ndarray = np.argsort(-worth, axis=-1, kind="stable")[..., :slate_size]
    return order


def explore(worth: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Worth with noise in proportion to it: a log that only ever shows the known best teaches the next model little."""
    return worth * np.exp(EXPLORATION * rng.standard_normal(worth.shape))
