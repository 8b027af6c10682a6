"""One tensor of a request to one raw column: from a JSON list, or from the bytes of the binary tensor data extension. Pure."""

from __future__ import annotations

import math
from array import array
from collections.abc import Mapping
from struct import error as StructError
from struct import pack
from typing import Any

import numpy as np

from tidewheel.contracts.schema import AGES_SUFFIX
from tidewheel.errors import ContractError
from tidewheel.ranker.padding import NO_ITEM

RAW: Any = ("raw",)  # a key that no JSON has: where the bytes of a tensor are that came as bytes
SIZE = "binary_data_size"
MAX_TEXT = 1024  # characters of one value
_KINDS: dict[str, type] = {"INT64": np.int64, "FP32": np.float64, "FP64": np.float64, "BYTES": object}
_LITTLE_ENDIAN = {"INT64": "<i8", "FP32": "<f4", "FP64": "<f8"}


def column(name: str, tensor: Mapping[str, Any]) -> np.ndarray:
    """(n,) int64, float64 or text; whole numbers with null among them, and text, are objects.

    Raises:
        ContractError: it is no such tensor; the message is for the caller.
    """
    try:
        datatype, shape = tensor["datatype"], tensor["shape"]
        if datatype not in _KINDS:
            raise ContractError(f"inputs.{name}: datatype {datatype!r}; expected one of {', '.join(_KINDS)}")
        data = _from_bytes(name, datatype, tensor[RAW]) if RAW in tensor else _flat(tensor["data"])
        if list(shape) not in ([len(data)], [len(data), 1]):
            raise ContractError(f"inputs.{name}: shape {shape} with {len(data)} values; expected [n] or [n, 1]")
        return data if isinstance(data, np.ndarray) else _from_list(name, datatype, data)
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise ContractError(
            f"inputs.{name}: {type(error).__name__}: {error}; expected datatype, shape and flat data"
        ) from error


def sequence(name: str, tensor: Mapping[str, Any], length: int) -> np.ndarray:
    """(n, k) int64 items, or ages from -1 on.

    Raises:
        ContractError: it is no such tensor, or k is above `length`; the message is for the caller.
    """
    try:
        datatype, shape = tensor["datatype"], list(tensor["shape"])
        data = _from_bytes(name, "INT64", tensor[RAW]) if RAW in tensor else _flat(tensor["data"])
        is_matrix = len(shape) == 2 and all(type(size) is int for size in shape)
        if not is_matrix or shape[0] < 1 or not 0 <= shape[1] <= length or shape[0] * shape[1] != len(data):
            raise ContractError(
                f"inputs.{name}: shape {shape} with {len(data)} values; expected [1, k] or [n, k], k at most {length}"
            )
        is_whole = isinstance(data, np.ndarray) or not set(map(type, data)) - {int}
        if datatype != "INT64" or not is_whole:
            raise ContractError(f"inputs.{name}: a sequence holds whole numbers; expected datatype INT64 without null")
        found = np.asarray(data, dtype=np.int64).reshape(shape)
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise ContractError(
            f"inputs.{name}: {type(error).__name__}: {error}; expected datatype, shape and flat data"
        ) from error
    if name.endswith(AGES_SUFFIX) and found.size and found.min() < NO_ITEM:
        raise ContractError(
            f"inputs.{name}: an age of {found.min()} hours; expected the hours from the item to the start of this UTC day"
        )
    return found


def single(tensor: Mapping[str, Any]) -> int | None:
    """The whole number of a tensor of one value; None where it is another. Nothing of it is checked."""
    if RAW in tensor:
        return int.from_bytes(tensor[RAW], "little", signed=True) if len(tensor[RAW]) == 8 else None
    data = tensor.get("data")
    if isinstance(data, np.ndarray):
        return int(data[0]) if data.size == 1 and data.dtype.kind == "i" else None
    if not isinstance(data, list) or len(data) != 1:
        return None
    found = data[0][0] if isinstance(data[0], list) and len(data[0]) == 1 else data[0]
    return found if type(found) is int else None


def _flat(data: Any) -> list[Any] | np.ndarray:
    """Values in order, of a list, of a list of rows or of what `request_json` has read."""
    if isinstance(data, np.ndarray):
        return data
    if not isinstance(data, list):
        raise TypeError("data is not a list")
    if data and isinstance(data[0], list):
        if not all(isinstance(row, list) for row in data):
            raise TypeError("data holds rows and values")
        return [value for row in data for value in row]
    return data


def _from_list(name: str, datatype: str, data: list[Any]) -> np.ndarray:
    """`array` and `pack` read a list faster than NumPy, but no null."""
    if datatype == "BYTES":
        return _texts(name, data)
    types = set(map(type, data))
    if datatype == "INT64":
        if not types <= {int, type(None)}:
            raise ContractError(f"inputs.{name}: INT64 holds a value that is not a whole number")
        if type(None) not in types:
            return np.frombuffer(array("q", data), dtype=np.int64)
        array("q", [0 if value is None else value for value in data])  # of 64 bits, too
        return np.array(data, dtype=object)
    if not types <= {float, int, type(None)}:
        raise ContractError(f"inputs.{name}: {datatype} holds a value that is not a number or null")
    if type(None) in types:
        return np.array(data, dtype=np.float64)
    try:
        return np.frombuffer(pack(f"{len(data)}d", *data), dtype=np.float64)
    except StructError:  # a whole number that no double holds: NumPy says so
        return np.array(data, dtype=np.float64)


def _texts(name: str, values: list[Any]) -> np.ndarray:
    distinct = set(values)  # candidates share most of their texts: each is looked at once
    if not set(map(type, distinct)) <= {str, type(None)}:
        raise ContractError(f"inputs.{name}: BYTES holds a value that is not text")
    if max(map(len, filter(None, distinct)), default=0) > MAX_TEXT:
        raise ContractError(f"inputs.{name}: a text of more than {MAX_TEXT} characters; no feature has such values")
    return np.fromiter(values, dtype=object, count=len(values))


def _from_bytes(name: str, datatype: str, raw: memoryview) -> np.ndarray:
    """Numbers are little-endian; text is its length, four bytes little-endian, before its UTF-8. Neither has a null but NaN."""
    if datatype != "BYTES":
        values: np.ndarray = np.frombuffer(raw, dtype=_LITTLE_ENDIAN[datatype]).astype(_KINDS[datatype], copy=False)
        if datatype != "INT64" and (math.isinf(values[0]) if len(values) == 1 else np.isinf(values).any()):
            raise ContractError(f"inputs.{name}: {datatype} holds an infinite number; send NaN for what is not known")
        return values
    texts: list[str] = []
    at, data = 0, bytes(raw)
    while at < len(data):
        end = at + 4 + int.from_bytes(data[at : at + 4], "little")
        if at + 4 > len(data) or end > len(data):
            raise ContractError(f"inputs.{name}: {len(data)} bytes end within text {len(texts)}; expected length and UTF-8")
        texts.append(data[at + 4 : end].decode())
        at = end
    return _texts(name, texts)
