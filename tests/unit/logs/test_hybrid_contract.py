"""Random hybrid logs against a plain Python reading of docs/hybrid-log.md."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

import numpy as np
import pandas as pd
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.unit.logs.hybrid_lines import AS_OF, HORIZON, START, at, event, random_log, read, run, write
from tidewheel.contracts.schema import feature_columns


def by_hand(rows: list, events: list, start: float, end: float, complete_days: int) -> pd.DataFrame:
    """The contract of docs/hybrid-log.md, row by row."""
    served = {(row["request_id"], row["item_id"]): row for row in rows}
    arrived = [one for one in events if (one["logged_time"] - START).days < complete_days]
    found = {}
    for key, row in served.items():
        own = [one for one in arrived if (one["request_id"], one["item_id"]) == key]
        in_time = {
            label: [
                one["event_time"] for one in own if one["event"] == label and one["event_time"] <= row["served_time"] + HORIZON
            ]
            for label in ("click", "like")
        }
        labels = {label: int(bool(times)) for label, times in in_time.items()}
        is_logged = any(one["event"] == "impression" for one in own)
        if row["is_feature_miss"] or not (is_logged or any(labels.values())):
            continue
        found[key] = {
            "served": row["served_time"],
            "user_id": row["user_id"],
            "inclusion_probability": 1.0 if any(labels.values()) else 0.25,
            "alone": 4.0 if is_logged else 0.0,
            "times": {label: min(times) for label, times in in_time.items() if times},
            **labels,
        }
    table = []
    for (request, item), row in found.items():
        if not at(start) <= row["served"] < at(end) or row["served"] + HORIZON > at(complete_days):
            continue
        midnight = datetime.combine(row["served"].date(), datetime.min.time(), UTC)
        counters = {}
        for entity, mine in (("user", lambda k, r: r["user_id"] == row["user_id"]), ("item", lambda k, r: k[1] == item)):  # noqa: B023
            impressions = clicks = 0.0
            for key, other in found.items():
                if not mine(key, other):
                    continue
                first, last = midnight - timedelta(days=2), midnight
                known = list(other["times"].values())
                positive = min(known).date() if known else date.max
                day = other["served"].date()
                if first.date() <= day < last.date():
                    impressions += 1.0 if positive <= day else other["alone"]
                if positive > day and first.date() <= positive < last.date():
                    impressions += 1.0 - other["alone"]
                if "click" in other["times"] and first.date() <= max(other["times"]["click"].date(), day) < last.date():
                    clicks += 1.0
            counters |= {f"{entity}_impressions": impressions, f"{entity}_click_rate": (clicks + 1.0) / (impressions + 10.0)}
        table.append({"request_id": request, "item_id": item, **row, **counters})
    return pd.DataFrame(table).sort_values(["request_id", "item_id"]).reset_index(drop=True)


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**32 - 1))
def test_any_hybrid_log_is_read_as_its_contract_says(spark, tmp_path_factory, seed: int) -> None:
    folder = tmp_path_factory.mktemp("hybrid")
    rows, events = random_log(seed)
    run(spark, write(folder / "log", rows, events, range(6)), folder / "out", start=2, end=6)
    want = by_hand(rows, events, 2, 6, complete_days=6)
    got = read(folder / "out" / "impressions").sort_values(["request_id", "item_id"]).reset_index(drop=True)
    assert got.request_id.tolist() == want.request_id.tolist()
    assert got.item_id.tolist() == want.item_id.tolist()
    for name, column in (("label_click", "click"), ("label_like", "like")):
        assert got[name].tolist() == want[column].tolist()
    assert got.inclusion_probability.tolist() == want.inclusion_probability.tolist()
    for name in ("user_impressions", "user_click_rate", "item_impressions", "item_click_rate"):
        np.testing.assert_allclose(got[name], want[name], atol=1e-8, err_msg=name)


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**32 - 1), cut=st.integers(2, 5))
def test_as_of_features_never_see_the_impressions_day_or_anything_later(spark, tmp_path_factory, seed: int, cut: int) -> None:
    """Whatever is served, and whatever happens, from a day's midnight on: the features of that day's rows stay as they are."""
    folder = tmp_path_factory.mktemp("as-of")
    rows, events = random_log(seed)
    other_rows, other_events = random_log(seed + 1)
    is_past = lambda one: one["event_time"] < at(cut)  # noqa: E731
    changed = [one for one in events if is_past(one)] + [
        event(row, what, 60.0) for row in rows if row["served_time"] >= at(cut) for what in ("impression", "click")
    ]
    changed += [one for one in other_events if one["served_time"] >= at(cut + 1)]
    late = [one for one in events if not is_past(one) and one["served_time"] < at(cut)]
    changed += [dict(one, event="like" if one["event"] == "click" else one["event"]) for one in late]
    new_rows = rows + [
        dict(row, request_id="r8" + str(row["request_id"])[1:]) for row in other_rows if row["served_time"] >= at(cut + 1)
    ]
    tables = []
    for name, candidates, reported in (("a", rows, events), ("b", new_rows, changed)):
        run(spark, write(folder / name, candidates, reported), folder / f"out-{name}", start=2, end=6)
        table = read(folder / f"out-{name}" / "impressions")
        on_day = table[(table.event_time >= at(cut)) & (table.event_time < at(cut + 1))]
        lists = [name for spec in AS_OF if spec.is_sequence for name in spec.columns]
        on_day = on_day.assign(**{name: [tuple(values) for values in on_day[name]] for name in lists})
        tables.append(on_day.set_index(["request_id", "item_id"])[list(feature_columns(AS_OF))])
    shared = tables[0].index.intersection(tables[1].index)
    assert len(shared)
    assert tables[0].recently_seen.map(len).max() > 0
    assert tables[0].loc[shared].equals(tables[1].loc[shared])
