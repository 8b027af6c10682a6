"""Open Inference Protocol v2, REST: a body to raw columns, scores to a body. Pure.

https://github.com/open-inference/open-inference-protocol/blob/main/specification/protocol/inference_rest.md
One input tensor a feature: INT64, FP32, FP64 or BYTES, shape [n] or [n, 1]; `null` stands for a value that is not known.
A sequence has two, its items and their ages: INT64, shape [1, k] for the user of the request, or [n, k] with an age of -1 where
there is no item; k is at most the sequence's length, and may be 0.

Both ways a body is JSON, or has the binary tensor data extension:
https://github.com/triton-inference-server/server/blob/main/docs/protocol/extension_binary_data.md
`Inference-Header-Content-Length` is the size of the JSON; tensors with `binary_data_size` lie behind it, in their order.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import numpy as np
import orjson

from tidewheel.errors import ContractError
from tidewheel.serving.request_json import listed, parsed
from tidewheel.serving.tensors import RAW, SIZE, column, sequence, single

MAX_CANDIDATES = 10_000  # of one request; more belongs into retrieval
BESIDE = ("user_id", "item_id", "position", "propensity")  # no features of the model, but the log's to read
LENGTH_HEADER = b"inference-header-content-length"
_NOTHING: Mapping[str, Any] = MappingProxyType({})


class BinaryBody(bytes):
    """A body with the binary extension: `json_size` bytes of JSON, then tensors. The size stands in `LENGTH_HEADER`."""

    json_size: int

    @classmethod
    def of(cls, document: bytes, tensors: Iterable[bytes]) -> BinaryBody:
        body = cls(b"".join((document, *tensors)))
        body.json_size = len(document)
        return body


@dataclass(frozen=True)
class Sent:
    """A request as it was sent: tensors by name, and what it says of itself. Nothing of the tensors is checked yet.

    `is_binary` says in which form an output is wanted that `binary` does not name.
    """

    id: str
    inputs: Mapping[str, Mapping[str, Any]]
    outputs: tuple[str, ...]
    parameters: Mapping[str, Any] | None
    feature_digest: str | None
    is_binary: bool = False
    binary: Mapping[str, bool] = field(default_factory=dict)

    @property
    def user_id(self) -> int | None:
        """The user that `parameters` or an input of one value names, None where neither does."""
        found = (self.parameters or {}).get("user_id")
        return single(self.inputs.get("user_id", {})) if found is None else found if type(found) is int else None


@dataclass(frozen=True)
class InferRequest:
    """Raw columns of length C or 1, by feature, (C or 1, k) of a sequence; `outputs` are the labels asked for, empty: all."""

    id: str
    columns: Mapping[str, np.ndarray]
    outputs: tuple[str, ...]
    parameters: Mapping[str, Any] | None = None
    is_binary: bool = False
    binary: Mapping[str, bool] = field(default_factory=dict)


def json_size(headers: Iterable[tuple[bytes, bytes]]) -> int | None:
    """How many bytes of a body are JSON, from its headers by lower-case names; None: all of them.

    Raises:
        ContractError: the header is there and holds no number.
    """
    for name, value in headers:
        if name == LENGTH_HEADER:
            if not value.isdigit() or len(value) > 18:
                raise ContractError(f"header {LENGTH_HEADER.decode()}: found {value[:20]!r}, expected a number of bytes")
            return int(value)
    return None


def read_request(body: bytes, json_size: int | None = None) -> Sent:
    """What a request says, and where its tensors are.

    Args:
        json_size: how many bytes are JSON where the body has the binary extension.

    Raises:
        ContractError: not JSON, or not this protocol; the message is for the caller.
    """
    text, raw = body, None
    if json_size is not None:
        if not 0 < json_size <= len(body):
            found = f"{json_size} in a request of {len(body)} bytes"
            raise ContractError(f"header {LENGTH_HEADER.decode()}: {found}; expected the size of its JSON")
        text, raw = body[:json_size], memoryview(body)[json_size:]
    try:
        document = parsed(text) if raw is None else listed(text)
        inputs = {tensor["name"]: tensor for tensor in document["inputs"]}
        if len(inputs) < len(document["inputs"]):
            raise ValueError("a tensor is there twice")
        if raw is not None:
            _distribute(document["inputs"], raw)
        wanted = {output["name"]: output.get("parameters") or _NOTHING for output in document.get("outputs", ())}
        if not set(map(type, (*inputs, *wanted))) <= {str}:
            raise TypeError("a name is not text")
        parameters = None if document.get("parameters") is None else dict(document["parameters"])
        made_for, is_binary = None, False
        if parameters is not None and not parameters.keys().isdisjoint(_OF_THE_PROTOCOL):
            made_for = str(parameters.pop("feature_digest")) if "feature_digest" in parameters else None
            is_binary = bool(parameters.pop("binary_data_output", False))
            parameters = parameters or None  # a request that only says this has nothing to log
        binary = {name: bool(said["binary_data"]) for name, said in wanted.items() if "binary_data" in said}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        message = "expected an object with `inputs`, a list of tensors with `name`, `datatype`, `shape` and `data`"
        raise ContractError(f"request: {message} ({type(error).__name__}: {error})") from error
    return Sent(str(document.get("id", "")), inputs, tuple(wanted), parameters, made_for, is_binary, binary)


_OF_THE_PROTOCOL = ("feature_digest", "binary_data_output")


def _distribute(tensors: Sequence[dict[str, Any]], raw: memoryview) -> None:
    """Give each tensor that has a size in bytes its part of them.

    Raises:
        ContractError: the sizes are not those of the bytes.
    """
    at = 0
    for tensor in tensors:
        size = (tensor.get("parameters") or _NOTHING).get(SIZE)
        if size is not None:
            if type(size) is not int or size < 0 or at + size > len(raw):
                raise ContractError(
                    f"inputs.{tensor['name']}: {SIZE} is {size}, {len(raw) - at} bytes are left; expected no more than that"
                )
            tensor[RAW] = raw[at : at + size]
            at += size
    if at != len(raw):
        raise ContractError(f"inputs: {len(raw)} bytes follow the JSON, expected {at}, the sum of {SIZE}")


def decode_request(
    sent: bytes | Sent,
    features: Sequence[str],
    feature_digest: str,
    beside: Sequence[str] = (),
    sequences: Mapping[str, int] = _NOTHING,
    max_candidates: int = MAX_CANDIDATES,
    json_size: int | None = None,
) -> InferRequest:
    """The columns of `features` in a request, and of `beside` where they are sent; tensors of other names are left alone.

    During a rollout both bundles get the same request, and one of them may know a feature that the other does not.
    A caller that makes features for one allowlist only says so with `parameters.feature_digest`; then a tensor that the
    allowlist does not have is refused too.

    Args:
        sequences: those of `features` that are columns of sequences, and how many items they hold at most.
        json_size: see `read_request`.

    Raises:
        ContractError: not this protocol, made for other features, a feature is missing, or lengths disagree; the message is
            for the caller.
    """
    sent = read_request(sent, json_size) if isinstance(sent, bytes) else sent
    inputs = sent.inputs
    if sent.feature_digest is not None:
        _check_allowlist(sent.feature_digest, feature_digest, set(inputs) - {*features, *BESIDE})
    if missing := [name for name in features if name not in inputs]:
        raise ContractError(
            f"inputs: {', '.join(sorted(missing))} is missing; expected one tensor for each of {', '.join(features)}"
        )
    columns = {}
    for name in dict.fromkeys((*features, *beside)):
        if (tensor := inputs.get(name)) is None:  # one of `beside`
            continue
        data = tensor.get("data")
        if name in sequences:
            columns[name] = sequence(name, tensor, sequences[name])
        elif type(data) is np.ndarray and tensor["shape"] == [len(data)]:
            columns[name] = data  # the parser made it of numbers of its datatype: nothing is left to look at
        else:
            columns[name] = column(name, tensor)
    lengths = {len(values) for values in columns.values()} - {1}
    if max(lengths, default=1) > max_candidates or 0 in lengths:
        raise ContractError(f"inputs: {max(lengths)} candidates; expected 1 to {max_candidates}, fewer at once")
    if len(lengths) > 1:
        found = ", ".join(f"{name} {len(values)}" for name, values in columns.items())
        raise ContractError(f"inputs: lengths differ ({found}); expected the number of candidates, or 1")
    return InferRequest(sent.id, columns, sent.outputs, sent.parameters, sent.is_binary, sent.binary)


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


def encode_request(
    features: Mapping[str, np.ndarray], parameters: Mapping[str, Any] | None = None, is_binary: bool = False
) -> bytes:
    """A body of raw columns as `decode_request` reads them: integers INT64, text BYTES, numbers FP64 with NaN as null.

    Columns of one dimension, and of two where they are a sequence's. With `is_binary` a `BinaryBody` that asks for one: numbers
    are bytes, and text, in which null may be, stays JSON.

    Raises:
        ValueError: a number is infinite, which neither JSON nor a feature can be.
    """
    tensors, raw = [], []
    for name, values in features.items():
        data: Any = np.ascontiguousarray(values).ravel()
        if values.dtype.kind == "f":
            datatype, data = "FP64", data.astype(np.float64, copy=False)
            if np.isinf(data).any():
                raise ValueError(f"{name}: a number is infinite; send NaN for what is not known")
        elif values.dtype.kind in "iu":
            datatype = "INT64"
        else:
            data = values.tolist()
            datatype = "INT64" if any(isinstance(value, int) for value in data) else "BYTES"
        tensor: dict[str, Any] = {"name": name, "datatype": datatype, "shape": list(values.shape)}
        if is_binary and isinstance(data, np.ndarray):
            raw.append(data.astype("<f8" if datatype == "FP64" else "<i8", copy=False).tobytes())
            tensor["parameters"] = {SIZE: len(raw[-1])}
        else:
            tensor["data"] = data
        tensors.append(tensor)
    document: dict[str, Any] = {"inputs": tensors}
    if parameters is not None or is_binary:
        document["parameters"] = dict(parameters or {}) | ({"binary_data_output": True} if is_binary else {})
    return BinaryBody.of(_json(document), raw) if is_binary else _json(document)


def encode_response(
    model: str,
    version: str,
    request: InferRequest,
    scores: Mapping[str, np.ndarray],
    parameters: Mapping[str, Any] | None = None,
) -> bytes:
    """A body of one FP32 tensor of shape [C] a label, and of `parameters` where there are any; a `BinaryBody` if asked for.

    Raises:
        ValueError: a score is not finite, which JSON cannot say and nobody should rank by: no request can bring that about,
            since encoders cut every number; the model is broken.
        ContractError: an output was asked for that the model does not have.
    """
    wanted = request.outputs or tuple(scores)
    if unknown := sorted(set(wanted) - set(scores)):
        raise ContractError(f"outputs: {', '.join(unknown)} is unknown; the model has {', '.join(scores)}")
    outputs, raw = [], []
    for label in wanted:
        values = np.ascontiguousarray(scores[label], dtype=np.float32)
        if not math.isfinite(values.dot(values)):  # nothing overflows: they are probabilities
            raise ValueError(f"{label}: {int((~np.isfinite(values)).sum())} of {len(values)}")
        output: dict[str, Any] = {"name": label, "datatype": "FP32", "shape": [len(values)]}
        if request.binary.get(label, request.is_binary):
            raw.append(values.astype("<f4", copy=False).tobytes())
            output["parameters"] = {SIZE: len(raw[-1])}
        else:
            output["data"] = values
        outputs.append(output)
    document: dict[str, Any] = {"model_name": model, "model_version": version, "outputs": outputs}
    if request.id:
        document["id"] = request.id
    if parameters:
        document["parameters"] = dict(parameters)
    return BinaryBody.of(_json(document), raw) if raw else _json(document)


def _json(document: Mapping[str, Any]) -> bytes:
    """NaN is null."""
    try:
        return orjson.dumps(document, option=orjson.OPT_SERIALIZE_NUMPY)
    except TypeError:  # text with half of a surrogate pair, or an integer above 64 bits: the standard library writes them
        return json.dumps(document, separators=(",", ":"), allow_nan=False, default=_listed).encode()


def _listed(values: np.ndarray) -> list[Any]:
    return [None if value != value else value for value in values.tolist()]


def decode_response(body: bytes, json_size: int | None = None) -> dict[str, np.ndarray]:
    """label -> (C,) float32. `json_size`: where the body has the binary extension.

    Raises:
        ContractError: not a response of this protocol.
    """
    try:
        outputs = orjson.loads(body if json_size is None else body[:json_size])["outputs"]
        if json_size is not None:
            _distribute(outputs, memoryview(body)[json_size:])
        return {
            output["name"]: np.frombuffer(output[RAW], dtype="<f4")
            if RAW in output
            else np.array(output["data"], dtype=np.float32)
            for output in outputs
        }
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ContractError(f"response: expected `outputs` with `name` and `data` ({type(error).__name__}: {error})") from error


def decode_parameters(body: bytes, json_size: int | None = None) -> dict[str, Any]:
    """The `parameters` of a response: with a log, the `request_id` and `served_time` that events send back."""
    return orjson.loads(body if json_size is None else body[:json_size]).get("parameters", {})
