"""Open Inference Protocol v2, REST: JSON bytes to raw columns, scores to JSON bytes. Pure.

https://github.com/open-inference/open-inference-protocol/blob/main/specification/protocol/inference_rest.md
One input tensor a feature: INT64, FP32, FP64 or BYTES, shape [n] or [n, 1]; `null` stands for a value that is not known.
A sequence has two, its items and their ages: INT64, shape [1, k] for the user of the request, or [n, k] with an age of -1 where
there is no item; k is at most the sequence's length, and may be 0.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np

from tidewheel.contracts.schema import AGES_SUFFIX
from tidewheel.errors import ContractError
from tidewheel.ranker.padding import NO_ITEM

MAX_CANDIDATES = 10_000  # of one request; more belongs into retrieval
MAX_TEXT = 1024  # characters of one value
BESIDE = ("user_id", "item_id", "position", "propensity")  # no features of the model, but the log's to read
_KINDS: dict[str, type] = {"INT64": np.int64, "FP32": np.float64, "FP64": np.float64, "BYTES": object}


@dataclass(frozen=True)
class Sent:
    """A request as it was sent: tensors by name, and what it says of itself. Nothing of the tensors is checked yet."""

    id: str
    inputs: Mapping[str, Mapping[str, Any]]
    outputs: tuple[str, ...]
    parameters: Mapping[str, Any] | None
    feature_digest: str | None

    @property
    def user_id(self) -> int | None:
        """The user that `parameters` or an input of one value names, None where neither does."""
        found = (self.parameters or {}).get("user_id")
        if found is None and isinstance(data := self.inputs.get("user_id", {}).get("data"), list) and len(data) == 1:
            found = data[0][0] if isinstance(data[0], list) and len(data[0]) == 1 else data[0]
        return found if type(found) is int else None


@dataclass(frozen=True)
class InferRequest:
    """Raw columns of length C or 1, by feature, (C or 1, k) of a sequence; `outputs` are the labels asked for, empty: all."""

    id: str
    columns: Mapping[str, np.ndarray]
    outputs: tuple[str, ...]
    parameters: Mapping[str, Any] | None = None


def read_request(body: bytes) -> Sent:
    """The JSON of a request.

    Raises:
        ContractError: not JSON, or not this protocol; the message is for the caller.
    """
    try:
        document = json.loads(body, parse_constant=_refuse_constant)
        inputs = {tensor["name"]: tensor for tensor in document["inputs"]}
        if len(inputs) < len(document["inputs"]):
            raise ValueError("a tensor is there twice")
        outputs = tuple(dict.fromkeys(output["name"] for output in document.get("outputs", ())))
        if not all(isinstance(name, str) for name in (*inputs, *outputs)):
            raise TypeError("a name is not text")
        parameters = None if document.get("parameters") is None else dict(document["parameters"])
        made_for = None
        if parameters is not None and "feature_digest" in parameters:
            made_for = str(parameters.pop("feature_digest"))
            parameters = parameters or None  # a request that only says this has nothing to log
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        message = "expected an object with `inputs`, a list of tensors with `name`, `datatype`, `shape` and `data`"
        raise ContractError(f"request: {message} ({type(error).__name__}: {error})") from error
    return Sent(str(document.get("id", "")), inputs, outputs, parameters, made_for)


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is not a number of JSON; send null for a value that is not known")


def decode_request(
    sent: bytes | Sent,
    features: Sequence[str],
    feature_digest: str,
    beside: Sequence[str] = (),
    sequences: Mapping[str, int] = MappingProxyType({}),
    max_candidates: int = MAX_CANDIDATES,
) -> InferRequest:
    """The columns of `features` in a request, and of `beside` where they are sent; tensors of other names are left alone.

    During a rollout both bundles get the same request, and one of them may know a feature that the other does not.
    A caller that makes features for one allowlist only says so with `parameters.feature_digest`; then a tensor that the
    allowlist does not have is refused too.

    Args:
        sequences: those of `features` that are columns of sequences, and how many items they hold at most.

    Raises:
        ContractError: not this protocol, made for other features, a feature is missing, or lengths disagree; the message is
            for the caller.
    """
    sent = read_request(sent) if isinstance(sent, bytes) else sent
    inputs = sent.inputs
    if sent.feature_digest is not None:
        _check_allowlist(sent.feature_digest, feature_digest, set(inputs) - {*features, *BESIDE})
    if missing := [name for name in features if name not in inputs]:
        raise ContractError(
            f"inputs: {', '.join(sorted(missing))} is missing; expected one tensor for each of {', '.join(features)}"
        )
    columns = {
        name: _sequence(name, inputs[name], sequences[name]) if name in sequences else _column(name, inputs[name])
        for name in features
    }
    columns |= {name: _column(name, inputs[name]) for name in beside if name in inputs and name not in columns}
    lengths = {len(column) for column in columns.values()} - {1}
    if max(lengths, default=1) > max_candidates or 0 in lengths:
        raise ContractError(f"inputs: {max(lengths)} candidates; expected 1 to {max_candidates}, fewer at once")
    if len(lengths) > 1:
        found = ", ".join(f"{name} {len(column)}" for name, column in columns.items())
        raise ContractError(f"inputs: lengths differ ({found}); expected the number of candidates, or 1")
    return InferRequest(id=sent.id, columns=columns, outputs=sent.outputs, parameters=sent.parameters)


def _check_allowlist(made_for: str, feature_digest: str, unknown: set[str]) -> None:
    if made_for != feature_digest:
        raise ContractError(
            f"parameters.feature_digest: the request is made for features {made_for}, this model takes {feature_digest}; "
            "read the model's metadata and send its inputs"
        )
    if unknown:
        raise ContractError(
            f"inputs: {', '.join(sorted(unknown))} is unknown to the features that parameters.feature_digest names; "
            "leave it out, or leave the digest out"
        )


def _column(name: str, tensor: Mapping[str, Any]) -> np.ndarray:
    try:
        datatype, shape, data = tensor["datatype"], tensor["shape"], _flat(tensor["data"])
        kind = _KINDS.get(datatype)
        if kind is None:
            raise ContractError(f"inputs.{name}: datatype {datatype!r}; expected one of {', '.join(_KINDS)}")
        if list(shape) not in ([len(data)], [len(data), 1]):
            raise ContractError(f"inputs.{name}: shape {shape} with {len(data)} values; expected [n] or [n, 1]")
        types = set(map(type, data))
        if datatype == "INT64":
            if not types <= {int, type(None)}:
                raise ContractError(f"inputs.{name}: INT64 holds a value that is not a whole number")
            found = np.array([0 if value is None else value for value in data] if type(None) in types else data, np.int64)
            return np.array(data, dtype=object) if type(None) in types else found
        if datatype == "BYTES":
            if not types <= {str, type(None)}:
                raise ContractError(f"inputs.{name}: BYTES holds a value that is not text")
            if max(map(len, filter(None, data)), default=0) > MAX_TEXT:
                raise ContractError(f"inputs.{name}: a text of more than {MAX_TEXT} characters; no feature has such values")
            return np.array(data, dtype=object)
        if not types <= {float, int, type(None)}:
            raise ContractError(f"inputs.{name}: {datatype} holds a value that is not a number or null")
        numbers: np.ndarray = np.array(data, dtype=kind)
        if np.isinf(numbers).any():
            raise ContractError(
                f"inputs.{name}: {datatype} holds a number that a double cannot; send null for what is not known"
            )
        return numbers
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise ContractError(
            f"inputs.{name}: {type(error).__name__}: {error}; expected datatype, shape and flat data"
        ) from error


def _flat(data: Any) -> list[Any]:
    """Values in order, of a list or of a list of rows."""
    if not isinstance(data, list):
        raise TypeError("data is not a list")
    if data and isinstance(data[0], list):
        if not all(isinstance(row, list) for row in data):
            raise TypeError("data holds rows and values")
        return [value for row in data for value in row]
    return data


def _sequence(name: str, tensor: Mapping[str, Any], length: int) -> np.ndarray:
    """(n, k) int64 items, or ages from -1 on."""
    try:
        datatype, shape, data = tensor["datatype"], list(tensor["shape"]), _flat(tensor["data"])
        is_matrix = len(shape) == 2 and all(type(size) is int for size in shape)
        if not is_matrix or shape[0] < 1 or not 0 <= shape[1] <= length or shape[0] * shape[1] != len(data):
            raise ContractError(
                f"inputs.{name}: shape {shape} with {len(data)} values; expected [1, k] or [n, k], k at most {length}"
            )
        if datatype != "INT64" or any(type(value) is not int for value in data):
            raise ContractError(f"inputs.{name}: a sequence holds whole numbers; expected datatype INT64 without null")
        found = np.array(data, dtype=np.int64).reshape(shape)
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise ContractError(
            f"inputs.{name}: {type(error).__name__}: {error}; expected datatype, shape and flat data"
        ) from error
    if name.endswith(AGES_SUFFIX) and found.size and found.min() < NO_ITEM:
        raise ContractError(
            f"inputs.{name}: an age of {found.min()} hours; expected the hours from the item to the start of this UTC day"
        )
    return found


def encode_request(features: Mapping[str, np.ndarray], parameters: Mapping[str, Any] | None = None) -> bytes:
    """JSON of raw columns as `decode_request` reads them: integers INT64, text BYTES, numbers FP64 with NaN as null.

    Columns of one dimension, and of two where they are a sequence's.
    """
    tensors = []
    for name, column in features.items():
        if column.dtype.kind == "f":
            datatype, data = "FP64", column.tolist()
            if np.isnan(column).any():
                data = [None if value != value else value for value in data]
        elif column.dtype.kind in "iu":
            datatype, data = "INT64", column.ravel().tolist()
        else:
            data = column.tolist()
            datatype = "INT64" if any(isinstance(value, int) for value in data) else "BYTES"
        tensors.append({"name": name, "datatype": datatype, "shape": list(column.shape), "data": data})
    document: dict[str, Any] = {"inputs": tensors}
    if parameters is not None:
        document["parameters"] = dict(parameters)
    return json.dumps(document, separators=(",", ":"), allow_nan=False).encode()


def encode_response(
    model: str,
    version: str,
    request: InferRequest,
    scores: Mapping[str, np.ndarray],
    parameters: Mapping[str, Any] | None = None,
) -> bytes:
    """JSON of one FP32 tensor of shape [C] a label, and of `parameters` where there are any.

    Raises:
        ValueError: a score is not finite, which JSON cannot say and nobody should rank by: no request can bring that about,
            since encoders cut every number; the model is broken.
        ContractError: an output was asked for that the model does not have.
    """
    wanted = request.outputs or tuple(scores)
    if unknown := sorted(set(wanted) - set(scores)):
        raise ContractError(f"outputs: {', '.join(unknown)} is unknown; the model has {', '.join(scores)}")
    outputs = [
        {"name": label, "datatype": "FP32", "shape": [len(scores[label])], "data": scores[label].tolist()} for label in wanted
    ]
    document: dict[str, Any] = {"model_name": model, "model_version": version, "outputs": outputs}
    if request.id:
        document["id"] = request.id
    if parameters:
        document["parameters"] = dict(parameters)
    return json.dumps(document, separators=(",", ":"), allow_nan=False).encode()


def decode_response(body: bytes) -> dict[str, np.ndarray]:
    """label -> (C,) float32.

    Raises:
        ContractError: not a response of this protocol.
    """
    try:
        return {output["name"]: np.array(output["data"], dtype=np.float32) for output in json.loads(body)["outputs"]}
    except (ValueError, KeyError, TypeError) as error:
        raise ContractError(f"response: expected `outputs` with `name` and `data` ({type(error).__name__}: {error})") from error


def decode_parameters(body: bytes) -> dict[str, Any]:
    """The `parameters` of a response: with a log, the `request_id` and `served_time` that events send back."""
    return json.loads(body).get("parameters", {})
