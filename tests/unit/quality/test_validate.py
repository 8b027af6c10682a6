"""The real Great Expectations on small tables; its import is most of the time here."""

import datetime as dt
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pytest

from tests.unit.quality.tables import CONFIG, FEATURES, LABELS, WINDOW, lists, split, splits
from tidewheel.contracts.evidence import WindowRecord
from tidewheel.contracts.verdict import Phase, Severity
from tidewheel.contracts.window import Window
from tidewheel.quality import Past, validate


def judged(tables, baseline=None, config=CONFIG, trailing=(), scores=None):
    report, profile = validate(tables, FEATURES, LABELS, config, WINDOW, Past(baseline, scores, trailing))
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
        ({"tab": None}, "train: missing columns tab; expected all 17 of the contract"),
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
        ({"clicks": lists([None] * 50 + [[7]] * 150)}, "train clicks: 50 of 200 values null (25.00% > 0.2)"),
        ({"clicks": lists([[1, 2, 3, 4]] + [[]] * 199)}, "train clicks: 1 of 200 values not in [0, 3], e.g. 4"),
        (
            {"clicks_age_hours": lists([[5, -2, 7], [0]] + [[]] * 198)},
            "train clicks_age_hours: 1 of 200 values not finite and at least 0, e.g. -2",
        ),
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
    assert [reason.message for reason in bad(verdict)] == ["train: missing columns weight; expected all 17 of the contract"]


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
    assert messages == [
        "calibration: this split is missing",
        "eval: 0 rows < 1",
        "freshness: newest impression 71.9 hours before the window's end; expected <= 24",
    ]


def test_an_optional_split_is_checked_where_it_has_rows_and_may_repeat_evaluation_rows():
    assert judged({**splits(), "randomized": split(80, 2000, day=2)})[0].is_successful
    assert judged({**splits(), "randomized": split(0)})[0].is_successful
    assert not judged({**splits(), "randomized": split(80, 2000, day=2, tab=None)})[0].is_successful


def test_training_rows_that_moved_away_from_productions_fail():
    _, baseline = judged(splits())
    verdict, _ = judged(splits(price=pa.array(np.random.default_rng(1).normal(5, 1, 200))), baseline)
    assert [reason.check for reason in bad(verdict)] == ["drift price", "drift price ks"]


def test_a_warning_is_seen_and_stops_nothing():
    tables = splits(price=pa.array([None] * 100 + [1.0] * 100))
    critical, _ = judged(tables)
    config = CONFIG.model_copy(update={"severity": {"expect train price": Severity.WARNING}})
    warned, _ = judged(tables, config=config)

    assert [reason.message for reason in bad(critical)] == ["train price: 100 of 200 values null (50.00% > 0.2)"]
    assert not critical.is_successful
    assert warned.is_successful
    assert warned.warnings == (bad(critical)[0].model_copy(update={"severity": Severity.WARNING}),)
    assert warned.explain() == f"{len(warned.reasons) - 1} checks passed, 1 warning"


def test_stale_data_fails_with_its_age():
    tables = {**splits(), "eval": split(80, 2000, day=1), "calibration": split(80, 1000, day=1)}
    tables["eval"] = split(80, 2000, day=1.5)
    (reason,) = bad(judged(tables, config=CONFIG.model_copy(update={"max_age_hours": 30.0}))[0])
    assert reason.message == "freshness: newest impression 36.0 hours before the window's end; expected <= 30"


def earlier(number, weight_sum=800.0, click=0.5, like=0.1):
    end = WINDOW.end - dt.timedelta(days=number)
    rates = {"click": click, "like": like}
    precision = dict.fromkeys(rates, 100.0)
    return WindowRecord(
        window=Window.ending(end, 3), rows=200, weight_sum=weight_sum, label_rates=rates, label_precision=precision, newest=end
    )


def test_volume_and_rates_near_the_median_of_the_windows_before_pass():
    verdict, _ = judged(splits(), trailing=[earlier(3), earlier(2, weight_sum=810), earlier(1, weight_sum=790)])
    said = {reason.check: reason.message for reason in verdict.reasons}
    assert bad(verdict) == []
    assert said["volume"] == (
        "volume: training rows stand for 800 impressions, median of 3 windows 800; expected >= 533.3 and <= 1,200"
    )


def test_half_the_volume_fails_and_one_odd_window_before_does_not_move_the_median():
    before = [earlier(4, 1700), earlier(3, 1600), earlier(2, 1800), earlier(1, 10)]
    verdict, _ = judged(splits(), trailing=before)
    assert [reason.check for reason in bad(verdict)] == ["volume"]
    assert verdict.phase is Phase.FAILED


def test_a_label_rate_far_from_the_windows_before_is_a_warning():
    verdict, _ = judged(splits(), trailing=[earlier(2, click=0.05), earlier(1, click=0.06)])
    assert verdict.is_successful
    assert [reason.check for reason in verdict.warnings] == ["label_rate click"]


def test_a_single_earlier_window_is_too_few_to_judge_by():
    verdict, _ = judged(splits(), trailing=[earlier(1, 8_000_000)])
    assert verdict.is_successful
    assert "volume: training rows stand for 800 impressions, 1 earlier window: at least 2 to judge by, reported only" in [
        reason.message for reason in verdict.reasons
    ]


def test_a_production_that_predicts_twice_what_happens_is_a_warning_with_its_numbers():
    tables = splits()
    rate = {name: np.full(80, tables["eval"][f"label_{name}"].to_numpy().mean()) for name in ("click", "like")}
    _, baseline = judged(tables)
    good, _ = judged(tables, baseline, scores=lambda: rate)
    wrong, _ = judged(tables, baseline, scores=lambda: rate | {"click": np.full(80, 0.99)})

    assert bad(good) == []
    assert wrong.is_successful
    assert [reason.check for reason in wrong.warnings] == ["calibration click", "calibration click ece"]
    assert "predicted/actual - 1 0.9800 > 0.25 beyond chance" in wrong.warnings[0].message


def test_production_is_not_asked_to_score_rows_that_break_the_contract():
    def scores():
        raise AssertionError("scored rows that are known to be broken")

    _, baseline = judged(splits())
    verdict, _ = judged(splits(tab=None), baseline, scores=scores)
    assert verdict.phase is Phase.FAILED
    assert [reason.check for reason in verdict.warnings] == ["calibration"]


def test_a_table_without_any_column_of_the_contract_fails_and_does_not_raise():
    verdict, _ = judged({**splits(), "train": pa.table({"other": range(200)})})
    messages = [reason.message for reason in bad(verdict)]
    assert messages[0].startswith("train: missing columns author_id, clicks, clicks_age_hours, event_time")
    assert "train: 200 rows >= 100" in [reason.message for reason in verdict.reasons]


def test_the_package_does_not_load_great_expectations_and_the_door_leaves_no_module_hidden():
    program = (
        "import sys, tidewheel.quality; assert 'great_expectations' not in sys.modules\n"
        "from tidewheel.quality.expectations import suite; from tidewheel.contracts.recipe import ValidateConfig\n"
        "suite('train', (), (), ValidateConfig()); assert 'great_expectations' in sys.modules\n"
        "assert 'pyspark' not in sys.modules; import sqlalchemy"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
