"""The real Great Expectations on small tables; its import is most of the time here."""

import datetime as dt
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pytest

from tidewheel.contracts.recipe import LabelConfig, ValidateConfig
from tidewheel.contracts.schema import Entity, FeatureKind, FeatureSpec
from tidewheel.contracts.verdict import Phase
from tidewheel.contracts.window import Window
from tidewheel.quality import Past, validate

FEATURES = (
    FeatureSpec(id=1, name="user_id", kind=FeatureKind.HASHED, entity=Entity.USER, num_buckets=16),
    FeatureSpec(id=2, name="tab", kind=FeatureKind.VOCABULARY, entity=Entity.CONTEXT),
    FeatureSpec(id=3, name="price", kind=FeatureKind.NUMERIC, entity=Entity.ITEM),
)
LABELS = (LabelConfig(name="click"), LabelConfig(name="like", gated=False))
CONFIG = ValidateConfig(min_rows=100, max_null_share=0.2)
DAY = dt.datetime(2026, 1, 5, tzinfo=dt.UTC)
WINDOW = Window.ending(DAY + dt.timedelta(days=3), 3)


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
    }
    columns.update(changes)
    return pa.table({name: column for name, column in columns.items() if column is not None})


def splits(**train):
    return {"train": split(**train), "calibration": split(80, 1000, day=1), "eval": split(80, 2000, day=2)}


def judged(tables, baseline=None, config=CONFIG):
    report, profile = validate(tables, FEATURES, LABELS, config, WINDOW, Past(baseline))
    return report.verdict, profile


def bad(verdict):
    return [reason for reason in verdict.reasons if reason.phase is not Phase.SUCCESSFUL]


def test_healthy_splits_pass_and_the_first_run_says_that_there_is_no_production():
    verdict, profile = judged(splits())
    assert bad(verdict) == []
    assert "no production yet: nothing to compare the data with" in [reason.message for reason in verdict.reasons]
    assert profile.rows == 200
    again, _ = judged(splits(), profile)
    assert again.is_successful


@pytest.mark.parametrize(
    ("changes", "want_message"),
    [
        ({"tab": None}, "train: missing columns tab; expected all 15 of the contract"),
        ({"rows": 50}, "train: 50 rows < 100"),
        (
            {"weight": pa.array([4.0] * 198 + [0.0, float("inf")])},
            "train weight: 2 of 200 values not finite and above 0, e.g. 0, inf",
        ),
        ({"weight": pa.array([4.0] * 199 + [None])}, "train weight: 1 of 200 values null (0.50% > 0)"),
        (
            {"inclusion_probability": pa.array([1.0] * 199 + [1.5])},
            "train inclusion_probability: 1 of 200 values not in (0, 1], e.g. 1.5",
        ),
        (
            {"label_click": pa.array([0, 1] * 99 + [0, 2], pa.int8())},
            "train label_click: 1 of 200 values not in [0, 1], e.g. 2",
        ),
        ({"label_click": pa.array([0] * 200, pa.int8())}, "train label_click: 0 positive rows; expected at least 1"),
        (
            {"label_click": pa.array([1] * 200, pa.int8())},
            "train label_click: the lowest value is 1; expected rows with 0",
        ),
        ({"row_key": pa.array([*range(199), 0])}, "train row_key: 2 of 200 values not unique, e.g. 0, 0"),
        ({"tab": pa.array([None] * 50 + ["main"] * 150)}, "train tab: 50 of 200 values null (25.00% > 0.2)"),
        ({"price": pa.array([1.0] * 199 + [float("inf")])}, "train price: 1 of 200 values not finite, e.g. inf"),
        ({"price": pa.array(["dear"] * 200)}, "train price: type text; expected numbers"),
        ({"first_key": 1000}, "train and calibration share 80 rows; expected 0"),
        ({"day": 2}, "train ends 2026-01-07 00:03:19+00:00 >= eval begins 2026-01-07 00:00:00+00:00"),
    ],
)
def test_each_broken_promise_fails_with_its_numbers(changes, want_message):
    verdict, _ = judged(splits(**changes))
    assert verdict.phase is Phase.FAILED
    assert want_message in [reason.message for reason in bad(verdict) if reason.phase is Phase.FAILED]


def test_a_missing_column_is_named_once():
    verdict, _ = judged(splits(weight=None))
    assert [reason.message for reason in bad(verdict)] == ["train: missing columns weight; expected all 15 of the contract"]


def test_a_label_that_is_not_gated_is_reported_when_it_has_no_positives():
    verdict, _ = judged(splits(label_like=pa.array([0] * 200, pa.int8())))
    assert verdict.is_successful
    assert "train label_like: 0 positive rows; expected at least 1 (not gated, reported only)" in [
        r.message for r in verdict.reasons
    ]


def test_an_empty_or_absent_split_fails_and_does_not_raise():
    tables = splits()
    tables["eval"] = tables["eval"].slice(0, 0)
    del tables["calibration"]
    messages = [reason.message for reason in bad(judged(tables)[0])]
    assert messages == ["calibration: this split is missing", "eval: 0 rows < 1"]


def test_an_optional_split_is_checked_where_it_has_rows_and_may_repeat_evaluation_rows():
    assert judged({**splits(), "randomized": split(80, 2000, day=2)})[0].is_successful
    assert judged({**splits(), "randomized": split(0)})[0].is_successful
    assert not judged({**splits(), "randomized": split(80, 2000, day=2, tab=None)})[0].is_successful


def test_training_rows_that_moved_away_from_productions_fail():
    _, baseline = judged(splits())
    verdict, _ = judged(splits(price=pa.array(np.random.default_rng(1).normal(5, 1, 200))), baseline)
    assert [reason.check for reason in bad(verdict)] == ["drift price"]


def test_the_package_does_not_load_great_expectations_and_the_door_leaves_no_module_hidden():
    program = (
        "import sys, tidewheel.quality; assert 'great_expectations' not in sys.modules\n"
        "from tidewheel.quality.expectations import suite; from tidewheel.contracts.recipe import ValidateConfig\n"
        "suite('train', (), (), ValidateConfig()); assert 'great_expectations' in sys.modules\n"
        "assert 'pyspark' not in sys.modules; import sqlalchemy"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
