"""Who lives in the world and what is true about them: users, authors, items, and the probability of every reaction.

The truth of one (request, item), before position bias:

    click      = sigmoid(intercept + taste(user, day) . topic(item) + quality + author + age + user + surface + query match)
    long_view  = click x sigmoid(intercept + 0.7 taste . topic + watch quality + query match)
    like       = click x sigmoid(intercept + 0.5 taste . topic + 0.4 watch quality)

An item at position p is looked at with probability `examination(p)`, and only what is looked at can be clicked
(position-based model: Craswell, Zoeter, Taylor, Ramsey 2008, "An experimental comparison of click position-bias models").
Tastes of segments turn by `DRIFT_RADIANS_PER_WEEK` and items live `ITEM_LIFE_DAYS`, a few of them replaced every day:
a model that is never retrained slowly loses its way.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from tidewheel.contracts.recipe import WorldSource

LABELS = ("click", "long_view", "like")
SEGMENTS = ("student", "commuter", "parent", "gamer", "traveller", "retired", "athlete", "night_owl")
CATEGORIES = ("music", "sports", "news", "comedy", "food", "travel", "games", "beauty", "science", "film", "animals", "cars")
SURFACES = ("feed", "search", "related")
NO_QUERY = "none"
QUERIES = (*CATEGORIES, NO_QUERY)

TOPICS = 5  # K: dimensions of tastes and topics
ITEM_LIFE_DAYS = 84
ITEMS_PER_AUTHOR = 12
DRIFT_RADIANS_PER_WEEK = 0.35

_CLICK_INTERCEPT = -3.4
_LONG_VIEW_INTERCEPT = -0.45
_LIKE_INTERCEPT = -1.85
_SURFACE_EFFECT = np.array([0.0, 0.35, -0.2])
_QUERY_MATCH = 1.5
_TASTE_SCALE = 2.0


def sigmoid(logit: np.ndarray) -> np.ndarray:
    return 1.0 / (1.0 + np.exp(-logit))


def examination(position: np.ndarray, power: float = 0.2) -> np.ndarray:
    """Probability in (0, 1] that the item at `position` (from 0) is looked at: 1 / (1 + position) ** power."""
    return (1.0 + np.asarray(position, dtype=np.float64)) ** -power


@dataclass(frozen=True)
class Requests:
    """N requests with C candidates each, as indexes: users (N,), candidates (N, C) of item slots, others (N,).

    `surfaces` index SURFACES, `queries` index QUERIES (the last one: no query), `seconds` count from the day's start.
    """

    users: np.ndarray
    surfaces: np.ndarray
    queries: np.ndarray
    seconds: np.ndarray
    candidates: np.ndarray

    def __len__(self) -> int:
        return len(self.users)


@dataclass(frozen=True)
class Items:
    """The I items that can be shown on one day, in the order of their slots. A slot's next item has a new id."""

    item_id: np.ndarray  # (I,) int64
    author: np.ndarray  # (I,) index of the author; author_id is one more
    category: np.ndarray  # (I,) index into CATEGORIES
    age_days: np.ndarray  # (I,) float64, from 0
    quality: np.ndarray  # (I,) logit of a click, without the author's part
    watch_quality: np.ndarray  # (I,) logit of a long view after the click: what clickbait lacks
    topic: np.ndarray  # (I, K)


@dataclass(frozen=True)
class _Generation:
    """What the slots hold, one item each, for one life of `ITEM_LIFE_DAYS`."""

    author: np.ndarray
    category: np.ndarray
    quality: np.ndarray
    watch_quality: np.ndarray
    topic: np.ndarray


def _unit(rng: np.random.Generator, count: int) -> np.ndarray:
    """(count, K) random directions of length 1."""
    vectors = rng.standard_normal((count, TOPICS))
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


class Population:
    """Everything that is true on any day since `source.start`; a function of the source's seed and sizes only."""

    def __init__(self, source: WorldSource) -> None:
        self.seed = source.seed
        self.num_users = source.num_users
        self.num_items = source.num_items
        self.num_authors = max(4, source.num_items // ITEMS_PER_AUTHOR)
        rng = np.random.default_rng([source.seed, 1])

        popularity = 1.0 / np.arange(2, 2 + len(SEGMENTS))
        self.user_segment = rng.choice(len(SEGMENTS), self.num_users, p=popularity / popularity.sum())
        self.user_activity = rng.lognormal(0.0, 0.7, self.num_users)  # relative number of requests
        self._user_taste = 0.25 * _unit(rng, self.num_users)
        self._user_effect = rng.normal(0.0, 0.4, self.num_users)
        self._tenure_at_start = np.floor(rng.exponential(400.0, self.num_users))

        self._segment_taste = _unit(rng, len(SEGMENTS))
        turn = _unit(rng, len(SEGMENTS))  # where tastes drift to, orthogonal so that they keep their strength
        turn -= self._segment_taste * np.sum(turn * self._segment_taste, axis=1, keepdims=True)
        self._segment_turn = turn / np.linalg.norm(turn, axis=1, keepdims=True)
        self.category_topic = _unit(rng, len(CATEGORIES))  # (12, K)

        self._author_effect = rng.normal(0.0, 0.4, self.num_authors)
        self._author_category = rng.integers(0, len(CATEGORIES), self.num_authors)
        self._slot_phase = rng.integers(0, ITEM_LIFE_DAYS, self.num_items)
        self._generation = lru_cache(maxsize=4)(self._make_generation)
        self._items = lru_cache(maxsize=2)(self._make_items)
        self._taste = lru_cache(maxsize=2)(self._make_taste)

    # --- what is there on a day (days count from the world's start) ---

    def items(self, day: int) -> Items:
        """The catalogue of a day; its size and the distribution of ages are the same on every day."""
        return self._items(day)

    def tenure_days(self, day: int) -> np.ndarray:
        """(U,) whole days since each user signed up."""
        return self._tenure_at_start + day

    def taste(self, day: int) -> np.ndarray:
        """(U, K) what each user likes: the segment's taste of the week plus their own."""
        return self._taste(day)

    def _make_taste(self, day: int) -> np.ndarray:
        angle = DRIFT_RADIANS_PER_WEEK * day / 7
        segment = np.cos(angle) * self._segment_taste + np.sin(angle) * self._segment_turn
        taste: np.ndarray = _TASTE_SCALE * (segment[self.user_segment] + self._user_taste)
        return taste

    def _make_generation(self, number: int) -> _Generation:
        rng = np.random.default_rng([self.seed, 2, number])
        author = rng.integers(0, self.num_authors, self.num_items)
        at_home = rng.random(self.num_items) < 0.7  # authors mostly stay with their category
        category = np.where(at_home, self._author_category[author], rng.integers(0, len(CATEGORIES), self.num_items))
        quality = rng.normal(0.0, 0.5, self.num_items)
        return _Generation(
            author=author,
            category=category,
            quality=quality,
            watch_quality=0.3 * quality + rng.normal(0.0, 0.6, self.num_items),
            topic=self.category_topic[category] + 0.4 * _unit(rng, self.num_items),
        )

    def _make_items(self, day: int) -> Items:
        number, age = np.divmod(day + self._slot_phase, ITEM_LIFE_DAYS)
        old, new = self._generation(int(number.min())), self._generation(int(number.max()))
        is_new = number == number.max()

        def merged(name: str) -> np.ndarray:
            before, after = getattr(old, name), getattr(new, name)
            return np.where(is_new.reshape(-1, *[1] * (before.ndim - 1)), after, before)

        return Items(
            item_id=(number * self.num_items + np.arange(self.num_items) + 1).astype(np.int64),
            age_days=age.astype(np.float64),
            **{name: merged(name) for name in ("author", "category", "quality", "watch_quality", "topic")},
        )

    # --- what is true ---

    def reaction_probabilities(self, day: int, requests: Requests) -> Mapping[str, np.ndarray]:
        """Conditional probabilities (N, C): `click` of an item that is looked at; `long_view` and `like` once clicked."""
        items, shown = self.items(day), requests.candidates
        taste = self.taste(day)[requests.users]
        affinity = np.einsum("nk,nck->nc", taste, items.topic[shown])
        is_asked_for = items.category[shown] == requests.queries[:, None]
        newcomer = 0.25 * np.exp(-self.tenure_days(day)[requests.users] / 60.0)
        click = _CLICK_INTERCEPT + affinity + items.quality[shown] + self._author_effect[items.author[shown]]
        click += 0.5 * np.exp(-items.age_days[shown] / 14.0) + _QUERY_MATCH * is_asked_for
        click += (self._user_effect[requests.users] + newcomer + _SURFACE_EFFECT[requests.surfaces])[:, None]
        long_view = _LONG_VIEW_INTERCEPT + 0.7 * affinity + items.watch_quality[shown] + 0.3 * is_asked_for
        like = _LIKE_INTERCEPT + 0.5 * affinity + 0.4 * items.watch_quality[shown]
        return {"click": sigmoid(click), "long_view": sigmoid(long_view), "like": sigmoid(like)}

    def true_probabilities(self, day: int, requests: Requests) -> dict[str, np.ndarray]:
        """label -> (N, C) probability of each label for an item that is looked at (position 0)."""
        reactions = self.reaction_probabilities(day, requests)
        click = reactions["click"]
        return {"click": click, "long_view": click * reactions["long_view"], "like": click * reactions["like"]}
