"""Whichever parser reads a request, it says the same."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidewheel.serving.request_json import MAX_BYTES, listed, parsed

NUMBERS = st.one_of(
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False, allow_infinity=False),
    st.booleans(),
    st.none(),
    st.text(max_size=3),
)
TENSORS = st.fixed_dictionaries(
    {
        "name": st.text(max_size=4),
        "datatype": st.sampled_from(["INT64", "FP32", "FP64", "BYTES", "BOOL"]),
        "shape": st.lists(st.integers(0, 5), max_size=2),
        "data": st.one_of(
            st.lists(st.integers(-(2**63), 2**63 - 1), max_size=5),
            st.lists(st.floats(allow_nan=False, allow_infinity=False), max_size=5),
            st.lists(NUMBERS, max_size=5),
            st.lists(st.lists(st.integers(0, 9), max_size=3), max_size=3),
            st.lists(st.one_of(st.integers(0, 9), st.lists(st.integers(0, 9), max_size=2)), max_size=3),
        ),
    }
)


def with_lists(document: dict[str, Any]) -> dict[str, Any]:
    """What was read into arrays, as the lists that were sent; whole numbers of a tensor of doubles are doubles."""
    tensors = []
    for tensor in document["inputs"]:
        data = tensor["data"].tolist() if isinstance(tensor["data"], np.ndarray) else tensor["data"]
        if tensor["datatype"].startswith("FP"):
            data = [float(value) if type(value) is int else value for value in data]
        tensors.append({**tensor, "data": data})
    return {**document, "inputs": tensors}


@given(st.lists(TENSORS, max_size=4), st.dictionaries(st.text(max_size=3), NUMBERS, max_size=3))
def test_both_parsers_read_the_same(tensors: list[dict[str, Any]], parameters: dict[str, Any]) -> None:
    text = json.dumps({"id": "7", "inputs": tensors, "parameters": parameters, "outputs": [{"name": "click"}]}).encode()
    assert with_lists(parsed(text)) == with_lists(listed(text))


@pytest.mark.parametrize(
    ("datatype", "data", "want"),
    [("INT64", [1, -2], np.int64), ("FP64", [0.5, 3, -0.0], np.float64), ("FP32", [1e300], np.float64)],
)
def test_plain_numbers_are_an_array(datatype: str, data: list[float], want: type) -> None:
    text = json.dumps({"inputs": [{"name": "x", "datatype": datatype, "shape": [len(data)], "data": data}]}).encode()
    (tensor,) = parsed(text)["inputs"]
    assert isinstance(tensor["data"], np.ndarray)
    assert tensor["data"].dtype == want
    assert tensor["data"].tolist() == data


@pytest.mark.parametrize(
    ("datatype", "data"),
    [
        ("INT64", [1, None]),
        ("INT64", [1.0]),
        ("FP64", [True]),
        ("FP64", [[1.5], [2.5]]),
        ("INT64", [1, [2]]),
        ("FP64", []),
        ("BYTES", ["a"]),
    ],
)
def test_anything_else_stays_a_list_and_is_judged_later(datatype: str, data: list[Any]) -> None:
    text = json.dumps({"inputs": [{"name": "x", "datatype": datatype, "shape": [1], "data": data}]}).encode()
    assert parsed(text)["inputs"][0]["data"] == data


def test_a_bracket_in_a_text_is_no_list() -> None:
    tensors = [("x", "INT64", [1, 2]), ("title", "BYTES", ["[live]", "["])]
    sent = [{"name": name, "datatype": datatype, "shape": [2], "data": data} for name, datatype, data in tensors]
    x, title = parsed(json.dumps({"inputs": sent}).encode())["inputs"]
    assert isinstance(x["data"], np.ndarray)
    assert title["data"] == ["[live]", "["]


@pytest.mark.parametrize("text", [b"", b"{", b'{"inputs": [1e999]}', b'{"inputs": [NaN]}', b'{"inputs": []} x'])
def test_what_is_no_json_is_refused_in_words(text: bytes) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        parsed(text)


def test_a_request_above_the_room_that_is_kept_is_read_all_the_same() -> None:
    number = MAX_BYTES // 2
    text = b'{"inputs": [{"name": "x", "datatype": "INT64", "shape": [1], "data": [' + b",".join([b"1"] * number) + b"]}]}"
    assert len(text) > MAX_BYTES
    assert len(parsed(text)["inputs"][0]["data"]) == number


def test_a_request_that_is_still_held_does_not_keep_the_next_from_being_read() -> None:
    text = b'{"inputs": [{"name": "x", "datatype": "BYTES", "shape": [1], "data": ["%d"]}]}'
    held = [parsed(text % number) for number in range(3)]
    assert [one["inputs"][0]["data"] for one in held] == [["0"], ["1"], ["2"]]
