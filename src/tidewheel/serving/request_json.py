"""The JSON of a request to a document, with no Python object for each number of a tensor: they are an array. Pure."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import orjson
import simdjson

MAX_BYTES = 1024 * 1024  # the parser keeps room for the longest text that it has read
_ARRAYS = {"INT64": ("i", np.int64), "FP32": ("d", np.float64), "FP64": ("d", np.float64)}
_PARSER = simdjson.Parser(max_capacity=MAX_BYTES)


def parsed(text: bytes) -> Any:
    """A document of JSON. `data` of a tensor of plain numbers is (n,) int64 or float64, row by row; else it is a list.

    Raises:
        ValueError: not JSON, or a number that no double holds.
        RecursionError: too deep.
    """
    try:
        return _with_arrays(text)
    except (ValueError, KeyError, TypeError, AttributeError, RuntimeError):
        return listed(text)  # whoever reads it says what is wrong


def listed(text: bytes) -> Any:
    """A document of JSON with lists alone; of what is none the slower parser says in words what is wrong.

    Raises:
        ValueError, RecursionError: as `parsed` does.
    """
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return json.loads(text, parse_constant=_refuse_constant, parse_float=_finite)


def _with_arrays(text: bytes) -> dict[str, Any]:
    root: Any = _PARSER.parse(text)
    inputs = root["inputs"]
    document = {name: _plain(root[name]) for name in root if name != "inputs"}
    # A list, and two of each tensor: with more brackets there may be lists in lists, which an array would not show.
    known = 1 + 2 * len(inputs) + isinstance(document.get("outputs"), list)
    is_flat = not _has_more_brackets(text, known)
    document["inputs"] = [_tensor(tensor, is_flat) for tensor in inputs]
    return document


def _has_more_brackets(text: bytes, number: int) -> bool:
    """Whether `[` is there more than `number` times; `bytes.count` takes ten times as long to look for a few of them."""
    at = -1
    for _ in range(number + 1):
        at = text.find(b"[", at + 1)
        if at < 0:
            return False
    return True


def _tensor(tensor: Any, is_flat: bool) -> Mapping[str, Any]:
    name, datatype, values = tensor["name"], tensor["datatype"], tensor["data"]
    if type(name) is not str or type(datatype) is not str:
        raise TypeError("a tensor's name and datatype are text")
    return {"name": name, "datatype": datatype, "shape": tensor["shape"].as_list(), "data": _data(datatype, values, is_flat)}


def _data(datatype: str, values: Any, is_flat: bool) -> np.ndarray | list[Any]:
    """An array of a list of numbers; a list where it is empty, or holds lists, a null or what is no such number."""
    if datatype in _ARRAYS and len(values) and (is_flat or not any(isinstance(value, simdjson.Array) for value in values)):
        kind, dtype = _ARRAYS[datatype]
        try:
            return np.frombuffer(values.as_buffer(of_type=kind), dtype=dtype)
        except (TypeError, ValueError):
            pass
    listed: list[Any] = values.as_list()
    return listed


def _plain(value: Any) -> Any:
    if isinstance(value, simdjson.Object):
        return value.as_dict()
    return value.as_list() if isinstance(value, simdjson.Array) else value


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is not a number of JSON; send null for a value that is not known")


def _finite(text: str) -> float:
    if math.isinf(number := float(text)):
        raise ValueError(f"{text[:20]} is more than a double can hold; send null for a value that is not known")
    return number
