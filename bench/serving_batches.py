"""What benches of serving send: batches of candidates as a caller has them, user and context once, in each server's form."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from pyarrow.dataset import dataset

from bench.load import http_request
from tidewheel.contracts.schema import Entity, FeatureKind
from tidewheel.ranker import OpenBundle, columns_of, load_bundle
from tidewheel.registry import Ledger
from tidewheel.serving.protocol import BinaryBody, decode_response, encode_request
from tidewheel.store import Home

INFER = "/v2/models/ranker/infer"
Columns = Mapping[str, np.ndarray]
Scores = Mapping[str, np.ndarray]
_JSON = {"Content-Type": "application/json"}


def production(home: Path, recipe: str) -> OpenBundle:
    store = Home.resolve(home).store()
    return load_bundle(store, Ledger(store, recipe).production() or "")


def logged_batches(home: Path, bundle: OpenBundle, candidates: int, number: int) -> list[dict[str, np.ndarray]]:
    """Rows of the data that the bundle was calibrated on, drawn at random: a request has its first row's user and context."""
    folder = Home.resolve(home).store().fetch("datasets", bundle.manifest.lineage.datasets["calibration"])
    rows = dataset(folder, format="parquet", exclude_invalid_files=True).to_table()
    random = np.random.default_rng(0)
    return [_columns(bundle, rows.take(random.choice(rows.num_rows, candidates, replace=False))) for _ in range(number)]


def _columns(bundle: OpenBundle, rows: pa.Table) -> dict[str, np.ndarray]:
    found = columns_of(rows, bundle.manifest.features)
    sizes = {name: len(rows) if f.entity is Entity.ITEM else 1 for f in bundle.manifest.features for name in f.columns}
    return {name: np.asarray(found[name])[:size] for name, size in sizes.items()}


def random_batches(bundle: OpenBundle, candidates: int, number: int) -> list[dict[str, np.ndarray]]:
    """Random rows: known and unknown texts, numbers with all their digits, which makes the longest JSON."""
    random = np.random.default_rng(0)
    return [_random_columns(bundle, candidates, random) for _ in range(number)]


def _random_columns(bundle: OpenBundle, candidates: int, random: np.random.Generator) -> dict[str, np.ndarray]:
    vocabularies = bundle.encoders().vocabularies
    columns: dict[str, np.ndarray] = {}
    for feature in bundle.manifest.features:
        size = candidates if feature.entity is Entity.ITEM else 1
        if feature.kind is FeatureKind.NUMERIC:
            columns[feature.name] = random.gamma(2.0, 1.0, size)
        elif feature.kind is FeatureKind.HASHED:
            columns[feature.name] = random.integers(1, 10**6, size)
        elif feature.kind is FeatureKind.VOCABULARY:
            columns[feature.name] = random.choice(np.array([*vocabularies[feature.name], "unknown"], dtype=object), size)
        else:
            columns |= {name: random.integers(0, 100, (1, feature.length)) for name in feature.columns}
    return columns


@dataclass(frozen=True)
class Form:
    """How one server is asked: columns to a whole HTTP request, and the body of its answer to scores."""

    request: Callable[[Columns], bytes]
    scores: Callable[[bytes], Scores]


def _ours(columns: Columns, parameters: Mapping[str, Any] | None = None) -> bytes:
    return http_request(INFER, encode_request(columns, parameters), _JSON)


def _ours_as_bytes(columns: Columns) -> bytes:
    body = encode_request(columns, is_binary=True)
    assert isinstance(body, BinaryBody)
    return http_request(INFER, body, {"Inference-Header-Content-Length": str(body.json_size)})


def _scores_as_bytes(answer: bytes) -> Scores:
    end = answer.index(b"]}") + 2  # a bench's client keeps no headers: the outputs are the last of the JSON
    return decode_response(answer, end)


def _rows(columns: Columns) -> bytes:
    """A data frame in MLflow's faster form, `dataframe_split`: every row has all its values."""
    size = max(len(values) for values in columns.values())
    data = [values.tolist() * (size if len(values) == 1 else 1) for values in columns.values()]
    document = {"dataframe_split": {"columns": list(columns), "data": list(zip(*data, strict=True))}}
    return http_request("/invocations", json.dumps(document).encode(), _JSON)


def _document(columns: Columns) -> bytes:
    """Lists by name, user and context once: the shortest JSON there is."""
    document = {name: values.tolist() for name, values in columns.items()}
    return http_request("/predict", json.dumps(document, separators=(",", ":")).encode(), _JSON)


def _float32(scores: Mapping[str, Any]) -> Scores:
    return {label: np.array(values, dtype=np.float32) for label, values in scores.items()}


def logged_request(columns: Columns, parameters: Mapping[str, Any]) -> bytes:
    """A request to ours that a server with a log writes down."""
    return _ours(columns, parameters)


FORMS = {
    "ours": Form(_ours, decode_response),
    "ours, bytes": Form(_ours_as_bytes, _scores_as_bytes),
    "mlflow": Form(_rows, lambda answer: _float32(json.loads(answer)["predictions"])),
    "litserve": Form(_document, lambda answer: _float32(json.loads(answer))),
    "ray": Form(_document, lambda answer: _float32(json.loads(answer))),
}
