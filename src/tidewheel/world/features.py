"""The world's online feature store: raw features and as-of counters, as a server would read them on a given day."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tidewheel.contracts.recipe import CounterConfig, LabelConfig, WorldSource
from tidewheel.contracts.schema import Entity, FeatureKind, FeatureSpec, feature_columns
from tidewheel.errors import ConfigError, ContractError
from tidewheel.world.engagements import Engagements
from tidewheel.world.population import CATEGORIES, LABELS, QUERIES, SEGMENTS, SURFACES, Population, Requests

# What the log carries beside ids, and whose property it is. Counters are not logged: ingest computes them.
RAW_FEATURES: Mapping[str, Entity] = {
    "user_id": Entity.USER,
    "user_segment": Entity.USER,
    "user_tenure_days": Entity.USER,
    "item_id": Entity.ITEM,
    "author_id": Entity.ITEM,
    "item_category": Entity.ITEM,
    "item_age_days": Entity.ITEM,
    "query_category": Entity.CONTEXT,
    "surface": Entity.CONTEXT,
}
ONLINE = ".online"  # <day>.parquet: what the impressions of a day add to the counters, and on which day
ONLINE_SCHEMA = pa.schema(
    [
        ("entity", pa.string()),
        ("day", pa.int32()),  # since the world's start: that of the impressions, or the day after
        ("key", pa.int64()),
        *((name, pa.float64()) for name in ("impressions", *LABELS)),
    ]
)
COUNTED: Mapping[str, Entity] = {"user": Entity.USER, "item": Entity.ITEM, "author": Entity.ITEM}

_SEGMENT_TEXT = np.array(SEGMENTS, dtype=object)
_CATEGORY_TEXT = np.array(CATEGORIES, dtype=object)
_QUERY_TEXT = np.array(QUERIES, dtype=object)
_SURFACE_TEXT = np.array(SURFACES, dtype=object)


def known_features(counters: CounterConfig) -> dict[str, Entity]:
    """Every feature that the world can serve, with whose property it is."""
    names = dict(RAW_FEATURES)
    for counted, entity in COUNTED.items():
        names[f"{counted}_impressions"] = entity
        names |= {f"{counted}_{label}_rate": entity for label in counters.labels}
    return names


def check_features(features: tuple[FeatureSpec, ...], counters: CounterConfig) -> None:
    """Every feature of the recipe is one of the world's and says rightly whose property it is.

    Raises:
        ConfigError: a feature is unknown, or belongs to another entity, or a number is not declared numeric; a sequence is of
            what the world's online store does not keep.
    """
    known = known_features(counters)
    for feature in features:
        if feature.is_sequence:
            if feature.of not in ("item_id", "author_id") or feature.label not in LABELS:
                raise ConfigError(
                    f"features: {feature.name} is of {feature.of} with label '{feature.label}'; the world expects item_id or "
                    f"author_id, and one of {', '.join(LABELS)}"
                )
            continue
        if feature.name not in known:
            close = difflib.get_close_matches(feature.name, known, n=1)
            hint = f"did you mean {close[0]}?" if close else f"expected one of {', '.join(sorted(known))}"
            raise ConfigError(f"features: the world has no feature {feature.name}; {hint}")
        if feature.entity is not known[feature.name]:
            raise ConfigError(
                f"features: {feature.name} says entity {feature.entity.value}; the world expects {known[feature.name].value}"
            )
        is_number = feature.name not in RAW_FEATURES or feature.name.endswith("_days")
        if is_number != (feature.kind is FeatureKind.NUMERIC):
            wanted = "numeric" if is_number else "hashed or vocabulary"
            raise ConfigError(f"features: {feature.name} says kind {feature.kind.value}; expected {wanted} in the world")


@dataclass(frozen=True)
class _DayTotals:
    """Weighted sums of one logged day for one counted entity: keys (K,) and totals (K, 1 + labels), impressions first."""

    keys: np.ndarray
    totals: np.ndarray


class Counters:
    """As-of counters over the world in `folder`, exactly as `CounterConfig` defines them."""

    def __init__(self, folder: Path, source: WorldSource, labels: tuple[LabelConfig, ...], config: CounterConfig) -> None:
        self._folder = folder
        self._source = source
        self._config = config
        priors = {label.name: label.prior for label in labels}
        if unknown := [label for label in config.labels if label not in LABELS or label not in priors]:
            raise ConfigError(
                f"ingest.counters.labels names {', '.join(unknown)}; expected labels of the world: {', '.join(LABELS)}"
            )
        self._priors = np.array([priors[label] for label in config.labels])
        self._days = lru_cache(maxsize=4 * config.lookback_days)(self._read_day)

    def as_of(self, day: int, entity: str, keys: np.ndarray) -> dict[str, np.ndarray]:
        """Counters of `keys` as known at the start of `day`; each of them float64 and as long as `keys`.

        Raises:
            ContractError: a day between the world's start and `day` is missing or unreadable.
        """
        order = np.argsort(keys)
        totals = np.zeros((len(keys), 1 + len(self._config.labels)))
        first = day - self._config.lookback_days
        for past in range(max(0, first - 1), day):  # a day's impressions may also count on the day after
            for counted_on, logged in self._days(past)[entity].items():
                if not first <= counted_on < day or not len(keys):
                    continue
                place = np.minimum(np.searchsorted(keys, logged.keys, sorter=order), len(keys) - 1)
                target = order[place]
                is_wanted = keys[target] == logged.keys
                totals[target[is_wanted]] += logged.totals[is_wanted]  # keys of a day are distinct
        impressions, smoothing = totals[:, 0], self._config.smoothing
        columns = {f"{entity}_impressions": impressions}
        for index, label in enumerate(self._config.labels):
            prior = self._priors[index]
            columns[f"{entity}_{label}_rate"] = (totals[:, 1 + index] + smoothing * prior) / (impressions + smoothing)
        return columns

    def _read_day(self, day: int) -> dict[str, dict[int, _DayTotals]]:
        """entity -> day on which they count -> what the impressions of `day` add."""
        path = self._folder / ONLINE / f"{day}.parquet"
        try:
            table = pq.ParquetFile(path).read()
        except (OSError, ValueError, KeyError) as error:
            raise ContractError(
                f"{path}: cannot be read as the world's counters ({error}); delete the world's folder to make it again"
            ) from error
        found: dict[str, dict[int, _DayTotals]] = {entity: {} for entity in COUNTED}
        for entity in COUNTED:
            for counted_on in (day, day + 1):
                rows = table.filter((pc.field("entity") == entity) & (pc.field("day") == counted_on))
                totals = np.column_stack([rows[name].to_numpy() for name in ("impressions", *self._config.labels)])
                found[entity][counted_on] = _DayTotals(rows["key"].to_numpy(), totals)
        return found


class RequestFeatures(Mapping[str, np.ndarray]):
    """The features of one request: user and context features (1,), sequences (1, L), item features (C,).

    Rows are cut out when asked for.
    """

    __slots__ = ("_context", "_slots", "_snapshot", "_user")

    def __init__(self, snapshot: FeatureSnapshot, user: int, surface: int, query: int, slots: np.ndarray) -> None:
        self._snapshot = snapshot
        self._user = user
        self._context = {"surface": surface, "query_category": query}
        self._slots = slots

    def __getitem__(self, name: str) -> np.ndarray:
        return self._snapshot.column(name, self._user, self._context, self._slots)

    def __iter__(self) -> Iterator[str]:
        return iter(self._snapshot.names)

    def __len__(self) -> int:
        return len(self._snapshot.names)


class FeatureSnapshot:
    """What the online store answers on one day: by user index, by item slot, by context.

    Counters and sequences are those of `counted` where that is given, an earlier day: the store was not updated since.
    """

    def __init__(
        self,
        population: Population,
        counters: Counters,
        engagements: Engagements,
        day: int,
        features: tuple[FeatureSpec, ...],
        counted: int | None = None,
    ) -> None:
        items = population.items(day)
        counted = day if counted is None else counted
        user_id = np.arange(1, population.num_users + 1, dtype=np.int64)
        author_id = np.arange(1, population.num_authors + 1, dtype=np.int64)
        by_author = counters.as_of(counted, "author", author_id)
        self.user: dict[str, np.ndarray] = {
            "user_id": user_id,
            "user_segment": _SEGMENT_TEXT[population.user_segment],
            "user_tenure_days": population.tenure_days(day),
            **counters.as_of(counted, "user", user_id),
        }
        for feature in features:
            if feature.is_sequence:
                self.user |= engagements.as_of(counted, feature, user_id)
        self.item: dict[str, np.ndarray] = {
            "item_id": items.item_id,
            "author_id": author_id[items.author],
            "item_category": _CATEGORY_TEXT[items.category],
            "item_age_days": items.age_days,
            **counters.as_of(counted, "item", items.item_id),
            **{name: column[items.author] for name, column in by_author.items()},
        }
        self.names = feature_columns(features)

    def column(self, name: str, user: int, context: Mapping[str, int], slots: np.ndarray) -> np.ndarray:
        """One feature of one request, see `RequestFeatures`."""
        if name not in self.names:
            raise KeyError(name)
        if name in self.item:
            return self.item[name][slots]
        if name in self.user:
            return self.user[name][user : user + 1]
        text = _SURFACE_TEXT if name == "surface" else _QUERY_TEXT
        return text[context[name] : context[name] + 1]

    def flat(self, requests: Requests, names: tuple[str, ...] | None = None) -> dict[str, np.ndarray]:
        """name -> (N * C,), of a sequence (N * C, L): every candidate of every request as one row, request by request."""
        shape = requests.candidates.shape
        context = {"surface": _SURFACE_TEXT[requests.surfaces], "query_category": _QUERY_TEXT[requests.queries]}
        columns = {}
        for name in names or self.names:
            if name in self.item:
                columns[name] = self.item[name][requests.candidates].ravel()
            else:
                per_request = self.user[name][requests.users] if name in self.user else context[name]
                columns[name] = np.repeat(per_request, shape[1], axis=0)
        return columns
