"""The world and its hybrid log: days are written when a window first asks for them, ranked by who was production then."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from pathlib import Path

import numpy as np

from tidewheel.contracts.base import digest_of
from tidewheel.contracts.progress import Progress, silent
from tidewheel.contracts.recipe import CounterConfig, LabelConfig, WorldSource
from tidewheel.contracts.schema import FeatureSpec
from tidewheel.contracts.window import iso
from tidewheel.errors import ConfigError
from tidewheel.world.arms import Exposure, HeldOut, Ranked, Serving
from tidewheel.world.demand import Demand
from tidewheel.world.engagements import Engagements
from tidewheel.world.faults import ProductionFaults, check_faults, is_active
from tidewheel.world.features import Counters, FeatureSnapshot, check_features
from tidewheel.world.hybrid import Slates, is_written, write_day
from tidewheel.world.policy import Scorer, explore, rank, utility
from tidewheel.world.population import LABELS, Population, Requests, examination
from tidewheel.world.traffic import WorldTraffic

IDENTITY = "world.sha256"


class World:
    """A seeded world whose hybrid log (docs/hybrid-log.md) lies in `folder`, beside what its online store counted.

    The same source, and the same scorers on the same days, give the same bytes.

    Raises:
        ConfigError: the recipe asks for labels or features that the world does not have, or a slate of all candidates.
    """

    def __init__(
        self,
        source: WorldSource,
        labels: tuple[LabelConfig, ...],
        counters: CounterConfig,
        features: tuple[FeatureSpec, ...],
        folder: Path,
    ) -> None:
        if unknown := [label.name for label in labels if label.name not in LABELS]:
            raise ConfigError(f"labels: the world has no label {', '.join(unknown)}; expected {', '.join(LABELS)}")
        if source.start != source.start.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0):
            raise ConfigError(f"source.start is {iso(source.start)}; expected midnight UTC, a world's day starts there")
        check_features(features, counters)
        check_faults(source.faults, features)
        self.source = source
        self.features = features
        self.folder = folder
        self.population = Population(source)
        self._demand = Demand(self.population)
        if source.slate_size >= self._demand.num_candidates:
            raise ConfigError(
                f"source.slate_size is {source.slate_size}; expected fewer than the {self._demand.num_candidates} candidates"
            )
        self._counters = Counters(folder, source, labels, counters)
        self._engagements = Engagements(folder, source, counters.lookback_days)
        self._exposure = Exposure(folder, source)
        self.snapshot: Callable[[int], FeatureSnapshot] = lru_cache(maxsize=2)(self._make_snapshot)

    # --- time ---

    def day_of(self, moment: datetime) -> int:
        """Whole days from the world's start to `moment`.

        Raises:
            ConfigError: `moment` lies before the world's start.
        """
        if moment < self.source.start:
            raise ConfigError(
                f"the world starts at {iso(self.source.start)}, after {iso(moment)}; choose a later window or source.start"
            )
        return (moment - self.source.start) // timedelta(days=1)

    # --- the log ---

    def ensure_log(
        self,
        until: datetime,
        scorer: Scorer | None,
        bundle: str | None,
        progress: Progress = silent,
        held_out: HeldOut | None = None,
    ) -> int:
        """Write the missing days that end at or before `until`; returns how many. Days that are there stay as they are.

        `scorer` ranks the new days and `bundle` names it in the log; without one, popularity ranks. For the users of `held_out`
        its bundle ranks instead. A day appears complete or not at all.

        Raises:
            ConfigError: `until` lies before the world's start, the folder cannot be written or holds another world's log.
        """
        missing = [day for day in range(self.day_of(until)) if not is_written(self.folder, self.source, day)]
        try:
            self._claim_folder()
            for done, day in enumerate(missing):
                progress(done / len(missing), f"the world's day {day + 1}")
                self._write_day(day, scorer, bundle, held_out)
        except OSError as error:
            raise ConfigError(
                f"world's log {self.folder}: cannot be written ({error.strerror}); choose another folder with --home"
            ) from error
        return len(missing)

    def _claim_folder(self) -> None:
        """Bind the folder to this world: two worlds' days must never mix into one log."""
        identity = digest_of(self.source.model_dump(mode="json", exclude={"faults"}))
        path = self.folder / IDENTITY
        self.folder.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            partial = self.folder / f".{IDENTITY}-{os.getpid()}"
            partial.write_text(identity, encoding="utf-8")
            partial.replace(path)
        if path.read_text(encoding="utf-8") != identity:
            raise ConfigError(
                f"world's log {self.folder}: made by another source section; delete the folder or choose another --home"
            )

    def _write_day(self, day: int, scorer: Scorer | None, bundle: str | None, held_out: HeldOut | None) -> None:
        """One day of the hybrid log. Chance does not depend on the ranking: each purpose has its own generator."""
        *rngs, keep_rng, client_rng, fault_rng = np.random.default_rng([self.source.seed, 3, day]).spawn(6)
        slates, reactions = self.serve_day(day, scorer, bundle, (*rngs, fault_rng), held_out)
        write_day(self.folder, self.source, slates, reactions, self.snapshot(day), keep_rng, client_rng)

    def serve_day(
        self,
        day: int,
        scorer: Scorer | None,
        bundle: str | None,
        rngs: Sequence[np.random.Generator],
        held_out: HeldOut | None = None,
    ) -> tuple[Slates, dict[str, np.ndarray]]:
        """What the servers answer on one day, faults and all, and label -> (N, S) bool what users do with it.

        Args:
            rngs: of demand, order, luck and faults.
        """
        demand_rng, order_rng, luck_rng, fault_rng = rngs
        moment = self.source.start + timedelta(days=day)
        faults = ProductionFaults.at(self.source.faults, self.features, moment)
        requests = self._demand.draw(demand_rng, day, self.source.requests_per_day, faults.surface_share)
        ranked = self._ranked(day, requests, Serving(scorer, bundle, held_out), faults, fault_rng)
        worth = explore(ranked.worth, order_rng)
        is_randomized = order_rng.random(len(requests)) < self.source.randomized_share
        random_order = order_rng.random(worth.shape)
        shown = rank(np.where(is_randomized[:, None], random_order, worth), self.source.slate_size)
        factor = self._reaction_factor(day, faults, ranked.bundles, requests)
        reactions = self._react(day, requests, shown, luck_rng, faults.power, factor)
        if is_active(self.source.faults, "inverted_labels", moment):
            reactions = {label: ~happened for label, happened in reactions.items()}
        return Slates(day, requests, shown, is_randomized, ranked.bundles, ranked.scores), reactions

    def _ranked(
        self, day: int, requests: Requests, serving: Serving, faults: ProductionFaults, rng: np.random.Generator
    ) -> Ranked:
        """What the servers answer: each user's bundle, or popularity where nothing was released yet."""
        bundles = np.full(len(requests), serving.bundle, dtype=object)
        if serving.scorer is None:
            return Ranked(bundles, self.popularity(day, requests), {})
        scores = self._served_scores(day, requests, serving.scorer, faults, rng)
        ranked = Ranked(bundles, utility(scores), scores)
        if (held_out := serving.held_out) is None:
            return ranked
        kept = self._served_scores(day, requests, held_out.scorer, faults, rng)
        is_held = held_out.users(self._users(day, requests))
        return ranked.with_held_out(is_held, Ranked(np.full(len(requests), held_out.bundle, object), utility(kept), kept))

    def _users(self, day: int, requests: Requests) -> np.ndarray:
        """(N,) int64 ids."""
        ids: np.ndarray = self.snapshot(day).user["user_id"][requests.users]
        return ids

    def _served_scores(
        self, day: int, requests: Requests, scorer: Scorer, faults: ProductionFaults, rng: np.random.Generator
    ) -> dict[str, np.ndarray]:
        """`scores` as production's servers answer with them."""
        if not faults.active:
            return self.scores(day, requests, scorer)

        def past(days: int, names: tuple[str, ...]) -> dict[str, np.ndarray]:
            stale = self._make_snapshot(day, counted=max(0, day - days))
            return stale.flat(requests, names)

        columns = faults.served(self.snapshot(day).flat(requests), past, rng)
        return _by_request(faults.scores(scorer.score(columns)), requests)

    def _reaction_factor(self, day: int, faults: ProductionFaults, bundles: np.ndarray, requests: Requests) -> np.ndarray:
        """(N,) how many times as often as they would the requests' users click: they may be tired of a bundle."""
        return self._exposure.reaction_factor(faults.active, day, bundles, self._users(day, requests))

    def _react(
        self,
        day: int,
        requests: Requests,
        shown: np.ndarray,
        rng: np.random.Generator,
        power: float | None,
        factor: np.ndarray,
    ) -> dict[str, np.ndarray]:
        """label -> (N, S) bool: what users did with the items shown; luck belongs to (request, candidate)."""
        places = np.arange(shown.shape[1])
        looked = examination(places) if power is None else examination(places, power)
        luck = rng.random((len(LABELS), *requests.candidates.shape))
        chance = self.population.reaction_probabilities(day, requests)
        happens = {label: np.take_along_axis(luck[index] / chance[label], shown, axis=1) for index, label in enumerate(LABELS)}
        click: np.ndarray = happens["click"] < looked * factor[:, None]
        return {label: click & (happened < 1.0) for label, happened in happens.items()}

    # --- serving ---

    def worth(self, day: int, requests: Requests, scorer: Scorer) -> np.ndarray:
        """(N, C) worth of every candidate by the model's scores, on the features of that day."""
        return utility(self.scores(day, requests, scorer))

    def scores(self, day: int, requests: Requests, scorer: Scorer) -> dict[str, np.ndarray]:
        """label -> (N, C) what the model says of every candidate, on the features of that day."""
        return _by_request(scorer.score(self.snapshot(day).flat(requests)), requests)

    def traffic(self, at: datetime) -> WorldTraffic:
        """The stream of requests from `at` on, for a canary; the log must reach until `at`'s day."""
        day = self.day_of(at)
        return WorldTraffic(self.source, self.population, self._demand, self.snapshot(day), self.features, at, day)

    def popularity(self, day: int, requests: Requests) -> np.ndarray:
        """(N, C) worth without a model: the item's smoothed click rate; its impressions where the recipe counts no clicks."""
        items = self.snapshot(day).item
        rate = items.get("item_click_rate", items["item_impressions"])
        clicks: np.ndarray = rate[requests.candidates]
        return clicks

    def _make_snapshot(self, day: int, counted: int | None = None) -> FeatureSnapshot:
        return FeatureSnapshot(self.population, self._counters, self._engagements, day, self.features, counted)

    # --- truth ---

    def draw_requests(self, day: int, count: int, seed: int = 0) -> Requests:
        """Requests of a day that are neither in the log nor in a canary, to judge a ranking against the truth."""
        return self._demand.draw(np.random.default_rng([self.source.seed, 5, day, seed]), day, count)

    def true_probabilities(self, day: int, requests: Requests) -> dict[str, np.ndarray]:
        """label -> (N, C) true probability of each label for an item that is looked at."""
        return self.population.true_probabilities(day, requests)

    def expected_engagement(self, day: int, requests: Requests, worth: np.ndarray, label: str = "click") -> np.ndarray:
        """(N,) expected number of `label` per request when candidates are ranked by `worth` (N, C): truth, no sampling."""
        shown = rank(worth, self.source.slate_size)
        truth = np.take_along_axis(self.true_probabilities(day, requests)[label], shown, axis=1)
        expected: np.ndarray = (truth * examination(np.arange(shown.shape[1]))).sum(axis=1)
        return expected


def _by_request(scores: Mapping[str, np.ndarray], requests: Requests) -> dict[str, np.ndarray]:
    """label -> (N, C) of scores (N * C,)."""
    shape = requests.candidates.shape
    return {label: np.asarray(column, dtype=np.float64).reshape(shape) for label, column in scores.items()}
