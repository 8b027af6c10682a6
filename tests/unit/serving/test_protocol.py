from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidewheel.errors import ContractError
from tidewheel.serving.protocol import decode_request, decode_response, encode_request, encode_response

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
        (body(tensor(data=[2**70])), "OverflowError"),
        (body(tensor(datatype="BYTES", data=[1])), "not text"),
        (body(tensor(datatype="FP64", data=["a"])), "ValueError"),
        (body(tensor(data=[1], shape=[2])), "shape"),
        (body(tensor(data=[], shape=[0])), "expected 1 to"),
        (body({"name": "x", "datatype": "INT64", "shape": [1]}), "KeyError"),
        (body(tensor(data=[1] * 10_001)), "10001 candidates"),
    ],
)
def test_what_is_wrong_is_named(sent: bytes, message: str) -> None:
    with pytest.raises(ContractError, match=message):
        decode_request(sent, ("x",), DIGEST)


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
