"""Small splits that keep the contract, and ways to break it."""

import datetime as dt

import numpy as np
import pyarrow as pa

from tidewheel.contracts.recipe import LabelConfig, ValidateConfig
from tidewheel.contracts.schema import Entity, FeatureKind, FeatureSpec
from tidewheel.contracts.window import Window

FEATURES = (
    FeatureSpec(id=1, name="user_id", kind=FeatureKind.HASHED, entity=Entity.USER, num_buckets=16),
    FeatureSpec(id=2, name="tab", kind=FeatureKind.VOCABULARY, entity=Entity.CONTEXT),
    FeatureSpec(id=3, name="price", kind=FeatureKind.NUMERIC, entity=Entity.ITEM),
    FeatureSpec(id=4, name="clicks", kind=FeatureKind.SEQUENCE, entity=Entity.USER, of="item_id", label="click", length=3),
)
LABELS = (LabelConfig(name="click"), LabelConfig(name="like", gated=False))
CONFIG = ValidateConfig(min_rows=100, max_null_share=0.2, min_effective_rows=20)
DAY = dt.datetime(2026, 1, 5, tzinfo=dt.UTC)
WINDOW = Window.ending(DAY + dt.timedelta(days=3), 3)


def lists(values):
    return pa.array(values, pa.list_(pa.int64()))


def split(rows=200, first_key=0, day=0, **changes):
    generator = np.random.default_rng(first_key)
    columns = {
        "row_key": pa.array(range(first_key, first_key + rows), pa.int64()),
        "request_id": pa.array([f"r{i // 2}" for i in range(rows)]),
        "user_id": pa.array(generator.integers(0, 50, rows)),
        "item_id": pa.array(generator.integers(0, 50, rows)),
        "author_id": pa.array(generator.integers(0, 9, rows)),
        "event_time": pa.array([DAY + dt.timedelta(days=day, seconds=i) for i in range(rows)], pa.timestamp("us", "UTC")),
        "position": pa.nulls(rows, pa.int32()),
        "is_randomized": pa.array([False] * rows),
        "propensity": pa.nulls(rows, pa.float64()),
        "inclusion_probability": pa.array([0.25] * rows),
        "weight": pa.array([4.0] * rows),
        "label_click": pa.array([i % 2 for i in range(rows)], pa.int8()),
        "label_like": pa.array([int(i % 10 == 0) for i in range(rows)], pa.int8()),
        "tab": pa.array(["main" if i % 3 else "side" for i in range(rows)]),
        "price": pa.array(generator.normal(size=rows)),
        "clicks": lists([[7] * (i % 4) for i in range(rows)]),
        "clicks_age_hours": lists([list(range(i % 4)) for i in range(rows)]),
    }
    columns.update(changes)
    return pa.table({name: column for name, column in columns.items() if column is not None})


def splits(**train):
    return {"train": split(**train), "calibration": split(80, 1000, day=1), "eval": split(80, 2000, day=2)}
