"""What users ask for, and the candidates that retrieval finds for them."""

from __future__ import annotations

import numpy as np

from tidewheel.world.population import CATEGORIES, QUERIES, SURFACES, Population, Requests

NUM_CANDIDATES = 24  # per request, in the log and in a canary alike, so that both rank the same kind of list

_SURFACE_SHARE = np.array([0.5, 0.3, 0.2])
_SEARCH = SURFACES.index("search")
_NO_QUERY = len(QUERIES) - 1
_SECONDS_PER_DAY = 86_400


class Demand:
    """Draws requests; everything follows from the generator that is handed in."""

    def __init__(self, population: Population) -> None:
        self._population = population
        self._cumulative_activity = np.cumsum(population.user_activity)
        self._cumulative_activity /= self._cumulative_activity[-1]
        self.num_candidates = min(NUM_CANDIDATES, population.num_items)

    def draw(self, rng: np.random.Generator, day: int, count: int, surface_share: tuple[str, float] | None = None) -> Requests:
        """`count` requests of one day in the order of time, each with distinct candidates in random order.

        `surface_share`: one surface has this share of the requests, the others keep their proportions.
        """
        users = np.searchsorted(self._cumulative_activity, rng.random(count))
        surfaces = rng.choice(len(SURFACES), count, p=_shares(surface_share))
        wished = self._wished_category(rng, day, users)
        queries = np.where(surfaces == _SEARCH, wished, _NO_QUERY)
        return Requests(
            users=users,
            surfaces=surfaces,
            queries=queries,
            seconds=_seconds_of_day(rng, count),
            candidates=self._retrieve(rng, day, wished),
        )

    def _wished_category(self, rng: np.random.Generator, day: int, users: np.ndarray) -> np.ndarray:
        """(N,) a category for each user, likelier the better it fits the user's taste (Gumbel-max sampling)."""
        fit = self._population.taste(day)[users] @ self._population.category_topic.T
        noise = rng.gumbel(size=(len(users), len(CATEGORIES)))
        return np.argmax(fit + noise, axis=1)

    def _retrieve(self, rng: np.random.Generator, day: int, wished: np.ndarray) -> np.ndarray:
        """(N, C) distinct item slots: up to a third from the wished category, the rest from the whole catalogue."""
        count, wanted = len(wished), self.num_candidates
        category = self._population.items(day).category
        by_category = np.lexsort((rng.random(len(category)), category))
        sizes = np.bincount(category, minlength=len(CATEGORIES))
        starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])

        size = np.maximum(sizes[wished], 1)[:, None]
        offset = (rng.integers(0, 1 << 30, (count, 1)) + np.arange(max(1, wanted // 3))) % size
        fitting = by_category[np.minimum(starts[wished][:, None] + offset, len(category) - 1)]

        # C steps of a stride coprime to the catalogue's size through a shuffled catalogue: C distinct slots.
        shuffled = rng.permutation(len(category))
        strides = _coprimes(len(category))
        stride = strides[rng.integers(0, len(strides), count)][:, None]
        walk = (rng.integers(0, len(category), (count, 1)) + stride * np.arange(wanted)) % len(category)
        return _first_distinct(rng, np.concatenate([fitting, shuffled[walk]], axis=1), wanted)


def _shares(surface_share: tuple[str, float] | None) -> np.ndarray:
    """(3,) of each surface."""
    if surface_share is None:
        return _SURFACE_SHARE
    surface, share = surface_share
    others = np.where(np.array(SURFACES) == surface, 0.0, _SURFACE_SHARE)
    return np.where(np.array(SURFACES) == surface, share, (1.0 - share) * others / others.sum())


def _coprimes(size: int) -> np.ndarray:
    """Numbers in [1, size) that share no divisor with `size`; 1 alone where there is no other."""
    numbers = np.arange(1, max(2, size))
    return numbers[np.gcd(numbers, size) == 1]


def _first_distinct(rng: np.random.Generator, drawn: np.ndarray, wanted: int) -> np.ndarray:
    """(N, wanted): the first `wanted` distinct values of each row, in random order. Every row must have that many."""
    order = np.argsort(drawn, axis=1, kind="stable")
    in_order = np.take_along_axis(drawn, order, axis=1)
    is_repeat = np.zeros(drawn.shape, dtype=bool)
    np.put_along_axis(is_repeat, order[:, 1:], in_order[:, 1:] == in_order[:, :-1], axis=1)
    first = np.argsort(is_repeat, axis=1, kind="stable")[:, :wanted]
    shuffled = np.argsort(rng.random(first.shape), axis=1)
    return np.take_along_axis(drawn, np.take_along_axis(first, shuffled, axis=1), axis=1)


def _seconds_of_day(rng: np.random.Generator, count: int) -> np.ndarray:
    """(N,) ascending seconds in [0, 86400): half of the requests at any time, half around eight in the evening."""
    evening = (20 / 24 + 0.1 * rng.standard_normal(count)) % 1.0
    share_of_day = np.where(rng.random(count) < 0.5, rng.random(count), evening)
    seconds: np.ndarray = np.sort(share_of_day * _SECONDS_PER_DAY)
    return np.minimum(seconds, _SECONDS_PER_DAY - 1e-3)
