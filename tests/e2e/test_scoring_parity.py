"""What a server answers is what training computed, on a real log, row by row: torch on training's own encoded rows, the graph
on the raw columns, and a server over HTTP that gets them as JSON and as bytes."""

from __future__ import annotations

import http.client
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from tests.e2e.command import KUAIRAND, KUAIRAND_DATA, tidewheel
from tidewheel.contracts.schema import FeatureKind, FeatureSpec
from tidewheel.ranker import GraphScorer, OpenBundle, Scorer, columns_of, load_bundle
from tidewheel.ranker.bundle import load_model
from tidewheel.ranker.calibration import Calibrators
from tidewheel.ranker.encoding import Encoders
from tidewheel.ranker.histogram import Histogram
from tidewheel.ranker.model import load_ranker
from tidewheel.serving import start_server
from tidewheel.serving.protocol import BinaryBody, decode_response, encode_request
from tidewheel.store import Home
from tidewheel.training.encode import encoded_rows

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not KUAIRAND_DATA.is_dir(), reason="KuaiRand is not beside this checkout (../shared/data/kuairand_pure_std)"
    ),
]
TOLERANCE = 1e-6
NUM_ROWS = 12_000
BATCH_ROWS = 500
Scores = dict[str, np.ndarray]


@dataclass(frozen=True)
class Rows:
    """A bundle, and rows of its log in a folder as training reads them."""

    home: Path
    bundle: OpenBundle
    folder: Path
    table: pa.Table


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, OpenBundle, pa.Table]:
    """Home and bundle of one turn on the real log, and rows of the day that it was evaluated on."""
    home = tmp_path_factory.mktemp("parity") / "home"
    ended = tidewheel("run", "--recipe", KUAIRAND, "--data", KUAIRAND_DATA, "--json", home=home)
    assert ended.code == 0, ended.err
    store = Home.resolve(home).store()
    folder = store.fetch("datasets", ended.document["datasets"]["eval"]["digest"])
    table = pa.concat_tables([pq.read_table(path, partitioning=None) for path in sorted(folder.rglob("*.parquet"))])
    return home, load_bundle(store, ended.document["bundle"]), table.slice(0, NUM_ROWS)


def with_holes(table: pa.Table, features: tuple[FeatureSpec, ...]) -> pa.Table:
    """Of each feature a tenth is null; of a vocabulary another tenth is a value that no training row had."""
    random = np.random.default_rng(7)
    for feature in features:
        at = table.column_names.index(feature.name)
        values = table.column(at).to_pylist()
        for row, draw in enumerate(random.random(len(values)).tolist()):
            if draw < 0.1:
                values[row] = None
            elif draw < 0.2 and feature.kind is FeatureKind.VOCABULARY:
                values[row] = "never seen" if pa.types.is_string(table.schema.field(at).type) else 987_654_321
        table = table.set_column(at, feature.name, pa.array(values, table.schema.field(at).type))
    return table


@pytest.fixture(scope="module", params=["as logged", "with holes"])
def rows(
    request: pytest.FixtureRequest, evaluated: tuple[Path, OpenBundle, pa.Table], tmp_path_factory: pytest.TempPathFactory
) -> Rows:
    home, bundle, table = evaluated
    if request.param == "with holes":
        table = with_holes(table, bundle.manifest.features)
    folder = tmp_path_factory.mktemp("rows")
    pq.write_table(table, folder / "part-0.parquet")
    return Rows(home, bundle, folder, table)


@pytest.fixture(scope="module")
def trained(rows: Rows, tmp_path_factory: pytest.TempPathFactory) -> Scores:
    """Training's encoded rows through the torch module and the calibrators."""
    bundle, entry = rows.bundle, rows.bundle.model()
    encoders = Encoders.read(bundle.folder / entry.encoders)
    student = load_ranker(bundle.folder / entry.weights, bundle.folder / entry.network).eval()
    calibrators = Calibrators.read(bundle.folder / entry.calibrators).by_label
    encoded = encoded_rows(rows.folder, encoders, bundle.manifest.labels, tmp_path_factory.mktemp("encoded"))
    found: dict[str, list[np.ndarray]] = {label: [] for label in bundle.manifest.labels}
    with torch.no_grad():
        for batch in encoded.in_order(1024):
            logits = student(batch.ids, batch.numbers).numpy()
            for at, label in enumerate(student.network.labels):
                by = calibrators[label]
                own = (batch.ids[:, by.column].numpy(),) if isinstance(by, Histogram) else ()
                found[label].append(by.apply(logits[:, at], *own))
    return {label: np.concatenate(parts) for label, parts in found.items()}


def test_the_rows_are_enough_and_have_what_is_hard_to_score(rows: Rows) -> None:
    columns = columns_of(rows.table, rows.bundle.manifest.features)
    ids = Encoders.read(rows.bundle.folder / rows.bundle.model().encoders).encode(columns).ids
    assert rows.table.num_rows == NUM_ROWS
    assert (ids == 0).any()  # null, or not in a vocabulary


def test_the_graph_scores_raw_rows_as_training_does(rows: Rows, trained: Scores) -> None:
    scores = Scorer(rows.bundle).score(columns_of(rows.table, rows.bundle.manifest.features))
    for label, want in trained.items():
        assert want.shape == (NUM_ROWS,)
        np.testing.assert_allclose(scores[label], want, rtol=0, atol=TOLERANCE, err_msg=label)


def test_the_graph_of_the_large_ranker_scores_raw_rows_as_training_does(
    rows: Rows, tmp_path_factory: pytest.TempPathFactory
) -> None:
    store = Home.resolve(rows.home).store()
    (digest,) = store.folders("models")
    folder, manifest = load_model(store, digest)
    encoders = Encoders.read(folder / manifest.encoders)
    ranker = load_ranker(folder / manifest.weights, folder / manifest.network).eval()
    encoded = encoded_rows(rows.folder, encoders, manifest.labels, tmp_path_factory.mktemp("encoded"))
    with torch.no_grad():
        logits = torch.cat([ranker(batch.ids, batch.numbers) for batch in encoded.in_order(1024)])
    scores = GraphScorer(folder, manifest).score(columns_of(rows.table, encoders.features))
    for at, label in enumerate(manifest.labels):
        want = torch.sigmoid(logits[:, at].double()).numpy()
        np.testing.assert_allclose(scores[label], want, rtol=0, atol=TOLERANCE, err_msg=label)


@pytest.mark.parametrize("is_binary", [False, True], ids=["json", "bytes"])
def test_a_server_answers_raw_rows_with_what_training_computes(rows: Rows, trained: Scores, is_binary: bool) -> None:
    found: dict[str, list[np.ndarray]] = {label: [] for label in trained}
    with start_server(rows.bundle.folder) as server:
        for columns in requests(rows):
            for label, values in asked(server.url, columns, is_binary).items():
                found[label].append(values)
    for label, want in trained.items():
        np.testing.assert_allclose(np.concatenate(found[label]), want, rtol=0, atol=TOLERANCE, err_msg=label)


def requests(rows: Rows) -> Iterator[dict[str, np.ndarray]]:
    """Rows as a caller has them: what is null is None, of a number NaN."""
    for start in range(0, rows.table.num_rows, BATCH_ROWS):
        part = rows.table.slice(start, BATCH_ROWS)
        columns = {}
        for feature in rows.bundle.manifest.features:
            values = part.column(feature.name).to_pylist()
            if feature.kind is FeatureKind.NUMERIC:
                columns[feature.name] = np.array(values, dtype=np.float64)
            else:
                columns[feature.name] = np.array(values, dtype=object if None in values else None)
        yield columns


def asked(url: str, columns: dict[str, np.ndarray], is_binary: bool) -> Scores:
    body = encode_request(columns, is_binary=is_binary)
    headers = {"Inference-Header-Content-Length": str(body.json_size)} if isinstance(body, BinaryBody) else {}
    connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=30)
    connection.request("POST", "/v2/models/ranker/infer", body, headers)
    answer = connection.getresponse()
    content = answer.read()
    connection.close()
    assert answer.status == 200, content
    size = answer.headers["inference-header-content-length"]
    return decode_response(content, int(size) if size else None)
