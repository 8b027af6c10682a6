from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa
import pytest

from tidewheel.contracts.schema import Entity, FeatureKind, FeatureSpec
from tidewheel.errors import ContractError
from tidewheel.rollout import ReplayTraffic, SelectiveTraffic
from tidewheel.rollout.recording import ArmRecorder

FEATURES = (
    FeatureSpec(id=1, name="user_id", kind=FeatureKind.HASHED, entity=Entity.USER, num_buckets=8),
    FeatureSpec(id=2, name="tag", kind=FeatureKind.VOCABULARY, entity=Entity.ITEM),
    FeatureSpec(id=3, name="age", kind=FeatureKind.NUMERIC, entity=Entity.ITEM),
)
NOON = datetime(2026, 1, 5, 12, tzinfo=UTC)
TABLE = pa.table(
    {
        "request_id": ["b", "a", "b", "c"],
        "user_id": [2, 1, 2, 3],
        "item_id": [10, 20, 30, 40],
        "event_time": [NOON + timedelta(seconds=s) for s in (5, 1, 6, 9)],
        "tag": ["x", "y", None, "z"],
        "age": [1.0, None, 3.0, 4.0],
        "label_click": pa.array([1, 0, 0, 1], pa.int8()),
    }
)


def test_rows_of_a_request_become_its_candidates_in_the_order_of_time() -> None:
    traffic = ReplayTraffic(TABLE, FEATURES, ["click"])
    requests = traffic.take(10)
    assert [request.request_id for request in requests] == ["a", "b", "c"]
    second = requests[1]
    assert second.user_id == 2
    assert second.item_ids.tolist() == [10, 30]
    assert second.features["user_id"].tolist() == [2]  # sent once
    assert second.features["tag"].tolist() == ["x", None]
    assert second.features["age"].tolist() == [1.0, 3.0]
    assert np.isnan(requests[0].features["age"][0])


def test_outcomes_are_the_recorded_ones_whatever_the_scores() -> None:
    traffic = ReplayTraffic(TABLE, FEATURES, ["click"])
    request = traffic.take(2)[1]
    for scores in ([0.1, 0.9], [0.9, 0.1]):
        outcome = traffic.react(request, {"click": np.array(scores)})
        assert outcome.shown.tolist() == [0, 1]
        assert outcome.labels["click"].tolist() == [1, 0]


def test_every_request_comes_once_and_then_none() -> None:
    traffic = ReplayTraffic(TABLE, FEATURES, ["click"])
    assert len(traffic.take(2)) == 2
    assert len(traffic) == 1
    assert len(traffic.take(2)) == 1
    assert traffic.take(2) == []


def test_users_who_are_not_compared_are_passed_over() -> None:
    traffic = ReplayTraffic(TABLE, FEATURES, ["click"])
    assert isinstance(traffic, SelectiveTraffic)
    assert [request.user_id for request in traffic.take_of(1, lambda users: users == 2)] == [2]
    assert [request.user_id for request in traffic.take(9)] == [3]


def test_a_missing_column_and_an_empty_table_are_named() -> None:
    with pytest.raises(ContractError, match="label_like is missing"):
        ReplayTraffic(TABLE, FEATURES, ["like"])
    with pytest.raises(ContractError, match="no rows"):
        ReplayTraffic(TABLE.slice(0, 0), FEATURES, ["click"])


def test_a_row_of_a_sampled_log_counts_for_all_that_it_stands_for() -> None:
    """One click logged for sure and one of four impressions without: predicted and actual are of five impressions."""
    table = TABLE.append_column("weight", pa.array([1.0, 1.0, 4.0, 1.0]))
    traffic = ReplayTraffic(table, FEATURES, ["click"])
    request = traffic.take(2)[1]
    scores = {"click": np.array([0.5, 0.25])}
    outcome = traffic.react(request, scores)
    recorder = ArmRecorder("click", ["click"])
    recorder.add_outcome(request.user_id, scores, outcome, scores, {})
    evidence = recorder.batch()
    assert (evidence.impressions[0], evidence.actual[0], evidence.predicted[0]) == (5.0, 1.0, 0.5 + 4 * 0.25)
    assert evidence.losses["click"][0] == pytest.approx(-np.log(0.5) - 4 * np.log(0.75))


def test_a_users_sequence_is_sent_once_as_long_as_it_is() -> None:
    clicks = FeatureSpec(id=4, name="clicks", kind=FeatureKind.SEQUENCE, entity=Entity.USER, of="item_id", length=3)
    table = TABLE.append_column("clicks", pa.array([[7, 8], [], [7, 8], [9]], pa.list_(pa.int64())))
    table = table.append_column("clicks_age_hours", pa.array([[0, 5], [], [0, 5], [3]], pa.list_(pa.int32())))
    requests = ReplayTraffic(table, (*FEATURES, clicks), ["click"]).take(3)
    assert [request.features["clicks"].tolist() for request in requests] == [[[]], [[7, 8]], [[9]]]
    assert [request.features["clicks_age_hours"].tolist() for request in requests] == [[[]], [[0, 5]], [[3]]]
    assert requests[1].features["tag"].shape == (2,)
