"""What each part of a plan does to rows, on tables small enough to check by hand."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pyarrow as pa
import pytest

from tests.unit.sampling.tables import DAYS, END, WINDOW, counter_of
from tidewheel.contracts.sampling import SampleConfig, SamplePlan
from tidewheel.errors import ConfigError
from tidewheel.sampling.loader import rates_of, rules_of, select
from tidewheel.sampling.plan import make_plan

LABELS = ("click", "hate", "like")


def rows(**columns: list) -> pa.Table:
    count = len(next(iter(columns.values())))
    base = {"row_key": list(range(count)), "inclusion_probability": [1.0] * count}
    base |= {f"label_{label}": [0] * count for label in LABELS}
    base |= {"is_randomized": [False] * count, "user_id": [1] * count}
    base |= {"event_time": pa.array([END - timedelta(days=3)] * count, pa.timestamp("us", tz="UTC"))}
    return pa.table(base | columns)


def resolved(table: pa.Table, **section: object) -> tuple[SamplePlan, list[pa.Table]]:
    counter = counter_of([table])
    # No row of these tables calibrates: what is counted is what is there.
    config = SampleConfig.model_validate({"calibration_share": 0.0, **section})
    plan = make_plan(config, DAYS, WINDOW, LABELS, counter)
    return plan, counter.groups(plan)


def rates(table: pa.Table, **section: object) -> list[float]:
    plan, groups = resolved(table, **section)
    return rates_of(table, plan, rules_of(table, plan), groups).tolist()


def test_without_rules_negatives_have_their_rate_and_every_positive_is_kept() -> None:
    assert rates(rows(label_click=[0, 1, 0], label_like=[0, 0, 1]), negative_rate=0.1) == [0.1, 1.0, 1.0]


def test_a_rule_of_a_label_combination_takes_exactly_that_combination() -> None:
    table = rows(label_click=[1, 1, 0, 0], label_like=[0, 1, 1, 0])
    shallow = {"name": "shallow", "all_of": ["click"], "none_of": ["like"], "rate": 0.5}
    assert rates(table, rules=[shallow], negative_rate=0.1) == [0.5, 1.0, 1.0, 0.1]


def test_any_of_takes_rows_with_at_least_one_of_its_labels() -> None:
    table = rows(label_click=[1, 0, 0], label_like=[0, 1, 0])
    assert rates(table, rules=[{"name": "engaged", "any_of": ["click", "like"], "rate": 0.5}]) == [0.5, 0.5, 1.0]


def test_the_first_rule_that_a_row_meets_gives_its_rate() -> None:
    table = rows(tab=[1, 3, None, 2], surface=["feed", "feed", "search", None])
    rules = [
        {"name": "tabs", "where": {"tab": [1, 2]}, "rate": 0.5},
        {"name": "feed", "where": {"surface": ["feed"]}, "rate": 0.25},
    ]
    assert rates(table, rules=rules, negative_rate=0.1) == [0.5, 0.25, 0.1, 0.5]


def test_new_users_are_those_below_a_tenure_or_without_one() -> None:
    table = rows(user_tenure_days=[0.0, 29.9, 30.0, None, float("nan")])
    new = {"name": "new_users", "where": {"user_tenure_days": {"below": 30, "or_null": True}}, "rate": 1.0}
    assert rates(table, rules=[new], negative_rate=0.1) == [1.0, 1.0, 0.1, 1.0, 1.0]


def test_both_zeros_are_zero_and_not_a_number_is_no_number() -> None:
    table = rows(ratio=[0.0, -0.0, float("nan"), float("inf"), None])
    zero, large = ({"name": name, "where": {"ratio": test}, "rate": 0.5} for name, test in (("z", [0]), ("l", {"at_least": 0})))
    assert rates(table, rules=[zero]) == [0.5, 0.5, 1.0, 1.0, 1.0]
    assert rates(table, rules=[large]) == [0.5, 0.5, 1.0, 0.5, 1.0]


def test_a_rule_may_speak_of_the_age_of_a_row_in_whole_days_before_the_end() -> None:
    ages = [timedelta(microseconds=1), timedelta(days=1), timedelta(days=1, microseconds=1), timedelta(days=3)]
    table = rows(event_time=pa.array([END - age for age in ages], pa.timestamp("us", tz="UTC")))
    old = {"name": "old", "where": {"days_before_end": {"at_least": 1}}, "rate": 0.5}
    # A row exactly one day before the end is in the last day, which is half-open at its end.
    assert rates(table, rules=[old]) == [1.0, 1.0, 0.5, 0.5]


def test_a_label_that_is_never_downsampled_overrules_rules_presets_and_caps() -> None:
    table = rows(label_hate=[1, 1, 0, 0], tab=[1, 2, 1, 2])
    section = {
        "never_downsample": ["hate"],
        "rules": [{"name": "tab", "where": {"tab": [1]}, "rate": 0.5}],
        "preset": {"kind": "all_positives", "negative_rate": 0.25},
        "caps": [{"column": "user_id", "rows": 1}],
    }
    # The cap sees 0.75 expected rows of the user: protected rows do not count, so it is not exceeded.
    assert rates(table, **section) == [1.0, 1.0, 0.5, 0.25]


def test_excluded_groups_have_no_probability_whatever_their_labels() -> None:
    table = rows(user_segment=["bot", "person", "bot"], label_hate=[0, 0, 1])
    section = {"exclude": [{"name": "bots", "where": {"user_segment": ["bot"]}}], "never_downsample": ["hate"]}
    assert rates(table, **section) == [0.0, 1.0, 0.0]
    plan, groups = resolved(table, **section)
    assert select(table, plan, groups)["user_segment"].to_pylist() == ["person"]


def test_a_cap_lowers_the_rates_of_a_user_to_the_share_that_fits() -> None:
    table = rows(user_id=[1, 1, 1, 1, 2], label_click=[1, 1, 0, 0, 1])
    # User 1 expects 2 + 2 x 0.5 = 3 rows of which 2 may stay: two thirds of each rate.
    assert rates(table, negative_rate=0.5, caps=[{"column": "user_id", "rows": 2}]) == [2 / 3, 2 / 3, 1 / 3, 1 / 3, 1.0]


def test_a_cap_counts_training_rows_only() -> None:
    last_day = pa.array([END - timedelta(days=3)] * 2 + [END - timedelta(hours=1)] * 2, pa.timestamp("us", tz="UTC"))
    table = rows(event_time=last_day, is_randomized=[False, True, False, False])
    assert rates(table, caps=[{"column": "user_id", "rows": 1}]) == [1.0] * 4


def test_rows_without_a_group_are_not_capped() -> None:
    table = rows(category=pa.array(["a", "a", None, None]))
    assert rates(table, caps=[{"column": "category", "rows": 1}]) == [0.5, 0.5, 1.0, 1.0]


def test_niche_items_are_kept_whole_and_the_head_as_often_as_they_are() -> None:
    table = rows(item_id=[1, 2, 3, 3, 3, 3], label_click=[0, 0, 0, 0, 0, 1])
    # Three items with 1, 1 and 3 negatives: half of them have at most 1, so item 3 keeps one of its three; clicks stay.
    assert rates(table, preset="niche_boost") == [1.0, 1.0, 1 / 3, 1 / 3, 1 / 3, 1.0]


def test_the_weight_is_one_over_inclusion_times_rate() -> None:
    table = rows(inclusion_probability=[0.25, 0.5], label_click=[1, 1])
    assert select(table, *resolved(table))["weight"].to_pylist() == [4.0, 2.0]


@pytest.mark.parametrize(
    ("section", "reason"),
    [
        ({"rules": [{"name": "r", "where": {"tabb": [1]}, "rate": 0.5}]}, r"no column tabb .* expected one of .*label_click"),
        ({"caps": [{"column": "usr", "rows": 5}]}, r"no column usr"),
        ({"preset": {"kind": "niche_boost", "column": "itm"}}, r"no column itm"),
        ({"rules": [{"name": "r", "where": {"event_time": [1]}, "rate": 0.5}]}, r"column event_time is neither"),
        ({"caps": [{"column": "inclusion_probability", "rows": 5}]}, r"its values are no ids"),
    ],
)
def test_columns_that_cannot_decide_are_named(section: dict, reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        rates(rows(tab=[1, 2]), **section)


def test_times_of_any_unit_and_zone_are_read_alike() -> None:
    at = [datetime(2026, 1, 8, 12, tzinfo=UTC)]
    new = {"name": "recent", "where": {"days_before_end": {"below": 4}}, "rate": 0.5}
    for kind in (pa.timestamp("us", tz="UTC"), pa.timestamp("ns", tz="Asia/Tokyo"), pa.timestamp("ms", tz="UTC")):
        assert rates(rows(event_time=pa.array(at, kind)), rules=[new]) == [0.5]
