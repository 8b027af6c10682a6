"""Impressions for tests of the sampler, and recipes for hypothesis."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import strategies as st

from tidewheel.contracts.recipe import WindowConfig
from tidewheel.contracts.sampling import (
    AllPositives,
    Balanced,
    Cap,
    Group,
    NicheBoost,
    Range,
    Rule,
    SampleConfig,
    TrendAdjusted,
)
from tidewheel.contracts.window import Window
from tidewheel.sampling import ArrowCounter

LABELS = ("click", "like", "hate")
END = datetime(2026, 1, 12, tzinfo=UTC)
WINDOW = Window.ending(END, 7)
DAYS = WindowConfig(days=7, eval_days=1, first_end=END)

RATE = st.floats(0.01, 1.0)
BOUND = st.one_of(st.integers(-3, 3), st.sampled_from([0.0, -0.0, 0.5, 1.0, 2.5, -1.5]))
RANGE = st.builds(Range, at_least=BOUND, or_null=st.booleans()) | st.builds(Range, below=BOUND, or_null=st.booleans())
VALUES = st.lists(st.sampled_from([0, 1, 2, -1, None, "1", "feed", "search", "nan", "1e400"]), max_size=3).map(tuple)
WHERE = st.dictionaries(st.sampled_from(["tab", "age", "ratio", "is_new", "days_before_end"]), VALUES | RANGE, max_size=2)
TEXT = st.dictionaries(st.just("surface"), VALUES, max_size=1)
PRESETS = st.sampled_from(
    [
        None,
        AllPositives(negative_rate=0.3),
        Balanced(),
        Balanced(negatives_per_positive=0.2),
        NicheBoost(column="item_id", niche_share=0.4),
        NicheBoost(column="surface", niche_share=0.5, min_rate=0.2),
        TrendAdjusted(half_life_days=1.5),
        TrendAdjusted(half_life_days=0.3, min_rate=0.3),
    ]
)


@st.composite
def rules(draw: st.DrawFn) -> tuple[Rule, ...]:
    """Up to four rules; `like` and `hate` are never downsampled by them, so that any safety rule may stand beside."""
    found = []
    for number in range(draw(st.integers(0, 4))):
        wanted = draw(st.sampled_from([(), ("click",)]))
        denied = draw(st.sampled_from([(), ("like",), ("hate", "like"), *([] if wanted else [("click",), LABELS])]))
        where = draw(WHERE) | draw(TEXT)
        if not (wanted or denied or where):
            continue
        is_any = draw(st.booleans())
        labels = {"any_of": wanted} if is_any else {"all_of": wanted}
        found.append(Rule(name=f"rule_{number}", none_of=denied, where=where, rate=draw(RATE), **labels))
    return tuple(found)


RECIPES = st.builds(
    SampleConfig,
    salt=st.integers(-(2**63), 2**63 - 1),
    exclude=st.sampled_from([(), (Group(name="bots", where={"surface": ("search",)}),)]),
    never_downsample=st.sampled_from([(), ("hate",), ("hate", "like")]),
    rules=rules(),
    preset=PRESETS,
    caps=st.sampled_from(
        [(), (Cap(column="user_id", rows=3),), (Cap(column="user_id", rows=2), Cap(column="surface", rows=9))]
    ),
)


def impressions(count: int, seed: int = 0, days: int = 7) -> pa.Table:
    """Random impressions of the last `days` with everything that engines may read differently: null, NaN, -0.0."""
    rng = np.random.default_rng(seed)
    microseconds = rng.integers(0, days * 86_400_000_000, count)
    # Some stand exactly on the border of two days.
    microseconds = np.where(rng.random(count) < 0.1, microseconds // 86_400_000_000 * 86_400_000_000, microseconds)
    start = int((END - timedelta(days=days)).timestamp() * 1_000_000)
    none = rng.random(count) < 0.1
    return pa.table(
        {
            "row_key": pa.array(rng.integers(-(2**63), 2**63 - 1, count)),
            "request_id": [f"r{number}" for number in range(count)],
            "user_id": pa.array(rng.zipf(1.5, count) % 50),
            "item_id": pa.array(rng.zipf(1.3, count) % 50),
            "event_time": pa.array(start + microseconds, pa.timestamp("us", tz="UTC")),
            "is_randomized": rng.random(count) < 0.1,
            "inclusion_probability": rng.choice([0.1, 0.3, 1.0], count),
            "label_click": pa.array((rng.random(count) < 0.3).astype(np.int8)),
            "label_like": pa.array((rng.random(count) < 0.1).astype(np.int8)),
            "label_hate": pa.array((rng.random(count) < 0.05).astype(np.int8)),
            "tab": pa.array(rng.integers(-1, 3, count), mask=none),
            "surface": pa.array(rng.choice(["feed", "search", "1"], count), mask=none),
            "age": pa.array(rng.choice([0.0, -0.0, 1.0, 2.0, 2.5, np.nan, np.inf, -np.inf], count), mask=none),
            "ratio": pa.array(rng.choice([0.5, 1.0, -1.5], count).astype(np.float32)),
            "is_new": rng.random(count) < 0.5,
        }
    )


def write(table: pa.Table, folder: Path, files: int = 1) -> Path:
    folder.mkdir(parents=True)
    for number in range(files):
        pq.write_table(table.take(np.arange(number, table.num_rows, files)), folder / f"part-{number:05d}.parquet")
    return folder


def read(folder: Path) -> pa.Table:
    return pq.ParquetDataset(sorted(folder.glob("*.parquet"))).read()


def slices(table: pa.Table, count: int) -> list[pa.Table]:
    """The table as `count` partitions, some of which may be empty."""
    return [table.take(np.arange(number, table.num_rows, count)) for number in range(count)]


def counter_of(tables: Sequence[pa.Table]) -> ArrowCounter:
    """Counts the rows of all tables."""
    return ArrowCounter(tables[0].schema, lambda names: (table.select(list(names)) for table in tables))
