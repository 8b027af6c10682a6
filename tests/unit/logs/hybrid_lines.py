"""Small hybrid logs for tests: lines as dictionaries, written in both parts, ingested, read back."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from tidewheel.contracts.hybrid import MARKER
from tidewheel.contracts.recipe import CounterConfig, HybridSource, IngestConfig, LabelConfig
from tidewheel.contracts.schema import Entity, FeatureKind, FeatureSpec
from tidewheel.contracts.window import Window
from tidewheel.logs import IngestResult, ingest

START = datetime(2026, 1, 5, tzinfo=UTC)
HORIZON = timedelta(hours=6)
SOURCE = HybridSource(kind="hybrid", labels=("click", "like"))
LABELS = (LabelConfig(name="click", prior=0.1), LabelConfig(name="like", prior=0.02, gated=False))
COUNTERS = CounterConfig(labels=("click", "like"), smoothing=10, lookback_days=2)
CONFIG = IngestConfig(max_quarantine_share=0.9, counters=COUNTERS)
TIME = pa.timestamp("us", tz="UTC")
BACKEND = pa.schema(
    [
        ("request_id", pa.string()),
        ("user_id", pa.int64()),
        ("item_id", pa.int64()),
        ("author_id", pa.int64()),
        ("served_time", TIME),
        ("position", pa.int32()),
        ("is_randomized", pa.bool_()),
        ("propensity", pa.float64()),
        ("bundle", pa.string()),
        ("is_feature_miss", pa.bool_()),
        ("score_click", pa.float64()),
        ("surface", pa.string()),
        ("price", pa.float64()),
    ]
)
FRONTEND = pa.schema(
    [
        ("request_id", pa.string()),
        ("item_id", pa.int64()),
        ("served_time", TIME),
        ("event", pa.string()),
        ("event_time", TIME),
        ("logged_time", TIME),
        ("logging_rate", pa.float64()),
    ]
)


def feature(number: int, name: str, kind: FeatureKind = FeatureKind.NUMERIC, buckets: int = 0) -> FeatureSpec:
    return FeatureSpec(id=number, name=name, kind=kind, entity=Entity.CONTEXT, num_buckets=buckets)


FEATURES = (
    feature(1, "user_id", FeatureKind.HASHED, 64),
    feature(2, "surface", FeatureKind.VOCABULARY),
    feature(3, "price"),
    *(
        feature(4 + number, name)
        for number, name in enumerate(
            f"{entity}_{what}" for entity in ("user", "item") for what in ("click_rate", "impressions")
        )
    ),
    FeatureSpec(id=8, name="item_id", kind=FeatureKind.HASHED, entity=Entity.ITEM, num_buckets=64),
    *(
        FeatureSpec(
            id=number,
            name=name,
            kind=FeatureKind.SEQUENCE,
            entity=Entity.USER,
            of="item_id",
            label=label,
            length=length,
        )
        for number, name, label, length in ((9, "recent_likes", "like", 4), (10, "recently_seen", "", 40))
    ),
)
AS_OF = (*FEATURES[3:7], *FEATURES[8:])


def at(days: float, seconds: float = 0.0) -> datetime:
    return START + timedelta(days=days, seconds=seconds)


def candidate(request: str, item: int, served: datetime, **changes: object) -> dict[str, object]:
    row = {
        "request_id": request,
        "user_id": int(request.lstrip("r")) % 5,
        "item_id": item,
        "author_id": item // 2,
        "served_time": served,
        "position": 0,
        "is_randomized": False,
        "propensity": None,
        "bundle": None,
        "is_feature_miss": False,
        "score_click": 0.5,
        "surface": "feed",
        "price": 1.5,
    }
    return row | changes


def event(of: dict[str, object], what: str, after_seconds: float = 1.0, **changes: object) -> dict[str, object]:
    happened = of["served_time"] + timedelta(seconds=after_seconds)
    row = {name: of[name] for name in ("request_id", "item_id", "served_time")}
    row |= {"event": what, "event_time": happened, "logged_time": happened + timedelta(seconds=1), "logging_rate": 0.25}
    return row | changes


def write(folder: Path, candidates: list, events: list, days: range = range(7), arrivals: dict | None = None) -> Path:
    """Write both parts for these days since START; a line arrives when it happened, unless `arrivals` says otherwise."""
    for part, rows, schema, column in (
        ("backend", candidates, BACKEND, "served_time"),
        ("frontend", events, FRONTEND, "logged_time"),
    ):
        for day in days:
            target = folder / part / f"date={at(day).date()}"
            target.mkdir(parents=True)
            arrived = (arrivals or {}).get
            own = [
                row for row in rows if (arrived(id(row)) if arrived(id(row)) is not None else (row[column] - START).days) == day
            ]
            pq.write_table(pa.Table.from_pylist(own, schema), target / "part-0.parquet")
            (target / MARKER).touch()
    return folder


def run(spark, log: Path, out: Path, start: float = 2, end: float = 5, **more: object) -> IngestResult:
    window = Window(start=at(start), end=at(end))
    options = {"source": SOURCE, "config": CONFIG} | more
    return ingest(
        spark,
        options.pop("source"),
        LABELS,
        FEATURES,
        options.pop("config"),
        window,
        out,
        log,
        HORIZON,
        options.pop("cache", None),
    )


def read(folder: Path) -> pd.DataFrame:
    paths = sorted(folder.rglob("*.parquet"))
    return pd.concat([pd.read_parquet(path) for path in paths], ignore_index=True) if paths else pd.DataFrame()


def filler(first: int = 900) -> tuple[list, list]:
    """A clicked and a liked row on day 2: a window without positives would be refused."""
    rows = [candidate(f"r{first + number}", 90 + number, at(2, 60 + number)) for number in range(2)]
    return rows, [event(row, what) for row in rows for what in ("click", "like")]


def random_log(seed: int, days: int = 7, requests: int = 12) -> tuple[list, list]:
    """Candidates and events with repeats, reactions around midnight and beyond the horizon, misses and orphans."""
    rng = np.random.default_rng(seed)
    rows, events = [], []
    for day in range(days):
        for number in range(requests):
            served = at(day, float(rng.integers(0, 86_400)))
            for item in rng.choice(8, 3, replace=False):
                row = candidate(f"r{day * 100 + number}", int(item), served, price=float(rng.integers(0, 9)))
                row["is_feature_miss"] = bool(rng.random() < 0.03)
                rows += [row] * (2 if rng.random() < 0.1 else 1)
                if rng.random() < 0.05:
                    row = candidate("r99999", int(item), served)
                own = []
                if rng.random() < 0.5:
                    own.append(event(row, "impression", 1.0))
                for label in ("click", "like"):
                    if rng.random() < 0.3:
                        own.append(event(row, label, float(rng.choice([5.0, 1800.0, 5 * 3600.0, 8 * 3600.0]))))
                events += own + [one for one in own if rng.random() < 0.1]
    return rows, events
