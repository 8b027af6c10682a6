from __future__ import annotations

import json
import math
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidewheel.errors import ContractError
from tidewheel.serving.protocol import (
    BinaryBody,
    decode_request,
    decode_response,
    encode_request,
    encode_response,
    json_size,
    read_request,
)

DIGEST = "5" * 64


def test_a_request_for_other_features_is_refused_before_anything_else() -> None:
    sent = {"inputs": [], "parameters": {"feature_digest": "7" * 64}}
    with pytest.raises(ContractError, match=f"made for features {'7' * 64}, this model takes {DIGEST}"):
        decode_request(json.dumps(sent).encode(), ("x",), DIGEST)
    sent = {"inputs": [tensor()], "parameters": {"feature_digest": DIGEST}}
    assert decode_request(json.dumps(sent).encode(), ("x",), DIGEST).columns["x"].tolist() == [1, 2]


def tensor(name: str = "x", datatype: str = "INT64", data: object = (1, 2), shape: object = None) -> dict[str, object]:
    return {"name": name, "datatype": datatype, "shape": shape or [len(data)], "data": list(data)}  # type: ignore[arg-type]


def body(*tensors: dict[str, object]) -> bytes:
    return json.dumps({"id": "7", "inputs": tensors}).encode()


@given(
    st.lists(st.integers(-(2**63), 2**63 - 1), min_size=3, max_size=3),
    st.lists(st.none() | st.text(max_size=5), min_size=3, max_size=3),
    st.lists(st.floats(allow_infinity=False), min_size=3, max_size=3),
)
def test_columns_survive_the_way_there(ids: list[int], texts: list[str | None], numbers: list[float]) -> None:
    columns = {"i": np.array(ids), "t": np.array(texts, dtype=object), "f": np.array(numbers)}
    found = decode_request(encode_request(columns), ("i", "t", "f"), DIGEST).columns
    assert found["i"].dtype == np.int64
    assert found["i"].tolist() == ids
    if any(text is not None for text in texts):
        assert found["t"].tolist() == texts
    np.testing.assert_array_equal(found["f"], numbers)


def test_null_is_a_number_that_is_not_known() -> None:
    found = decode_request(body(tensor(datatype="FP64", data=[1.5, None])), ("x",), DIGEST).columns["x"]
    assert found[0] == 1.5
    assert math.isnan(found[1])


def test_a_column_of_shape_n_1_is_flat() -> None:
    found = decode_request(body(tensor(data=[[1], [2]], shape=[2, 1])), ("x",), DIGEST)
    assert found.columns["x"].tolist() == [1, 2]
    assert found.id == "7"


def test_tensors_that_the_model_does_not_know_are_left_alone() -> None:
    assert set(decode_request(body(tensor("x"), tensor("new")), ("x",), DIGEST).columns) == {"x"}


@pytest.mark.parametrize(
    ("sent", "message"),
    [
        (b"{", "expected an object"),
        (b"[]", "expected an object"),
        (b'{"inputs": 3}', "expected an object"),
        (body(tensor("y")), "x is missing"),
        (body(tensor(datatype="INT7")), "INT7"),
        (body(tensor(data=[1.5])), "not a whole number"),
        (body(tensor(data=[True])), "not a whole number"),
        (body(tensor(data=["a"])), "not a whole number"),
        (body(tensor(data=[2**70])), "not a whole number"),
        (body(tensor(datatype="BYTES", data=[1])), "not text"),
        (body(tensor(datatype="FP64", data=["a"])), "not a number or null"),
        (body(tensor(datatype="FP64", data=["1.5"])), "not a number or null"),
        (body(tensor(datatype="FP64", data=[True])), "not a number or null"),
        (body(tensor(datatype="FP64", data=[[[1.5]]], shape=[1])), "not a number or null"),
        (b'{"inputs": [{"name": "x", "datatype": "FP64", "shape": [1], "data": [NaN]}]}', "NaN is not a number of JSON"),
        (
            b'{"inputs": [{"name": "x", "datatype": "FP64", "shape": [1], "data": [1e999]}]}',
            "1e999 is more than a double can hold",
        ),
        (body(tensor(datatype="FP64", data=[10**400])), "OverflowError"),
        (body(tensor(data=[None, 2**70])), "not a whole number"),
        (body(tensor(datatype="BYTES", data=["a" * 1025])), "more than 1024 characters"),
        (body(tensor() | {"datatype": "BYTES", "shape": [3], "data": "abc"}), "data is not a list"),
        (body(tensor() | {"datatype": "BYTES", "shape": [0], "data": {}}), "data is not a list"),
        (body(tensor(data=[[1], 2])), "rows and values"),
        (body(tensor(data=[1, [2]], shape=[2])), "not a whole number"),
        (json.dumps({"inputs": [tensor(data=[1, [2]], shape=[2])], "outputs": {}}).encode(), "not a whole number"),
        (body(tensor() | {"datatype": ["INT64"]}), "TypeError"),
        (body(tensor() | {"shape": 2}), "TypeError"),
        (body(tensor(), tensor()), "a tensor is there twice"),
        (body(tensor("x") | {"name": 3}), "a name is not text"),
        (b'{"inputs": [], "outputs": [{"name": 3}]}', "a name is not text"),
        (b"[" * 100_000, "RecursionError"),
        (b'{"inputs": [' + b"9" * 5000 + b"]}", "ValueError"),
        (b"\xff\xfe", "expected an object"),
        (body(tensor(data=[1], shape=[2])), "shape"),
        (body(tensor(data=[], shape=[0])), "expected 1 to"),
        (body({"name": "x", "datatype": "INT64", "shape": [1]}), "KeyError"),
        (body(tensor(data=[1] * 10_001)), "10001 candidates"),
    ],
)
def test_what_is_wrong_is_named(sent: bytes, message: str) -> None:
    with pytest.raises(ContractError, match=message):
        decode_request(sent, ("x",), DIGEST)


def test_tensors_that_the_named_allowlist_does_not_have_are_refused_but_not_the_logs() -> None:
    sent = {"inputs": [tensor(), tensor("position")], "parameters": {"feature_digest": DIGEST}}
    assert set(decode_request(json.dumps(sent).encode(), ("x",), DIGEST).columns) == {"x"}
    sent = {"inputs": [tensor(), tensor("tpyo")], "parameters": {"feature_digest": DIGEST}}
    with pytest.raises(ContractError, match="tpyo is unknown"):
        decode_request(json.dumps(sent).encode(), ("x",), DIGEST)


@pytest.mark.parametrize(
    ("sent", "want"),
    [
        ({"inputs": [tensor("user_id", data=[7])]}, 7),
        ({"inputs": [tensor("user_id", data=[[7]], shape=[1, 1])]}, 7),
        ({"inputs": [tensor("user_id", data=[7])], "parameters": {"user_id": 9}}, 9),
        ({"inputs": [tensor("user_id", data=[7, 8])]}, None),
        ({"inputs": [tensor("user_id", "BYTES", data=["7"])]}, None),
        ({"inputs": [tensor("user_id", data=[[]], shape=[1])]}, None),
        ({"inputs": [tensor()], "parameters": {"user_id": True}}, None),
        ({"inputs": [tensor()]}, None),
    ],
)
def test_the_user_of_a_request_is_in_its_parameters_or_in_an_input_of_one_value(sent: object, want: int | None) -> None:
    assert read_request(json.dumps(sent).encode()).user_id == want


def test_an_output_that_is_asked_for_a_thousand_times_is_answered_once() -> None:
    sent = json.dumps({"inputs": [tensor()], "outputs": [{"name": "click"}] * 1000}).encode()
    scores = {"click": np.array([0.1, 0.25], dtype=np.float32), "like": np.array([0.0, 1.0], dtype=np.float32)}
    answer = json.loads(encode_response("ranker", "d", decode_request(sent, ("x",), DIGEST), scores))
    assert [output["name"] for output in answer["outputs"]] == ["click"]


def test_lengths_must_be_the_number_of_candidates_or_one() -> None:
    found = decode_request(body(tensor("x", data=[1]), tensor("y", data=[1, 2, 3])), ("x", "y"), DIGEST)
    assert len(found.columns["x"]) == 1
    with pytest.raises(ContractError, match="x 2, y 3"):
        decode_request(body(tensor("x", data=[1, 2]), tensor("y", data=[1, 2, 3])), ("x", "y"), DIGEST)


def test_scores_survive_the_way_back_and_must_be_finite() -> None:
    request = decode_request(body(tensor()), ("x",), DIGEST)
    scores = {"click": np.array([0.1, 0.25], dtype=np.float32), "like": np.array([0.0, 1.0], dtype=np.float32)}
    answer = encode_response("ranker", "d", request, scores)
    assert json.loads(answer)["id"] == "7"
    assert json.loads(answer)["outputs"][0]["shape"] == [2]
    for label, values in decode_response(answer).items():
        np.testing.assert_array_equal(values, scores[label])
    with pytest.raises(ValueError):
        encode_response("ranker", "d", request, {"click": np.array([np.nan])})


# --- sequences ----------------------------------------------------------------------------------------------------------

CLICKS = {"clicks": 3, "clicks_age_hours": 3}


def recent(items: object = (7, 8), ages: object = (0, 30), shape: object = (1, 2)) -> bytes:
    pair = (("clicks", items), ("clicks_age_hours", ages))
    return body(tensor("x"), *(tensor(name, data=data, shape=list(shape)) for name, data in pair))  # type: ignore[arg-type]


def test_a_users_sequence_is_sent_once_and_may_be_empty() -> None:
    names = ("x", *CLICKS)
    found = decode_request(recent(), names, DIGEST, sequences=CLICKS).columns
    assert (found["clicks"].tolist(), found["clicks_age_hours"].tolist()) == ([[7, 8]], [[0, 30]])
    nothing = decode_request(recent((), (), (1, 0)), names, DIGEST, sequences=CLICKS).columns
    assert nothing["clicks"].shape == (1, 0)
    nested = decode_request(recent([[7], [8]], [[1], [-1]], (2, 1)), names, DIGEST, sequences=CLICKS).columns
    assert nested["clicks"].tolist() == [[7], [8]]
    again = decode_request(encode_request({"x": np.array([1, 2]), **nested}), names, DIGEST, sequences=CLICKS).columns
    assert again["clicks_age_hours"].tolist() == [[1], [-1]]


@pytest.mark.parametrize(
    ("sent", "message"),
    [
        (recent(shape=(2,)), r"inputs\.clicks: shape \[2\] with 2 values; expected \[1, k\] or \[n, k\], k at most 3"),
        (recent((1, 2, 3, 4), (1, 2, 3, 4), (1, 4)), "shape .1, 4. with 4 values"),
        (recent(shape=(1, 3)), "shape .1, 3. with 2 values"),
        (recent((), (), (0, 2)), "shape .0, 2."),
        (recent(shape=("1", 2)), "shape"),
        (recent(items=(7, None)), "inputs.clicks: a sequence holds whole numbers"),
        (recent(ages=(0, 1.5)), "inputs.clicks_age_hours: a sequence holds whole numbers"),
        (recent(items=(7, 2**70)), "inputs.clicks: a sequence holds whole numbers"),
        (recent(ages=(-5, 3)), "an age of -5 hours; expected the hours from the item to the start of this UTC day"),
        (recent((1, 2, 3), (1, 2, 3), (3, 1)), "x 2, clicks 3, clicks_age_hours 3"),
    ],
)
def test_what_is_wrong_about_a_sequence_is_named(sent: bytes, message: str) -> None:
    with pytest.raises(ContractError, match=message):
        decode_request(sent, ("x", *CLICKS), DIGEST, sequences=CLICKS)


# --- the binary tensor data extension ------------------------------------------------------------------------------------


def by_hand(tensors: list[dict[str, object]], raw: bytes, **more: object) -> tuple[bytes, int]:
    text = json.dumps({"inputs": tensors, **more}).encode()
    return text + raw, len(text)


def raw_tensor(datatype: str, size: object, shape: object = (2,), name: str = "x") -> dict[str, object]:
    return {"name": name, "datatype": datatype, "shape": list(shape), "parameters": {"binary_data_size": size}}  # type: ignore[call-overload]


@pytest.mark.parametrize(
    ("datatype", "raw", "want"),
    [
        ("INT64", struct.pack("<2q", 2**62, -3), [2**62, -3]),
        ("FP32", struct.pack("<2f", 0.5, -1.25), [0.5, -1.25]),
        ("FP64", struct.pack("<2d", 0.1, 1e300), [0.1, 1e300]),
        ("BYTES", b"\x02\x00\x00\x00\xc3\xa9\x00\x00\x00\x00", ["é", ""]),
    ],
)
def test_a_tensor_may_be_bytes_behind_the_json(datatype: str, raw: bytes, want: list[object]) -> None:
    sent, size = by_hand([raw_tensor(datatype, len(raw)), tensor("y")], raw)
    found = decode_request(sent, ("x", "y"), DIGEST, json_size=size).columns
    assert (found["x"].tolist(), found["y"].tolist()) == (want, [1, 2])


@pytest.mark.parametrize(
    ("tensors", "raw", "message"),
    [
        ([raw_tensor("INT64", 16)], b"", "inputs.x: binary_data_size is 16, 0 bytes are left"),
        ([raw_tensor("INT64", -1)], b"", "binary_data_size is -1"),
        ([raw_tensor("INT64", "16")], bytes(16), "binary_data_size is 16, 16 bytes are left"),
        ([raw_tensor("INT64", 15)], bytes(15), "inputs.x: ValueError"),
        ([raw_tensor("INT64", 16)], bytes(17), "17 bytes follow the JSON, expected 16"),
        ([raw_tensor("INT64", 8)], bytes(8), "shape .2. with 1 values"),
        ([raw_tensor("BYTES", 6, [1])], b"\x03\x00\x00\x00ab", "6 bytes end within text 0"),
        ([raw_tensor("BYTES", 3, [1])], b"\x03\x00\x00", "3 bytes end within text 0"),
        ([raw_tensor("BYTES", 5, [1])], b"\x01\x00\x00\x00\xff", "inputs.x: UnicodeDecodeError"),
    ],
)
def test_bytes_that_are_not_what_the_json_says_are_refused(tensors: list[dict[str, object]], raw: bytes, message: str) -> None:
    sent, size = by_hand(tensors, raw)
    with pytest.raises(ContractError, match=message):
        decode_request(sent, ("x",), DIGEST, json_size=size)


@pytest.mark.parametrize("size", [0, 10_000])
def test_a_json_size_beyond_the_body_is_refused(size: int) -> None:
    with pytest.raises(ContractError, match=f"inference-header-content-length: {size} in a request of"):
        decode_request(body(tensor()), ("x",), DIGEST, json_size=size)


def test_the_header_holds_a_number_or_is_not_there() -> None:
    assert json_size([(b"host", b"x")]) is None
    assert json_size([(b"host", b"x"), (b"inference-header-content-length", b"12")]) == 12
    with pytest.raises(ContractError, match="found b'-1', expected a number of bytes"):
        json_size([(b"inference-header-content-length", b"-1")])


def test_a_sequence_may_be_bytes_too() -> None:
    columns = {"x": np.array([1, 2]), "clicks": np.array([[7, 8]]), "clicks_age_hours": np.array([[0, 30]])}
    sent = encode_request(columns, is_binary=True)
    assert isinstance(sent, BinaryBody)
    found = decode_request(sent, tuple(columns), DIGEST, sequences=CLICKS, json_size=sent.json_size)
    assert [found.columns[name].tolist() for name in columns] == [[1, 2], [[7, 8]], [[0, 30]]]
    assert found.is_binary
    assert found.parameters is None  # nothing that the log would want to know


def test_columns_survive_the_way_there_as_bytes() -> None:
    columns = {"i": np.array([2**62 + 1, -1]), "t": np.array(["a", None], dtype=object), "f": np.array([0.1, np.nan])}
    sent = encode_request(columns, {"user_id": 7}, is_binary=True)
    assert isinstance(sent, BinaryBody)
    found = decode_request(sent, tuple(columns), DIGEST, json_size=sent.json_size)
    assert found.columns["i"].tolist() == [2**62 + 1, -1]
    assert found.columns["t"].tolist() == ["a", None]
    np.testing.assert_array_equal(found.columns["f"], columns["f"])
    assert found.parameters == {"user_id": 7}


def test_each_output_comes_in_the_form_that_was_asked_for() -> None:
    scores = {"click": np.array([0.1, 0.25], dtype=np.float32), "like": np.array([0.5, 1.0], dtype=np.float32)}
    outputs = [{"name": "click", "parameters": {"binary_data": True}}, {"name": "like"}]
    sent = json.dumps({"inputs": [tensor()], "outputs": outputs}).encode()
    answer = encode_response("ranker", "d", decode_request(sent, ("x",), DIGEST), scores)
    assert isinstance(answer, BinaryBody)
    document = json.loads(answer[: answer.json_size])["outputs"]
    assert document[0] == {"name": "click", "datatype": "FP32", "shape": [2], "parameters": {"binary_data_size": 8}}
    assert document[1]["data"] == [0.5, 1.0]
    assert struct.unpack("<2f", answer[answer.json_size :]) == tuple(scores["click"].tolist())
    for label, values in decode_response(answer, answer.json_size).items():
        np.testing.assert_array_equal(values, scores[label])


def test_an_id_that_is_no_text_for_the_fast_encoder_comes_back() -> None:
    sent = json.dumps({"id": "\ud800", "inputs": [tensor()]}).encode()
    answer = encode_response("ranker", "d", decode_request(sent, ("x",), DIGEST), {"click": np.array([0.5], dtype=np.float32)})
    assert json.loads(answer)["id"] == "\ud800"
    assert json.loads(answer)["outputs"][0]["data"] == [0.5]
