"""What a server writes into the hybrid log, as Arrow tables with the types of `contracts.hybrid`. Pure."""

from __future__ import annotations

import itertools
import json
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from pydantic import Field, ValidationError

from tidewheel.contracts.base import Contract, first_fault
from tidewheel.contracts.hybrid import COLUMNS, SCORE_PREFIX, ClientEvent, Int64, Part, Probability
from tidewheel.contracts.schema import FeatureKind, FeatureSpec, feature_columns
from tidewheel.errors import ContractError
from tidewheel.ranker.encoding import vocabulary_name
from tidewheel.serving.protocol import InferRequest

if TYPE_CHECKING:
    import pyarrow as pa

MAX_EVENTS = 1000  # of one POST
MAX_REQUEST_ID = 256  # characters; it goes into every row of the log
ID_COLUMNS = ("user_id", "item_id", "author_id")  # columns of the log that may be features as well
OPTIONAL = ("position", "propensity")  # null where a request does not say them
TENSORS = ("user_id", "item_id", "position", "propensity")  # read from a request beside the model's features

_PROCESS, _NUMBERS = uuid.uuid4().hex[:20], itertools.count()


def new_id() -> str:
    """An id that no other request has: 20 random digits of this process and a number, in hex."""
    return f"{_PROCESS}{next(_NUMBERS):012x}"


def now_text() -> str:
    """This moment, ISO 8601, UTC: as `datetime.isoformat` writes it with microseconds, in half the time."""
    seconds, microseconds = divmod(time.time_ns() // 1000, 1_000_000)
    return f"{_second(seconds)}.{microseconds:06d}+00:00"


@lru_cache(maxsize=2)
def _second(seconds: int) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}"


class LogParameters(Contract):
    """The `parameters` of a request that the log knows; the protocol's others are left alone."""

    request_id: str = Field(default_factory=new_id, min_length=1)
    user_id: Int64 | None = None
    is_randomized: bool = False
    propensity: Probability | None = None
    is_feature_miss: bool = False


_PARAMETERS = tuple(LogParameters.model_fields)


class About(NamedTuple):
    """What `LogParameters` of a request say, once they are known to be good."""

    request_id: str
    user_id: int | None = None
    is_randomized: bool = False
    propensity: float | None = None
    is_feature_miss: bool = False


class Joined(NamedTuple):
    """A column of several answers, one after the other, and how many values each of them has: one a candidate, or 1."""

    values: np.ndarray
    lengths: np.ndarray


@dataclass(frozen=True, slots=True)
class Answers:
    """Answered requests that say the same kinds of things, N of them with `counts` (N,) candidates.

    `served_times`: ISO 8601, UTC. Values of sequences are lists; scores are (sum of counts,) float32 by label.
    """

    parameters: Sequence[About]
    served_times: Sequence[str]
    columns: Mapping[str, Joined]
    scores: Mapping[str, np.ndarray]
    counts: np.ndarray


def loggable(request: InferRequest, num_rows: int) -> About:
    """What a request of `num_rows` candidates says of itself, after a look whether its rows can be written.

    Raises:
        ContractError: it lacks what a row of the log must have; the message is for the caller.
    """
    sent, columns = request.parameters or {}, request.columns
    about = _plainly(sent) if "propensity" not in columns else None
    if about is None:
        about = About(**dict(_checked(sent, columns)))
    user_id = about.user_id
    if len(about.request_id) > MAX_REQUEST_ID:
        raise ContractError(f"parameters.request_id: longer than {MAX_REQUEST_ID} characters")
    if user_id is not None:
        _check_agrees("user_id", user_id, columns)
    for name in ("user_id", "item_id"):
        if name in columns:
            if columns[name].dtype.kind != "i":
                raise ContractError(f"inputs.{name}: the log needs whole numbers of 64 bits without null")
        elif name == "item_id" or user_id is None:
            hint = "send it as an INT64 tensor" + (", or in `parameters`" if name == "user_id" else "")
            raise ContractError(f"inputs: {name} is missing; the log needs it: {hint}")
    for name in TENSORS:
        if name in columns and len(columns[name]) not in (1, num_rows):
            raise ContractError(
                f"inputs.{name}: {len(columns[name])} values for {num_rows} scored candidates; expected one each"
            )
    if "position" in columns:
        _check_position(columns["position"])
    return about


_NO_PROPENSITY = "parameters.propensity: missing; expected the probability of what is shown: is_randomized is true"


def _plainly(sent: Mapping[str, Any]) -> About | None:
    """What most requests say; None where it takes a closer look."""
    request_id, user_id = sent.get("request_id", "-"), sent.get("user_id")
    is_randomized, is_feature_miss = sent.get("is_randomized", False), sent.get("is_feature_miss", False)
    if type(request_id) is not str or not request_id or not request_id.isascii() or is_randomized is not False:
        return None
    if type(is_feature_miss) is not bool or "propensity" in sent:
        return None
    if user_id is not None and (type(user_id) is not int or not -(2**63) < user_id < 2**63):
        return None
    return About(sent.get("request_id") or new_id(), user_id, False, None, is_feature_miss)


def _checked(sent: Mapping[str, Any], columns: Mapping[str, np.ndarray]) -> LogParameters:
    try:
        parameters = LogParameters.model_validate({name: sent[name] for name in _PARAMETERS if name in sent})
    except ValidationError as error:
        raise ContractError(f"parameters.{first_fault(error)}") from error
    _check_propensity(parameters, columns)
    return parameters


def _check_agrees(name: str, value: float, columns: Mapping[str, np.ndarray]) -> None:
    """A feature is logged as it was scored."""
    if name in columns and (columns[name] != value).any():
        raise ContractError(f"parameters.{name}: {value} is not what the tensor of this name says; send one of them")


def _check_propensity(parameters: LogParameters, columns: Mapping[str, np.ndarray]) -> None:
    if parameters.propensity is not None:
        _check_agrees("propensity", parameters.propensity, columns)
    if "propensity" in columns:
        numbers = columns["propensity"].astype(np.float64)
        if not ((numbers > 0) & (numbers <= 1)).all():
            raise ContractError("propensity: expected probabilities in (0, 1]")
    elif parameters.is_randomized and parameters.propensity is None:
        raise ContractError(_NO_PROPENSITY)


def _check_position(values: np.ndarray) -> None:
    # `min` and `max` take twice as long on a core that has just done something else.
    if values.dtype.kind != "i" or values.item(values.argmin()) < 0 or values.item(values.argmax()) >= 2**31:
        raise ContractError("inputs.position: expected ranks in the answer, from 0")


def served_schema(features: Sequence[FeatureSpec], labels: Sequence[str]) -> pa.Schema:
    """Columns of the backend part: the contract's, each feature by its kind and type, a score a label.

    `author_id` is there where it is a feature; without it every item is its own.

    Raises:
        ContractError: a feature has the name of a column that means something else.
    """
    columns = dict(COLUMNS[Part.BACKEND])
    names = set(feature_columns(features))
    if "author_id" not in names:
        del columns["author_id"]
    taken = {name for name in names if name not in ID_COLUMNS and (name in columns or name.startswith(SCORE_PREFIX))}
    if taken:
        raise ContractError(f"--log: feature {', '.join(sorted(taken))} has the name of a column of the log; rename it")
    extra = {name: _feature_type(x) for x in features for name in x.columns if name not in columns}
    extra |= {SCORE_PREFIX + label: "double" for label in labels}
    return _schema(columns | {name: (kind, True, True) for name, kind in extra.items()})


def _feature_type(feature: FeatureSpec) -> str:
    """Numbers are doubles, which hold what is not known; a vocabulary is text, or the integers that its feature declares."""
    if feature.is_sequence:
        return "list<int64>"
    if feature.kind is FeatureKind.NUMERIC:
        return "double"
    return "int64" if feature.dtype.is_integer else "string"


def event_schema() -> pa.Schema:
    """Columns of the frontend part."""
    return _schema(COLUMNS[Part.FRONTEND])


def _schema(columns: Mapping[str, tuple[str, bool, bool]]) -> pa.Schema:
    import pyarrow as pa

    types = {
        "string": pa.string(),
        "int64": pa.int64(),
        "list<int64>": pa.list_(pa.int64()),
        "int32": pa.int32(),
        "double": pa.float64(),
        "bool": pa.bool_(),
        "timestamp[us, tz=UTC]": pa.timestamp("us", tz="UTC"),
    }
    return pa.schema([pa.field(name, types[kind], nullable) for name, (kind, nullable, _) in columns.items()])


def served_table(answers: Answers, schema: pa.Schema, bundle: str) -> pa.Table:
    """One row a candidate, in order.

    Raises:
        ValueError, TypeError, pyarrow.ArrowException: a value has no place in its column.
    """
    import pyarrow as pa

    counts, parameters = answers.counts, answers.parameters
    request = pa.array(np.repeat(np.arange(len(counts)), counts))
    a_request: dict[str, pa.Array] = {
        "request_id": pa.array([p.request_id for p in parameters], pa.string()),
        "is_randomized": pa.array([p.is_randomized for p in parameters]),
        "is_feature_miss": pa.array([p.is_feature_miss for p in parameters]),
        "served_time": pa.array(answers.served_times).cast(schema.field("served_time").type),
        "bundle": pa.array([bundle] * len(counts)),
    }
    columns = []
    for field in schema:
        if field.name in a_request:
            columns.append(a_request[field.name].take(request))
        elif field.name.startswith(SCORE_PREFIX):
            columns.append(pa.array(answers.scores[field.name.removeprefix(SCORE_PREFIX)].astype(np.float64)))
        elif field.name not in answers.columns and field.name in OPTIONAL:
            columns.append(pa.nulls(len(request), field.type))
        else:
            values, lengths = answers.columns[field.name]
            if len(values) == len(counts):  # one a request: there is less to convert
                columns.append(_array(values, field.type).take(request))
            else:
                columns.append(_array(_spread(values, lengths, counts), field.type))
    return pa.Table.from_arrays(columns, schema=schema)


def _spread(values: np.ndarray, lengths: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """One value a candidate, where some requests have one a candidate, others one for all of them."""
    if np.array_equal(lengths, counts):
        return values
    return np.repeat(values, np.repeat(np.where(lengths == counts, 1, counts), lengths))


def _array(values: np.ndarray, kind: pa.DataType) -> pa.Array:
    """Numbers that are not finite are null: so they were scored."""
    import pyarrow as pa

    if pa.types.is_floating(kind):
        numbers = values.astype(np.float64)
        return pa.array(numbers, mask=~np.isfinite(numbers))
    if pa.types.is_string(kind) and values.dtype.kind == "i":
        return pa.array(values).cast(kind)
    try:
        return pa.array(values, kind)
    except pa.ArrowException:  # a vocabulary of numbers, some of them null or of another type
        if not pa.types.is_string(kind):
            raise
        names = (value if type(value) is str else vocabulary_name(value) or None for value in values.tolist())
        return pa.array(list(names), kind)


def parse_events(body: bytes, logged_time: datetime) -> tuple[list[ClientEvent], int, str]:
    """The good events of a JSON list, the number of refused ones and why the first of them was refused.

    Raises:
        ContractError: not a JSON list, or too many events.
    """
    try:
        documents = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise ContractError(f"events: expected a JSON list of events ({type(error).__name__}: {error})") from error
    if not isinstance(documents, list) or len(documents) > MAX_EVENTS:
        found = f"{len(documents)} events" if isinstance(documents, list) else type(documents).__name__
        raise ContractError(f"events: found {found}; expected a list of at most {MAX_EVENTS} events")
    accepted, reason = [], ""
    for at, document in enumerate(documents):
        try:
            if isinstance(document, dict) and "logged_time" in document:
                raise ContractError("logged_time: the server writes it; leave it out")
            stamped = {**document, "logged_time": logged_time} if isinstance(document, dict) else document
            accepted.append(ClientEvent.model_validate(stamped))
        except (ValidationError, ContractError) as error:
            fault = first_fault(error) if isinstance(error, ValidationError) else str(error)
            reason = reason or f"events[{at}]: {fault}"
    return accepted, len(documents) - len(accepted), reason


def event_table(posts: Sequence[Sequence[ClientEvent]], schema: pa.Schema) -> pa.Table:
    """One row an event, in order."""
    import pyarrow as pa

    events = list(itertools.chain.from_iterable(posts))
    columns = [pa.array([getattr(event, field.name) for event in events], field.type) for field in schema]
    return pa.Table.from_arrays(columns, schema=schema)
