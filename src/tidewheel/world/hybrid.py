"""One day of the world as its servers and clients write it down: the two parts of the hybrid log, and the online store.

Clients are as clients are: some requests are left before anything is seen, some events are delivered twice, reactions take
their time, and what happens around midnight arrives in the next day's partition. The feature store misses now and then.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tidewheel.contracts.hybrid import IMPRESSION, MARKER, SCORE_PREFIX, Part, partition_name
from tidewheel.contracts.recipe import WorldSource
from tidewheel.world.engagements import ENGAGED, ENGAGED_SCHEMA
from tidewheel.world.features import ONLINE, ONLINE_SCHEMA, RAW_FEATURES, FeatureSnapshot
from tidewheel.world.population import LABELS, Requests

LEFT_SHARE = 0.02  # of requests: the user is gone before anything is seen
MISS_SHARE = 0.001  # of candidates: scored without features
REPEAT_SHARE = 0.003  # of events: delivered twice
MEAN_DELAY_SECONDS = {"click": 15.0, "long_view": 45.0, "like": 600.0}  # of a reaction after what came before it
MAX_DELAY_SECONDS = 4 * 3600.0  # no reaction comes later
MEAN_NETWORK_SECONDS = 2.0
PENDING = ".pending"  # events that arrive on a later day than the one being written
_TIME = pa.timestamp("us", tz="UTC")

BACKEND_SCHEMA = pa.schema(
    [
        ("request_id", pa.string()),
        ("user_id", pa.int64()),
        ("item_id", pa.int64()),
        ("author_id", pa.int64()),
        ("served_time", _TIME),
        ("position", pa.int32()),
        ("is_randomized", pa.bool_()),
        ("propensity", pa.float64()),
        ("bundle", pa.string()),
        ("is_feature_miss", pa.bool_()),
        *((SCORE_PREFIX + label, pa.float64()) for label in LABELS),
        ("user_segment", pa.string()),
        ("user_tenure_days", pa.float64()),
        ("item_category", pa.string()),
        ("item_age_days", pa.float64()),
        ("query_category", pa.string()),
        ("surface", pa.string()),
    ]
)
FRONTEND_SCHEMA = pa.schema(
    [
        ("request_id", pa.string()),
        ("item_id", pa.int64()),
        ("served_time", _TIME),
        ("event", pa.string()),
        ("event_time", _TIME),
        ("logged_time", _TIME),
        ("logging_rate", pa.float64()),
    ]
)


@dataclass(frozen=True)
class Slates:
    """What the servers answered on one day: N requests with C candidates each, of which S are shown.

    `shown` (N, S) are candidate indexes, best first; `scores` label -> (N, C), empty while there is no model; `bundles` (N,)
    name what ranked each request, None where nothing has a name.
    """

    day: int
    requests: Requests
    shown: np.ndarray
    is_randomized: np.ndarray
    bundles: np.ndarray
    scores: Mapping[str, np.ndarray]


def partition(folder: Path, source: WorldSource, part: Part, day: int) -> Path:
    """Where a part's partition lies; days count from `source.start`."""
    return folder / part.value / partition_name(source.start + timedelta(days=day))


def is_written(folder: Path, source: WorldSource, day: int) -> bool:
    """The frontend's partition is the last thing that a day leaves."""
    return (partition(folder, source, Part.FRONTEND, day) / MARKER).exists()


def write_day(
    folder: Path,
    source: WorldSource,
    slates: Slates,
    reactions: Mapping[str, np.ndarray],
    snapshot: FeatureSnapshot,
    keep_rng: np.random.Generator,
    client_rng: np.random.Generator,
) -> None:
    """Write a day: the backend's partition, what the online store counts, and last the frontend's partition.

    A day whose writer died is written again from the start.

    Args:
        reactions: label -> (N, S) bool, what users would do with what is shown to them.
        keep_rng: decides which impressions are logged. `client_rng`: everything about clients and feature store.
    """
    start, shape = source.start + timedelta(days=slates.day), slates.shown.shape
    rate = np.where(slates.is_randomized, source.randomized_logging_rate, source.negative_logging_rate)
    rate = np.broadcast_to(rate[:, None], shape)
    is_here = np.broadcast_to(client_rng.random((shape[0], 1)) >= LEFT_SHARE, shape)
    is_miss = client_rng.random(shape) < MISS_SHARE
    seen = _Seen(
        served=np.broadcast_to(slates.requests.seconds[:, None], shape),
        is_logged=(keep_rng.random(shape) < rate) & is_here,
        happened={label: reactions[label] & is_here for label in LABELS},
        delay=_delays(client_rng, shape),
        rate=rate,
    )
    backend = _backend(slates, snapshot, start, is_miss)
    events = _events(backend, start, seen, client_rng)
    is_today = pc.less(events["logged_time"], pa.scalar(start + timedelta(days=1), _TIME))
    today, waiting = events.filter(is_today), folder / PENDING / f"{slates.day}.parquet"
    if waiting.exists():
        today = pa.concat_tables([pq.ParquetFile(waiting).read(), today])
    _publish(backend, partition(folder, source, Part.BACKEND, slates.day))
    _write(events.filter(pc.invert(is_today)), folder / PENDING / f"{slates.day + 1}.parquet")
    _write(_counted(backend, seen, ~is_miss, slates.day), folder / ONLINE / f"{slates.day}.parquet")
    _write(_engaged(backend, seen, ~is_miss, start), folder / ENGAGED / f"{slates.day}.parquet")
    in_order = [("logged_time", "ascending"), ("request_id", "ascending"), ("item_id", "ascending"), ("event", "ascending")]
    _publish(today.sort_by(in_order), partition(folder, source, Part.FRONTEND, slates.day))


@dataclass(frozen=True)
class _Seen:
    """What became of the shown candidates, (N, S) each; `rate` is the probability at which impressions are logged.

    `served` is in seconds of the day, `delay` in seconds from there to the reaction.
    """

    served: np.ndarray
    is_logged: np.ndarray
    happened: Mapping[str, np.ndarray]
    delay: Mapping[str, np.ndarray]
    rate: np.ndarray


def _delays(rng: np.random.Generator, shape: tuple[int, ...]) -> dict[str, np.ndarray]:
    """label -> (N, S) seconds from serving to the reaction; a long view or like comes after the click."""
    click = rng.exponential(MEAN_DELAY_SECONDS["click"], shape)
    later = {label: click + rng.exponential(MEAN_DELAY_SECONDS[label], shape) for label in LABELS if label != "click"}
    return {label: np.minimum(seconds, MAX_DELAY_SECONDS) for label, seconds in ({"click": click} | later).items()}


def _backend(slates: Slates, snapshot: FeatureSnapshot, start: datetime, is_miss: np.ndarray) -> pa.Table:
    """Every shown candidate, request by request in the order of the slate: N * S rows."""
    requests, shape = slates.requests, slates.shown.shape
    rows = np.repeat(np.arange(shape[0]), shape[1])
    flat = Requests(
        users=requests.users[rows],
        surfaces=requests.surfaces[rows],
        queries=requests.queries[rows],
        seconds=requests.seconds[rows],
        candidates=np.take_along_axis(requests.candidates, slates.shown, axis=1).reshape(-1, 1),
    )
    names = np.array([f"{start.date().isoformat()}-{number:06d}" for number in range(shape[0])], dtype=object)
    # Every slot of a uniformly random order holds each of the C candidates with probability 1 / C.
    propensity = np.full(len(rows), 1.0 / requests.candidates.shape[1])
    columns = {
        "request_id": names[rows],
        "served_time": _times(start, flat.seconds),
        "position": np.tile(np.arange(shape[1], dtype=np.int32), shape[0]),
        "is_randomized": slates.is_randomized[rows],
        "propensity": pa.array(propensity, mask=~slates.is_randomized[rows]),
        "bundle": pa.array(slates.bundles[rows], pa.string()),
        "is_feature_miss": is_miss.ravel(),
        **{SCORE_PREFIX + label: _scores(slates, label) for label in LABELS},
        **snapshot.flat(flat, tuple(RAW_FEATURES)),
    }
    missed = [name for name in RAW_FEATURES if not name.endswith("_id")]
    columns |= {name: pa.array(columns[name], mask=is_miss.ravel()) for name in missed}
    return pa.table({name: columns[name] for name in BACKEND_SCHEMA.names}, schema=BACKEND_SCHEMA)


def _scores(slates: Slates, label: str) -> pa.Array:
    if label not in slates.scores:
        return pa.nulls(slates.shown.size, pa.float64())
    return pa.array(np.take_along_axis(slates.scores[label], slates.shown, axis=1).ravel(), from_pandas=True)  # NaN is null


def _events(backend: pa.Table, start: datetime, seen: _Seen, rng: np.random.Generator) -> pa.Table:
    """The clients' events, whenever they arrive: sampled impressions, all engagements, a few of them twice."""
    occurs = {IMPRESSION: seen.is_logged, **seen.happened}
    moments = {IMPRESSION: seen.served + 0.5, **{label: seen.served + seen.delay[label] for label in LABELS}}
    pieces = []
    for event, occurred in occurs.items():
        travel = rng.exponential(MEAN_NETWORK_SECONDS, occurred.size)  # both copies of a repeat arrive at the same moment
        rows = np.flatnonzero(occurred)
        rows = np.sort(np.concatenate([rows, rows[rng.random(len(rows)) < REPEAT_SHARE]]))
        happened_at = moments[event].ravel()[rows]
        columns = {
            **{name: backend[name].take(pa.array(rows)) for name in ("request_id", "item_id", "served_time")},
            "event": pa.array([event] * len(rows), pa.string()),
            "event_time": _times(start, happened_at),
            "logged_time": _times(start, happened_at + travel[rows]),
            "logging_rate": seen.rate.ravel()[rows],
        }
        pieces.append(pa.table({name: columns[name] for name in FRONTEND_SCHEMA.names}, schema=FRONTEND_SCHEMA))
    return pa.concat_tables(pieces)


def _counted(backend: pa.Table, seen: _Seen, is_known: np.ndarray, day: int) -> pa.Table:
    """What this day's impressions add to the online counters, on this day and on the next (see tidewheel.logs.counters).

    `is_known` (N, S): candidates whose features the store had; the others are not counted.
    """
    is_next = {label: seen.served + seen.delay[label] >= 86_400.0 for label in LABELS}
    today = {label: seen.happened[label] & is_known & ~is_next[label] for label in LABELS}
    tomorrow = {label: seen.happened[label] & is_known & is_next[label] for label in LABELS}
    alone = (seen.is_logged & is_known) / seen.rate
    by_today = np.logical_or.reduce(list(today.values()))
    turned = np.logical_or.reduce(list(tomorrow.values())) & ~by_today
    first = [np.where(by_today, 1.0, alone), *(today[label].astype(float) for label in LABELS)]
    second = [np.where(turned, 1.0 - alone, 0.0), *(tomorrow[label].astype(float) for label in LABELS)]
    pieces = []
    for counted_on, weighted in ((day, first), (day + 1, second)):
        rows = np.flatnonzero(np.logical_or.reduce([column != 0 for column in weighted]))
        values = [column.ravel()[rows] for column in weighted]
        for entity in ("user", "item", "author"):
            keys, inverse = np.unique(backend[f"{entity}_id"].to_numpy()[rows], return_inverse=True)
            sums = [np.bincount(inverse, value, len(keys)) for value in values]
            named = dict(zip(("impressions", *LABELS), sums, strict=True))
            fixed = {"entity": [entity] * len(keys), "day": np.full(len(keys), counted_on), "key": keys}
            pieces.append(pa.table(fixed | named, schema=ONLINE_SCHEMA))
    return pa.concat_tables(pieces)


def _engaged(backend: pa.Table, seen: _Seen, is_known: np.ndarray, start: datetime) -> pa.Table:
    """What users did with this day's impressions and when, one row an engagement; `is_known` as for `_counted`."""
    pieces = []
    for label in LABELS:
        rows = np.flatnonzero(seen.happened[label] & is_known)
        columns = {name: backend[name].take(pa.array(rows)) for name in ("user_id", "item_id", "author_id")}
        columns["label"] = pa.array([label] * len(rows), pa.string())
        columns["time"] = _times(start, (seen.served + seen.delay[label]).ravel()[rows])
        pieces.append(pa.table({name: columns[name] for name in ENGAGED_SCHEMA.names}, schema=ENGAGED_SCHEMA))
    return pa.concat_tables(pieces)


def _times(start: datetime, seconds: np.ndarray) -> pa.Array:
    micros = int(start.timestamp()) * 1_000_000 + (seconds * 1e6).astype(np.int64)
    return pa.array(micros, _TIME)


def _publish(table: pa.Table, target: Path) -> None:
    """A partition appears complete, with its marker, or not at all."""
    partial = target.with_name(f".{target.name}-{os.getpid()}")
    shutil.rmtree(target, ignore_errors=True)  # of a writer that died before the day was whole
    try:
        partial.mkdir(parents=True, exist_ok=True)
        pq.write_table(table, partial / "part-0.parquet")
        (partial / MARKER).touch()
        os.rename(partial, target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _write(table: pa.Table, path: Path) -> None:
    path.parent.mkdir(exist_ok=True)
    partial = path.with_name(f".{path.name}-{os.getpid()}")
    try:
        pq.write_table(table, partial)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
