"""The world and its hybrid log: days are written when a window first asks for them, ranked by who was production then."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tidewheel.contracts.base import digest_of
from tidewheel.contracts.progress import Progress, silent
from tidewheel.contracts.recipe import CounterConfig, LabelConfig, WorldSource
from tidewheel.contracts.schema import FeatureSpec, label_column
from tidewheel.contracts.window import iso
from tidewheel.errors import ConfigError
from tidewheel.world.demand import Demand
from tidewheel.world.features import RAW_FEATURES, Counters, FeatureSnapshot, check_features, day_folder
from tidewheel.world.policy import Scorer, explore, rank, utility
from tidewheel.world.population import LABELS, Population, Requests, examination
from tidewheel.world.traffic import WorldTraffic

IDENTITY = "world.sha256"

LOG_SCHEMA = pa.schema(
    [
        ("request_id", pa.string()),
        ("user_id", pa.int64()),
        ("item_id", pa.int64()),
        ("author_id", pa.int64()),
        ("event_time", pa.timestamp("us", tz="UTC")),
        ("position", pa.int32()),
        ("is_randomized", pa.bool_()),
        ("propensity", pa.float64()),
        ("inclusion_probability", pa.float64()),
        *((label_column(label), pa.int8()) for label in LABELS),
        ("bundle", pa.string()),
        ("user_segment", pa.string()),
        ("user_tenure_days", pa.float64()),
        ("item_category", pa.string()),
        ("item_age_days", pa.float64()),
        ("query_category", pa.string()),
        ("surface", pa.string()),
    ]
)


class World:
    """A seeded world whose log lies in `folder`: `date=YYYY-MM-DD/part-0.parquet`, in the columns of `LOG_SCHEMA`.

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

    def ensure_log(self, until: datetime, scorer: Scorer | None, bundle: str | None, progress: Progress = silent) -> int:
        """Write the missing days that end at or before `until`; returns how many. Days that are there stay as they are.

        `scorer` ranks the new days and `bundle` names it in the log; without one, popularity ranks. A day appears
        complete or not at all.

        Raises:
            ConfigError: `until` lies before the world's start, the folder cannot be written or holds another world's log.
        """
        missing = [day for day in range(self.day_of(until)) if not day_folder(self.folder, self.source, day).is_dir()]
        try:
            self._claim_folder()
            for done, day in enumerate(missing):
                progress(done / len(missing), f"the world's day {day + 1}")
                self._publish(day, self._day_table(day, scorer, bundle))
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

    def _publish(self, day: int, table: pa.Table) -> None:
        target = day_folder(self.folder, self.source, day)
        partial = self.folder / f".{target.name}-{os.getpid()}"
        try:
            partial.mkdir(exist_ok=True)
            pq.write_table(table, partial / "part-0.parquet")
            os.rename(partial, target)
        finally:
            shutil.rmtree(partial, ignore_errors=True)

    def _day_table(self, day: int, scorer: Scorer | None, bundle: str | None) -> pa.Table:
        """One day of the hybrid log. Chance does not depend on the ranking: each purpose has its own generator."""
        demand_rng, order_rng, luck_rng, keep_rng = np.random.default_rng([self.source.seed, 3, day]).spawn(4)
        requests = self._demand.draw(demand_rng, day, self.source.requests_per_day)
        worth = explore(self.popularity(day, requests) if scorer is None else self.worth(day, requests, scorer), order_rng)
        is_randomized = order_rng.random(len(requests)) < self.source.randomized_share
        random_order = order_rng.random(worth.shape)
        shown = rank(np.where(is_randomized[:, None], random_order, worth), self.source.slate_size)
        labels = self._react(day, requests, shown, luck_rng)
        is_positive = labels["click"] | labels["long_view"] | labels["like"]
        is_kept = is_positive | (keep_rng.random(shown.shape) < self.source.negative_logging_rate)
        inclusion = np.where(is_positive, 1.0, self.source.negative_logging_rate)
        return self._table(day, requests, shown, is_kept, inclusion, is_randomized, labels, bundle)

    def _react(self, day: int, requests: Requests, shown: np.ndarray, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """label -> (N, S) bool: what users did with the items shown; luck belongs to (request, candidate)."""
        looked = examination(np.arange(shown.shape[1]))
        luck = rng.random((len(LABELS), *requests.candidates.shape))
        chance = self.population.reaction_probabilities(day, requests)
        happens = {label: np.take_along_axis(luck[index] / chance[label], shown, axis=1) for index, label in enumerate(LABELS)}
        click: np.ndarray = happens["click"] < looked
        return {label: click & (happened < 1.0) for label, happened in happens.items()}

    def _table(
        self,
        day: int,
        requests: Requests,
        shown: np.ndarray,
        is_kept: np.ndarray,
        inclusion: np.ndarray,
        is_randomized: np.ndarray,
        labels: Mapping[str, np.ndarray],
        bundle: str | None,
    ) -> pa.Table:
        """The kept impressions in the order of time and position. All of `shown is_kept inclusion labels` are (N, S)."""
        row, position = np.nonzero(is_kept)
        names = tuple(RAW_FEATURES)
        only_shown = Requests(
            users=requests.users[row],
            surfaces=requests.surfaces[row],
            queries=requests.queries[row],
            seconds=requests.seconds[row],
            candidates=np.take_along_axis(requests.candidates, shown, axis=1)[is_kept][:, None],
        )
        start = self.source.start + timedelta(days=day)
        micros = int(start.timestamp()) * 1_000_000 + (only_shown.seconds * 1e6).astype(np.int64)
        # Every slot of a uniformly random order holds each of the C candidates with probability 1 / C.
        propensity = pa.array(np.full(len(row), 1.0 / requests.candidates.shape[1]), mask=~is_randomized[row])
        request_ids = np.array([f"{start.date().isoformat()}-{number:06d}" for number in range(len(requests))], dtype=object)
        columns = {
            "request_id": request_ids[row],
            "event_time": pa.array(micros, pa.timestamp("us", tz="UTC")),
            "position": position.astype(np.int32),
            "is_randomized": is_randomized[row],
            "propensity": propensity,
            "inclusion_probability": inclusion[is_kept],
            "bundle": pa.array([bundle] * len(row), pa.string()),
            **{label_column(label): value[is_kept].astype(np.int8) for label, value in labels.items()},
            **self.snapshot(day).flat(only_shown, names),
        }
        return pa.table({name: columns[name] for name in LOG_SCHEMA.names}, schema=LOG_SCHEMA)

    # --- serving ---

    def worth(self, day: int, requests: Requests, scorer: Scorer) -> np.ndarray:
        """(N, C) worth of every candidate by the model's scores, on the features of that day."""
        scores = scorer.score(self.snapshot(day).flat(requests))
        return utility(scores).reshape(requests.candidates.shape)

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

    def _make_snapshot(self, day: int) -> FeatureSnapshot:
        return FeatureSnapshot(self.population, self._counters, day, self.features)

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
