"""Does a diagnosis name the injected cause? Many worlds, one cause each: how often it is named first, with its feature.

`python -m bench.diagnose --seeds 200` prints a table: cause, seeds, named first (and which feature), what was named instead.

Each seed is a world of its own: five days ranked by popularity, of which the last two fit a logistic model on the features of
the online store; five days served by the model, so that counters are those of its own ranking (before that, its calibration
does move, and is named); the last of them is held out as offline reference. The day after has one fault of
tidewheel.contracts.faults, through the code with which the world writes its log; only the counters pass through files.
"""

from __future__ import annotations

import argparse
import copy
import sys
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import yaml

from tidewheel.contracts.diagnosis import CauseKind, Diagnosis
from tidewheel.contracts.recipe import CounterConfig, Recipe, WorldSource
from tidewheel.contracts.schema import Entity, FeatureKind, FeatureSpec
from tidewheel.contracts.window import Window
from tidewheel.evaluation.diagnosis.diagnose import Question, diagnose
from tidewheel.evaluation.diagnosis.outcome_shifts import fitted
from tidewheel.evaluation.diagnosis.rows import Rows, sigmoid
from tidewheel.evaluation.diagnosis.served_features import Serving
from tidewheel.ranker.columns import Coded
from tidewheel.world import World
from tidewheel.world.hybrid import Slates
from tidewheel.world.population import Requests

RECIPE = Path(__file__).parents[1] / "recipes" / "quickstart.yaml"
FIT_DAYS, HELD_OUT, ONLINE = (3, 4), 9, 10
LAGS = (1, 2, 3)
UNKNOWN_PAST = {
    Entity.USER: 0.4,
    Entity.ITEM: 0.1,
}  # shares of rows whose user or item the log did not show so many days before
LABEL = "click"
CLIP = 6.0
TEXTS = ("surface", "item_category", "user_segment", "query_category")
COUNTED = ("item_click_rate", "user_click_rate", "author_click_rate", "item_long_view_rate")

Columns = Mapping[str, np.ndarray | Coded]


class Logistic:
    """A logistic model of the world's features, encoded as a bundle's are: standardized, cut, null as the mean."""

    def __init__(self, features: Sequence[FeatureSpec], columns: Columns, labels: np.ndarray, weight: np.ndarray) -> None:
        self._numeric = [feature for feature in features if feature.kind is FeatureKind.NUMERIC]
        values = self._numbers(columns)
        self._mean, self._deviation = values.mean(axis=0), values.std(axis=0) + 1e-9
        self._levels = {name: np.unique(np.asarray(columns[name]).astype(str)) for name in TEXTS}
        design = self._design(columns)
        penalty = np.eye(design.shape[1])  # as so many rows of one half: unpenalized, rare categories would have no finite fit
        rows = np.concatenate([design, penalty, penalty])
        outcomes = np.concatenate([labels, np.zeros(len(penalty)), np.ones(len(penalty))])
        weights = np.concatenate([weight, np.full(2 * len(penalty), 2.0)])
        self._theta, _ = fitted(rows, outcomes, weights, np.zeros(len(rows)))

    def probability(self, columns: Columns) -> np.ndarray:
        return sigmoid(self._design(columns) @ self._theta)

    def score(self, columns: Columns) -> dict[str, np.ndarray]:
        """As a bundle answers: float32."""
        return {LABEL: self.probability(columns).astype(np.float32)}

    def _numbers(self, columns: Columns) -> np.ndarray:
        found = []
        for feature in self._numeric:
            values = np.asarray(columns[feature.name], dtype=np.float64)
            found.append(np.log1p(np.maximum(values, 0.0)) if feature.transform == "log1p" else values)
        return np.column_stack(found)

    def _design(self, columns: Columns) -> np.ndarray:
        numbers = np.clip((self._numbers(columns) - self._mean) / self._deviation, -CLIP, CLIP)
        parts = [np.ones((len(numbers), 1)), np.nan_to_num(numbers, nan=0.0)]
        for name, levels in self._levels.items():
            parts.append(np.eye(len(levels) + 1)[_codes(columns[name], levels), 1:-1])
        asked = [_codes(columns[name], self._levels["item_category"]) for name in ("item_category", "query_category")]
        return np.column_stack([*parts, asked[0] == asked[1]])


def _codes(column: np.ndarray | Coded, levels: np.ndarray) -> np.ndarray:
    """(B,) number of each text among `levels`, their count for any other."""
    number = {level: at for at, level in enumerate(levels.tolist())}
    if isinstance(column, Coded):
        return np.array([number.get(text, len(levels)) for text in column.values])[column.codes]
    codes, values = pd.factorize(column, use_na_sentinel=False)
    return np.array([number.get(text, len(levels)) for text in values.tolist()])[codes]


def _coded(columns: Columns) -> dict[str, np.ndarray | Coded]:
    """As columns of a table come: texts by their number."""
    found: dict[str, np.ndarray | Coded] = dict(columns)
    for name in TEXTS:
        codes, values = pd.factorize(columns[name])
        found[name] = Coded(codes, values.tolist())
    return found


@dataclass(frozen=True)
class Day:
    """The rows of one served day that the log would have, with their features as ingest makes them."""

    rows: Rows
    columns: Columns
    served: np.ndarray
    shown: Requests


class Trial:
    """One world and its model; `online` serves a day with a fault or none. Another `draw` is other luck on the same days."""

    def __init__(self, seed: int, requests: int, folder: Path) -> None:
        recipe = Recipe.model_validate(yaml.safe_load(RECIPE.read_text(encoding="utf-8")))
        changes = {
            "seed": seed,
            "num_users": 600,
            "num_items": 200,
            "requests_per_day": requests,
            "randomized_share": 0.3,
            "negative_logging_rate": 0.5,
            "faults": (),
        }
        self._draw = 0
        self._source = recipe.source.model_copy(update=changes)
        counters = CounterConfig(labels=("click", "long_view"), smoothing=20.0, lookback_days=4)
        self.features = tuple(feature for feature in recipe.features if feature.kind is not FeatureKind.HASHED)
        world = World(self._source, recipe.labels, counters, recipe.features, folder)
        world.ensure_log(self._start(FIT_DAYS[-1] + 1), None, None)
        past = [self._day(world, day, None) for day in FIT_DAYS]
        columns = {name: np.concatenate([np.asarray(day.columns[name]) for day in past]) for name in past[0].columns}
        labels, weight = (np.concatenate([getattr(day.rows, name) for day in past]) for name in ("labels", "weight"))
        self.model = Logistic(self.features, columns, labels, weight)
        world.ensure_log(self._start(ONLINE), self.model, "model")
        self._world = world
        self._stale = {lag: world._make_snapshot(ONLINE, counted=ONLINE - lag) for lag in LAGS}
        self.redraw(0)

    def redraw(self, draw: int) -> None:
        """Other requests and other reactions on the held-out and the online day; users, items and model stay."""
        self._draw = draw
        self.held_out = self._scored(self._day(self._world, HELD_OUT, self.model))

    def _start(self, day: int) -> datetime:
        return self._source.start + timedelta(days=day)

    def _at_fault(self, faults: Sequence[Mapping[str, object]]) -> World:
        """The same world with these faults of production on the online day."""
        moments = {"start": self._start(ONLINE), "end": self._start(ONLINE + 1)}
        document = self._source.model_dump() | {"faults": [{**fault, **moments} for fault in faults]}
        world = copy.copy(self._world)
        world.source = WorldSource.model_validate(document)
        return world

    def online(self, *faults: Mapping[str, object]) -> tuple[Day, Serving]:
        """The day after the evaluation, with these faults of production."""
        day = self._scored(self._day(self._at_fault(faults), ONLINE, self.model))
        history, past, rng = [], {}, np.random.default_rng(self._source.seed)
        count = len(day.rows)
        for number, lag in enumerate(LAGS):
            history.append(self._stale[lag].flat(day.shown, tuple(day.columns)))
            places = number * count + np.arange(count)
            past[lag] = {entity: np.where(rng.random(count) < share, -1, places) for entity, share in UNKNOWN_PAST.items()}
        return day, Serving(
            served=day.served,
            columns=day.columns,
            features=self.features,
            score=self.model.probability,
            history=_coded({name: np.concatenate([part[name] for part in history]) for name in day.columns}),
            past=past,
        )

    def diagnosed(self, *faults: Mapping[str, object]) -> Diagnosis:
        day, serving = self.online(*faults)
        window = Window(start=self._start(ONLINE), end=self._start(ONLINE + 1))
        count = len(day.rows)
        question = Question("bench", LABEL, window, "model", "run", count, count)
        return diagnose(question, day.rows, self.held_out.rows, serving)

    def _scored(self, day: Day) -> Day:
        scores = self.model.score(day.columns)[LABEL].astype(np.float64)
        return Day(Rows(**{**vars(day.rows), "scores": scores}), day.columns, day.served, day.shown)

    def _day(self, world: World, number: int, scorer: Logistic | None) -> Day:
        """A day as its servers answer it, without a file: what ingest would keep of it, at the weight it would give."""
        *rngs, keep_rng = np.random.default_rng([self._source.seed, 11, number, self._draw]).spawn(5)
        slates, reactions = world.serve_day(number, scorer, "model" if scorer else None, rngs)
        is_positive = np.logical_or.reduce(list(reactions.values())).ravel()
        is_kept = is_positive | (keep_rng.random(is_positive.size) < self._source.negative_logging_rate)
        kept = np.flatnonzero(is_kept)
        shown = _shown(slates, kept)
        columns = _coded(world.snapshot(number).flat(shown, tuple(feature.name for feature in self.features)))
        users = world.snapshot(number).user["user_id"][shown.users]
        served = np.full(len(kept), np.nan)
        if scorer is not None:
            served = np.take_along_axis(slates.scores[LABEL], slates.shown, axis=1).ravel()[kept]
        rows = Rows(
            users=users,
            weight=np.where(is_positive, 1.0, 1.0 / self._source.negative_logging_rate)[kept],
            labels=reactions[LABEL].ravel()[kept].astype(np.int8),
            scores=np.zeros(len(kept)),
            position=np.tile(np.arange(slates.shown.shape[1], dtype=np.float64), len(slates.shown))[kept],
            is_randomized=np.repeat(slates.is_randomized, slates.shown.shape[1])[kept],
            mix={name: np.asarray(columns[name]).astype(str) for name in ("surface", "user_segment", "query_category")},
        )
        return Day(rows, columns, served, shown)


def _shown(slates: Slates, kept: np.ndarray) -> Requests:
    """The kept impressions as requests with one candidate each."""
    requests, slots = slates.requests, slates.shown.shape[1]
    of = kept // slots
    candidates = np.take_along_axis(requests.candidates, slates.shown, axis=1).ravel()[kept]
    return Requests(requests.users[of], requests.surfaces[of], requests.queries[of], requests.seconds[of], candidates[:, None])


# --- causes -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Injected:
    """A fault, and what a diagnosis has to name first: the kind, and features among `features` where there are some."""

    name: str
    fault: Mapping[str, object] | None
    kind: CauseKind | None
    features: tuple[str, ...] = ()

    def is_named_by(self, found: Diagnosis) -> bool:
        if self.kind is None:
            return not found.causes
        if not found.causes or found.causes[0].kind is not self.kind:
            return False
        named = found.causes[0].features
        return not self.features or (bool(named) and set(named) <= set(self.features))


def injected(seed: int) -> tuple[Injected, ...]:
    """One of each kind; which feature is hit goes round with the seed."""
    feature = COUNTED[seed % len(COUNTED)]
    items = ("item_click_rate", "item_long_view_rate", "item_impressions")
    return (
        Injected("none", None, None),
        Injected(
            "coverage: a feature is missing on 30%",
            {"kind": "missing_feature", "feature": feature, "share": 0.3},
            CauseKind.COVERAGE,
            (feature,),
        ),
        Injected(
            "value drift: a rate is in percent",
            {"kind": "scaled_feature", "feature": feature, "factor": 100.0},
            CauseKind.VALUE_DRIFT,
            (feature,),
        ),
        Injected(
            "value drift: a rate is 1.4 times too large",
            {"kind": "scaled_feature", "feature": feature, "factor": 1.4},
            CauseKind.VALUE_DRIFT,
            (feature,),
        ),
        Injected(
            "staleness: one counter, 2 days old",
            {"kind": "stale_features", "features": [feature], "days": 2},
            CauseKind.STALENESS,
            (feature,),
        ),
        Injected(
            "staleness: all counters of items, 3 days old",
            {"kind": "stale_features", "features": list(items), "days": 3},
            CauseKind.STALENESS,
            items,
        ),
        Injected(
            "calibration: another calibrator",
            {"kind": "broken_calibrator", "slope": 0.8, "shift": 0.3},
            CauseKind.CALIBRATION,
        ),
        Injected(
            "traffic mix: 70% from search",
            {"kind": "traffic_shift", "surface": "search", "share": 0.7},
            CauseKind.TRAFFIC_MIX,
            ("surface", "query_category"),
        ),
        Injected("position: a layout that hides lower places", {"kind": "layout_change", "power": 1.0}, CauseKind.POSITION),
    )


def trial(world: Trial, causes: Sequence[Injected]) -> dict[str, tuple[bool, str]]:
    """Cause -> whether it was named first, and what was."""
    found = {}
    for cause in causes:
        diagnosis = world.diagnosed(*([cause.fault] if cause.fault else []))
        first = diagnosis.causes[0] if diagnosis.causes else None
        named = f"{first.kind.value} {', '.join(first.features)}".strip() if first else diagnosis.finding.value
        found[cause.name] = cause.is_named_by(diagnosis), named
    return found


def seed_of_its_own(seed: int, requests: int) -> dict[str, tuple[bool, str]]:
    """`trial` of a fresh world."""
    with tempfile.TemporaryDirectory() as folder:
        return trial(Trial(seed, requests, Path(folder)), injected(seed))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=200)
    parser.add_argument("--first", type=int, default=1000, help="the first seed")
    parser.add_argument("--requests", type=int, default=1200, help="a day; eight items each")
    parser.add_argument("--workers", type=int, default=1, help="processes")
    given = parser.parse_args()
    named: Counter[str] = Counter()
    instead: dict[str, Counter[str]] = {}
    seeds = range(given.first, given.first + given.seeds)
    with ProcessPoolExecutor(given.workers) as workers:
        for done, found in enumerate(workers.map(partial(seed_of_its_own, requests=given.requests), seeds), start=1):
            print(f"{done} of {given.seeds}", file=sys.stderr, flush=True)
            for cause, (is_named, first) in found.items():
                named[cause] += is_named
                if not is_named:
                    instead.setdefault(cause, Counter())[first] += 1
    print("| injected | seeds | named first | named instead |\n| --- | --- | --- | --- |")
    for cause in (one.name for one in injected(0)):
        others = ", ".join(f"{name} {count}" for name, count in instead.get(cause, Counter()).most_common(4))
        print(f"| {cause} | {given.seeds} | {named[cause]} ({named[cause] / given.seeds:.1%}) | {others or '-'} |")


if __name__ == "__main__":
    main()
