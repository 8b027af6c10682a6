from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from tidewheel.contracts.hybrid import COLUMNS, Part
from tidewheel.contracts.schema import DType, Entity, FeatureKind, FeatureSpec
from tidewheel.errors import ContractError
from tidewheel.serving.log_items import Layout
from tidewheel.serving.protocol import InferRequest
from tidewheel.serving.rows import event_schema, event_table, loggable, now_text, parse_events, served_schema, served_table

NOW = datetime(2026, 1, 5, 12, 30, 0, 123456, tzinfo=UTC)


def feature(number: int, name: str, kind: FeatureKind) -> FeatureSpec:
    buckets = {"num_buckets": 8} if kind is FeatureKind.HASHED else {}
    return FeatureSpec(id=number, name=name, kind=kind, entity=Entity.ITEM, **buckets)


FEATURES = (
    feature(1, "user_id", FeatureKind.HASHED),
    feature(2, "shop", FeatureKind.HASHED),
    feature(3, "category", FeatureKind.VOCABULARY),
    feature(4, "price", FeatureKind.NUMERIC),
)
SCHEMA = served_schema(FEATURES, ("click",))


def request(parameters: dict[str, Any] | None = None, **columns: list[Any]) -> InferRequest:
    arrays = {name: np.array(values) for name, values in columns.items()}
    return InferRequest(id="", columns=arrays, outputs=(), parameters=parameters or {})


def good(**changed: list[Any]) -> dict[str, list[Any]]:
    return {"user_id": [7], "item_id": [1, 2], "shop": [3], "category": ["x", "y"], "price": [1.5, np.nan]} | changed


SCORES = {"click": np.array([0.25, 0.75], dtype=np.float32)}


def logged(requests: Sequence[InferRequest], *more: FeatureSpec) -> pa.Table:
    """What the writer of the log makes of requests, as the server packs each."""
    layout = Layout((*FEATURES, *more), ("click",))
    packed = [layout.pack(loggable(one, 2), NOW.isoformat(), one.columns, SCORES) for one in requests]
    schema = served_schema((*FEATURES, *more), ("click",))
    joined = layout.join([layout.unpack(one) for one in packed])
    return pa.concat_tables([served_table(answers, schema, "d" * 64) for answers in joined])


def table_of(*requests: InferRequest) -> list[dict[str, Any]]:
    return logged(requests).to_pylist()


def test_the_schemas_have_the_types_of_the_contract() -> None:
    for part, schema in ((Part.BACKEND, SCHEMA), (Part.FRONTEND, event_schema())):
        found = {field.name: (str(field.type), field.nullable) for field in schema}
        want = {name: (kind, nullable) for name, (kind, nullable, _) in COLUMNS[part].items() if name != "author_id"}
        assert {name: found[name] for name in want} == want
    extra = {field.name: str(field.type) for field in SCHEMA if field.name not in COLUMNS[Part.BACKEND]}
    assert extra == {"shop": "int64", "category": "string", "price": "double", "score_click": "double"}


def test_a_vocabulary_of_integers_is_logged_as_the_integers_that_ingest_expects() -> None:
    tab = FeatureSpec(id=9, name="tab", kind=FeatureKind.VOCABULARY, entity=Entity.ITEM, dtype=DType.INT64)
    sent = request({"request_id": "r1"}, **good())
    columns = {**sent.columns, "tab": np.array([4, None], dtype=object)}
    table = logged([InferRequest(id="", columns=columns, outputs=(), parameters={"request_id": "r1"})], tab)
    assert str(table.schema.field("tab").type) == "int64"
    assert table["tab"].to_pylist() == [4, None]


def test_a_sequence_is_logged_as_it_was_sent_whatever_its_length() -> None:
    clicks = FeatureSpec(id=9, name="clicks", kind=FeatureKind.SEQUENCE, entity=Entity.USER, of="shop", length=3)
    sent = (([[5, 6]], [[0, 30]]), ([[]], [[]]), ([[5], [6]], [[1], [2]]))
    answers = []
    for items, ages in sent:
        lists = {"clicks": np.array(items, dtype=np.int64), "clicks_age_hours": np.array(ages, dtype=np.int64)}
        plain = request({"request_id": "r1"}, **good())
        answers.append(InferRequest("", {**plain.columns, **lists}, (), plain.parameters))
    table = logged(answers, clicks)
    assert str(table.schema.field("clicks").type) == "list<item: int64>"
    assert table["clicks"].to_pylist() == [[5, 6], [5, 6], [], [], [5], [6]]
    assert table["clicks_age_hours"].to_pylist() == [[0, 30], [0, 30], [], [], [1], [2]]


def test_a_feature_may_not_take_the_name_of_a_column_that_means_something_else() -> None:
    for name in ("position", "bundle", "score_click"):
        with pytest.raises(ContractError, match=name):
            served_schema((feature(1, name, FeatureKind.NUMERIC),), ("click",))
    assert "author_id" in served_schema((feature(1, "author_id", FeatureKind.HASHED),), ()).names


def test_a_request_is_a_row_a_candidate_with_what_was_scored() -> None:
    parameters = {"request_id": "r1", "is_randomized": True, "propensity": 0.5, "binary_data_output": False}
    rows = table_of(request(parameters, **good(position=[1, 0])))

    shared = {"request_id": "r1", "user_id": 7, "served_time": NOW, "is_randomized": True, "propensity": 0.5}
    shared |= {"bundle": "d" * 64, "is_feature_miss": False, "shop": 3}
    assert rows == [
        shared | {"item_id": 1, "position": 1, "category": "x", "price": 1.5, "score_click": 0.25},
        shared | {"item_id": 2, "position": 0, "category": "y", "price": None, "score_click": 0.75},
    ]


def test_a_user_may_be_a_tensor_or_a_parameter() -> None:
    columns = {name: values for name, values in good(item_id=[2**62, -3]).items() if name != "user_id"}

    assert [row["user_id"] for row in table_of(request({"user_id": -8}, **columns))] == [-8, -8]
    assert [row["user_id"] for row in table_of(request({}, **columns, user_id=[9, 9]))] == [9, 9]


def test_requests_of_different_shapes_and_types_share_a_table() -> None:
    big = 2**53 + 1  # no float holds it
    rows = table_of(
        request({"user_id": 7}, **good(shop=[big, 4], category=[3, big], price=[1, 2])),
        request(None, **good(shop=[None], category=[None], price=[np.inf])),
        request(None, **good(category=[3.0, 2.5])),
    )

    assert [row["user_id"] for row in rows] == [7, 7, 7, 7, 7, 7]
    assert [row["shop"] for row in rows] == [big, 4, None, None, 3, 3]
    assert [row["category"] for row in rows] == ["3", str(big), None, None, "3", "2.5"]
    assert [row["price"] for row in rows] == [1.0, 2.0, None, None, 1.5, None]
    assert len({row["request_id"] for row in rows}) == 3


@pytest.mark.parametrize(
    ("parameters", "columns", "message"),
    [
        ({"request_id": ""}, good(), "parameters.request_id"),
        ({"request_id": 7}, good(), "parameters.request_id"),
        ({"request_id": "r" * 257}, good(), "parameters.request_id: longer than 256 characters"),
        ({"request_id": "\ud800"}, good(), "parameters.request_id"),
        ({"propensity": 0}, good(), "parameters.propensity"),
        ({"user_id": 2**63}, good(), "parameters.user_id"),
        ({"user_id": 8}, good(), "parameters.user_id: 8 is not what the tensor"),
        ({"is_randomized": True}, good(), "parameters.propensity: missing"),
        ({}, good(propensity=[0.5, 1.5]), "propensity: expected probabilities"),
        ({}, good(propensity=[0.5, np.nan]), "propensity: expected probabilities"),
        ({}, good(position=[-1, 0]), "inputs.position"),
        ({}, good(position=[0.5, 0]), "inputs.position"),
        ({}, good(user_id=[None]), "inputs.user_id"),
        ({}, good(item_id=["a", "b"]), "inputs.item_id"),
        ({}, good(item_id=[1, 2, 3]), "3 values for 2 scored candidates"),
        ({}, {"item_id": [1, 2]}, "user_id is missing"),
        ({"user_id": 7}, {"shop": [1, 2]}, "item_id is missing"),
    ],
)
def test_what_the_log_cannot_hold_is_refused_and_named(parameters: Any, columns: Any, message: str) -> None:
    with pytest.raises(ContractError, match=message):
        loggable(request(parameters, **columns), 2)


def event(**changed: Any) -> dict[str, Any]:
    times = {"served_time": "2026-01-05T12:00:00.000001+00:00", "event_time": "2026-01-05T12:00:09Z"}
    return {"request_id": "r1", "item_id": 1, "event": "click", "logging_rate": 0.25} | times | changed


def test_events_are_taken_one_by_one_and_stamped_on_arrival() -> None:
    sent = [event(), event(logging_rate=1.5), event(item_id=2**63), event(event="impression"), 3]

    accepted, num_refused, reason = parse_events(json.dumps(sent).encode(), NOW)

    assert (len(accepted), num_refused) == (2, 3)
    assert reason.startswith("events[1]: logging_rate: ")
    table = event_table([accepted[:1], accepted[1:]], event_schema())
    assert table.column_names == list(COLUMNS[Part.FRONTEND])
    assert table["event"].to_pylist() == ["click", "impression"]
    assert table["logged_time"].to_pylist() == [NOW, NOW]
    assert table["served_time"][0].as_py() == datetime(2026, 1, 5, 12, 0, 0, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("sent", "message"),
    [
        (event(logged_time="2026-01-05T12:00:00Z"), "logged_time: the server writes it"),
        (event(event=""), "event"),
        (event(served_time="2026-01-05T12:00:00"), "served_time"),  # of no zone
        (event(more=1), "more"),
        (event(request_id="\ud800"), "request_id"),
        ({name: value for name, value in event().items() if name != "served_time"}, "served_time"),
    ],
)
def test_a_bad_event_is_refused_with_its_fault(sent: dict[str, Any], message: str) -> None:
    accepted, num_refused, reason = parse_events(json.dumps([sent]).encode(), NOW)

    assert (accepted, num_refused) == ([], 1)
    assert f"events[0]: {message}" in reason


@pytest.mark.parametrize("body", [b"{", b"{}", b"[" * 100_000, json.dumps([0] * 1001).encode()])
def test_what_is_no_list_of_events_is_refused_whole(body: bytes) -> None:
    with pytest.raises(ContractError, match="expected a"):
        parse_events(body, NOW)


def test_an_empty_list_is_an_empty_table() -> None:
    assert parse_events(b"[]", NOW) == ([], 0, "")
    assert event_table([], event_schema()).num_rows == 0
    assert isinstance(event_schema(), pa.Schema)


def test_the_moment_is_written_as_isoformat_writes_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for nanoseconds in (1_767_614_400_000_001_999, 1_767_614_399_999_999_999, 1_767_614_400_250_000_000):
        monkeypatch.setattr("tidewheel.serving.rows.time.time_ns", lambda at=nanoseconds: at)
        moment = datetime.fromtimestamp(nanoseconds // 10**9, UTC).replace(microsecond=nanoseconds // 1000 % 10**6)
        assert now_text() == moment.isoformat()
