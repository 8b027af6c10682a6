"""Logs of the built-in world with models whose truth is known: what verdicts are tried on.

Models score by the true logit of a click and an error of their own: one a (item), one a (user, item), fixed for each model, so
that a model is as wrong tomorrow as today and for every log that is drawn. N requests, C candidates, S shown, B rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property

import numpy as np
import pyarrow as pa

from tidewheel.contracts.comparison import CANDIDATE, PRODUCTION
from tidewheel.contracts.evaluation import EvaluateConfig
from tidewheel.contracts.evidence import Evaluation
from tidewheel.contracts.recipe import LabelConfig, WorldSource
from tidewheel.evaluation.evaluate import Beside, evaluate
from tidewheel.evaluation.metrics import auc
from tidewheel.world.demand import Demand
from tidewheel.world.policy import explore, rank
from tidewheel.world.population import Population, Requests, examination

SOURCE = WorldSource(kind="world", seed=11, start=datetime(2026, 1, 5, tzinfo=UTC), num_users=3000, num_items=600)
LABEL = LabelConfig(name="click")
DAY, SHOWN, TASTES = 10, 8, 4
CENSUS_REQUESTS = 40_000  # what counts as the truth: expected clicks, so only the requests are a sample


@dataclass(frozen=True)
class Model:
    """`size` of its errors in logits. What fits a user worst, and production hardly ever shows, scores `overrated` too high."""

    seed: int
    size: float
    overrated: float = 0.0

    def logits(self, world: Truth, requests: Requests, truth: np.ndarray) -> np.ndarray:
        """(N, C)."""
        random = np.random.default_rng([self.seed, 1])
        of_item = random.normal(0, 1, SOURCE.num_items)
        of_user, of_taste = random.normal(0, 1, (SOURCE.num_users, TASTES)), random.normal(0, 1, (SOURCE.num_items, TASTES))
        pairs = np.einsum("nk,nck->nc", of_user[requests.users], of_taste[requests.candidates]) / TASTES**0.5
        errors = self.size * (of_item[requests.candidates] + pairs)
        return _logit(truth) + errors + self.overrated * (truth < world.worst_fifth)


class Truth:
    """The world on one day, ranked by `production` as its log is, and what models are worth there."""

    def __init__(self, production: Model) -> None:
        self.population = Population(SOURCE)
        self.demand = Demand(self.population)
        self.production = production
        self.worst_fifth = float(np.quantile(self.draw(0, 4000)[1], 0.2))

    def draw(self, seed: int, requests: int) -> tuple[Requests, np.ndarray]:
        """Requests, and the true probability (N, C) of a click on what is looked at."""
        drawn = self.demand.draw(np.random.default_rng([seed, 2]), DAY, requests)
        return drawn, self.population.true_probabilities(DAY, drawn)["click"]

    def shown(self, requests: Requests, truth: np.ndarray, random: np.random.Generator, is_random: np.ndarray) -> np.ndarray:
        """(N, S) candidate indexes in the order of the slate: by production with exploration, or at random."""
        worth = explore(_sigmoid(self.production.logits(self, requests, truth)), random)
        return rank(np.where(is_random[:, None], random.random(worth.shape), worth), SHOWN)

    @cached_property
    def _census(self) -> tuple[Requests, np.ndarray, np.ndarray, np.ndarray]:
        requests, truth = self.draw(1_000_000, CENSUS_REQUESTS)
        shown = self.shown(requests, truth, np.random.default_rng(0), np.zeros(CENSUS_REQUESTS, dtype=bool))
        clicked = np.take_along_axis(truth, shown, 1) * examination(np.arange(SHOWN))
        return requests, truth, shown, clicked

    def auc(self, model: Model) -> float:
        """Of all that production shows."""
        requests, truth, shown, clicked = self._census
        scores = np.take_along_axis(model.logits(self, requests, truth), shown, 1).ravel()
        labels = np.repeat([1, 0], len(scores))
        return auc(np.tile(scores, 2), labels, np.concatenate([clicked.ravel(), 1 - clicked.ravel()])).value

    def of_picks(self, model: Model, top: int) -> float:
        """Expected clicks of the model's first `top` of S candidates that were drawn and placed at random."""
        requests, truth, *_ = self._census
        drawn = np.argsort(np.random.default_rng(1).random(truth.shape), axis=1)[:, :SHOWN]
        looked = float(examination(np.arange(SHOWN)).mean())
        scores = np.take_along_axis(model.logits(self, requests, truth), drawn, 1)
        picks = np.take_along_axis(drawn, rank(scores, top), 1)
        return looked * float(np.take_along_axis(truth, picks, 1).mean())

    def engagement(self, model: Model) -> float:
        """Expected clicks a request if the model ranked all candidates."""
        requests, truth, *_ = self._census
        first = rank(model.logits(self, requests, truth), SHOWN)
        return float((np.take_along_axis(truth, first, 1) * examination(np.arange(SHOWN))).sum(axis=1).mean())

    def worse_by(self, seed: int, gap: float) -> Model:
        """A model with errors of its own whose AUC is production's minus `gap`, within 0.0001."""
        want, low, high = self.auc(self.production) - gap, 0.0, 4.0
        while True:
            model = Model(seed, (low + high) / 2)
            found = self.auc(model)
            if abs(found - want) < 1e-4:
                return model
            low, high = (model.size, high) if found > want else (low, model.size)

    def calibrated(self, model: Model) -> tuple[float, float]:
        """Scale and shift of the logits at which probabilities of a click on what production shows are right (Platt 1999)."""
        requests, truth, shown, clicked = self._census
        logits, target = np.take_along_axis(model.logits(self, requests, truth), shown, 1).ravel(), clicked.ravel()
        design, found = np.stack([logits, np.ones(len(logits))]), np.array([1.0, 0.0])
        for _ in range(12):
            chance = _sigmoid(found @ design)
            curvature = (design * (chance * (1 - chance))) @ design.T
            found = found + np.linalg.solve(curvature, design @ (target - chance))
        return float(found[0]), float(found[1])


@dataclass(frozen=True)
class Logging:
    """How a log is kept: of rows without a click a share `rate`; `is_whole`: of randomized requests every row."""

    requests: int
    rate: float
    randomized_share: float = 0.1
    is_whole: bool = True


class Judge:
    """One candidate beside production, judged on logs."""

    def __init__(self, world: Truth, candidate: Model, config: EvaluateConfig) -> None:
        self.world = world
        self.config = config
        self._models = {CANDIDATE: candidate, PRODUCTION: world.production}
        self._calibration = {name: world.calibrated(model) for name, model in self._models.items()}

    def judge(self, seed: int, logging: Logging) -> Evaluation:
        """What `evaluate` says on one log."""
        random = np.random.default_rng([seed, 3])
        requests, truth = self.world.draw(seed, logging.requests)
        is_random = random.random(logging.requests) < logging.randomized_share
        shown = self.world.shown(requests, truth, random, is_random)
        chance = np.take_along_axis(truth, shown, 1) * examination(np.arange(SHOWN))
        clicked = random.random(shown.shape) < chance
        rate = np.where(is_random[:, None] & logging.is_whole, 1.0, logging.rate)
        is_kept = clicked | (random.random(shown.shape) < rate)
        logits = {name: model.logits(self.world, requests, truth) for name, model in self._models.items()}
        parts = []
        for is_part in (~is_random, is_random):
            rows = np.flatnonzero((is_kept & is_part[:, None]).ravel())
            table = pa.table(
                {
                    "row_key": rows,
                    "user_id": np.repeat(requests.users, SHOWN)[rows],
                    "request_id": np.repeat(np.arange(logging.requests), SHOWN)[rows],
                    "weight": np.where(clicked, 1.0, 1 / rate).ravel()[rows],
                    "propensity": np.full(len(rows), 1 / self.world.demand.num_candidates),
                    "label_click": clicked.ravel()[rows].astype(np.int8),
                }
            )
            parts.append((table, self._scores(logits, shown, rows)))
        (held_out, scores), (randomized, on_randomized) = parts
        beside = Beside(randomized=randomized if randomized.num_rows else None, randomized_scores=on_randomized)
        return evaluate(held_out, scores, [LABEL], self.config, beside)[0]

    def _scores(
        self, logits: Mapping[str, np.ndarray], shown: np.ndarray, rows: np.ndarray
    ) -> dict[str, dict[str, np.ndarray]]:
        found = {}
        for name, values in logits.items():
            scale, shift = self._calibration[name]
            found[name] = {"click": _sigmoid(scale * np.take_along_axis(values, shown, 1).ravel()[rows] + shift)}
        return found


def _logit(chance: np.ndarray) -> np.ndarray:
    return np.log(chance / (1 - chance))


def _sigmoid(logits: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-logits))
