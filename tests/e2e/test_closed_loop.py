"""The loop closes: a server writes down what it served and what its clients report; the log is well and says what was sent."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.e2e.command import tidewheel
from tidewheel.contracts.recipe import CounterConfig, HybridSource, IngestConfig, LabelConfig
from tidewheel.contracts.schema import FeatureKind, FeatureSpec
from tidewheel.contracts.window import Window
from tidewheel.logs import ingest
from tidewheel.logs.session import embedded_session
from tidewheel.logs.sources import counter_names
from tidewheel.ranker import OpenBundle
from tidewheel.serving import Client, start_server
from tidewheel.serving.hybrid_log import HybridLog

CANDIDATES = 6
REQUESTS = 40
RATE = 0.5


def raw_columns(features: tuple[FeatureSpec, ...], random: np.random.Generator) -> dict[str, np.ndarray]:
    """Columns of one request: unknown values among them, and everything but items sent once."""
    columns: dict[str, np.ndarray] = {}
    for feature in features:
        size = CANDIDATES if feature.entity == "item" else 1
        if feature.kind is FeatureKind.HASHED:
            columns[feature.name] = random.integers(-(2**62), 2**62, size)
        elif feature.kind is FeatureKind.VOCABULARY:
            columns[feature.name] = random.choice(np.array(["a", "b", "ünseen", None], dtype=object), size)
        else:
            columns[feature.name] = np.where(random.random(size) < 0.1, np.nan, random.gamma(2.0, 1.0, size))
    columns["position"] = random.permutation(CANDIDATES)
    return columns


def expected_rows(columns: Mapping[str, np.ndarray], answer: Any, parameters: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The rows of one request as Python values: floats by their bits, so that NaN, 0.1 and -0.0 are what they are."""
    rows = []
    for at in range(CANDIDATES):
        row = {name: column[at if len(column) > 1 else 0] for name, column in columns.items()}
        row |= {f"score_{label}": np.float64(scores[at]) for label, scores in answer.scores.items()}
        row |= {"request_id": answer.parameters["request_id"], "bundle": answer.bundle, "is_feature_miss": False}
        row |= {"served_time": datetime.fromisoformat(answer.parameters["served_time"])}
        row |= {"is_randomized": parameters.get("is_randomized", False), "propensity": parameters.get("propensity")}
        rows.append({name: by_bits(value) for name, value in row.items()})
    return rows


def by_bits(value: Any) -> Any:
    if isinstance(value, float):
        return None if value != value else np.float64(value).tobytes().hex()
    return value.item() if isinstance(value, np.generic) else value


def rows_of(table: pa.Table) -> list[dict[str, Any]]:
    return [{name: by_bits(value) for name, value in row.items()} for row in table.to_pylist()]


@pytest.fixture(scope="module")
def loop(tiny_bundle: OpenBundle, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Any], list[Any]]:
    """A log of a real server, whose days were closed by the next one; and the rows that it should hold, by part."""
    root = tmp_path_factory.mktemp("log")
    random = np.random.default_rng(3)
    candidates, events = [], []
    with start_server(tiny_bundle.folder, log_folder=root) as server:
        client = Client(server.url)
        for number in range(REQUESTS):
            parameters: dict[str, Any] = {"request_id": f"r{number}"} if number % 2 else {}
            parameters |= {"is_randomized": True, "propensity": 1 / 720} if number % 5 == 0 else {}
            columns = raw_columns(tiny_bundle.manifest.features, random)
            answer = client.infer(columns, parameters)
            candidates += expected_rows(columns, answer, parameters)
            assert not number % 2 or answer.parameters["request_id"] == f"r{number}"
            is_logged = random.random() < RATE
            for at in range(CANDIDATES):
                names = (["impression"] if is_logged else []) + (["click"] if random.random() < 0.2 else [])
                for name in names:
                    events.append(
                        dict(answer.parameters)
                        | {"item_id": int(columns["item_id"][at]), "event": name, "logging_rate": RATE}
                        | {"event_time": datetime.now(UTC).isoformat()}
                    )
        assert client.infer(columns).parameters == {}  # a request without parameters, a probe, is nobody's impression
        assert client.post_events(events) == {"accepted": len(events), "refused": 0, "first_refusal": ""}
        client.close()
    for days in (1, 2):
        start_later(tiny_bundle, root, days)
    return root, candidates, events


def start_later(bundle: OpenBundle, root: Path, days: int) -> None:
    """What the start of a server does: it marks the days that its predecessors left. Then this one dies."""
    then = datetime.now(UTC) + timedelta(days=days, minutes=5)
    HybridLog(root, bundle.digest, bundle.manifest.features, bundle.manifest.labels, clock=lambda: then).advance()


def test_the_log_reads_back_as_what_was_served_bit_by_bit(loop: tuple[Path, list[Any], list[Any]]) -> None:
    root, want, _ = loop
    files = sorted(root.glob("backend/date=*/part-*.parquet"))

    found = [row for path in files for row in rows_of(pq.read_table(path, partitioning=None))]

    assert len(found) == REQUESTS * CANDIDATES
    assert found == want


def test_the_log_reads_back_as_what_clients_reported(loop: tuple[Path, list[Any], list[Any]]) -> None:
    root, _, events = loop
    want = [event | {name: datetime.fromisoformat(event[name]) for name in ("served_time", "event_time")} for event in events]

    tables = [pq.read_table(path, partitioning=None) for path in sorted(root.glob("frontend/date=*/part-*.parquet"))]
    found = pa.concat_tables(tables)

    assert found.drop_columns(["logged_time"]).to_pylist() == [
        {name: event[name] for name in found.column_names if name != "logged_time"} for event in want
    ]
    assert all(row["logged_time"] >= row["event_time"] for row in found.to_pylist())


def test_ingest_makes_impressions_of_it_with_the_labels_and_probabilities_by_hand(
    loop: tuple[Path, list[Any], list[Any]], tiny_bundle: OpenBundle, tmp_path: Path
) -> None:
    root, candidates, events = loop
    config = IngestConfig(counters=CounterConfig(labels=("click",)))
    counted = counter_names(CounterConfig(labels=("click", "long_view")))  # what a run computes itself
    features = tuple(feature for feature in tiny_bundle.manifest.features if feature.name not in counted)
    first = min(row["served_time"] for row in candidates).replace(hour=0, minute=0, second=0, microsecond=0)
    window = Window(start=first, end=first + timedelta(days=2))
    source = HybridSource(kind="hybrid", path=str(root), labels=("click",))
    (tmp_path / "out").mkdir()

    with embedded_session() as spark:
        labels, horizon = (LabelConfig(name="click"),), timedelta(hours=1)
        found = ingest(spark, source, labels, features, config, window, tmp_path / "out", root, horizon)

    clicked = {(event["request_id"], event["item_id"]) for event in events if event["event"] == "click"}
    seen = {(event["request_id"], event["item_id"]) for event in events}
    names = {feature.name for feature in features} | {"request_id", "item_id", "position", "is_randomized", "propensity"}
    want = {}
    for row in candidates:
        key = (row["request_id"], row["item_id"])
        if key in seen:
            inclusion = by_bits(1.0 if key in clicked else RATE)
            made = {"label_click": int(key in clicked), "inclusion_probability": inclusion, "event_time": row["served_time"]}
            want[key] = {name: row[name] for name in names} | made
    table = pq.read_table(tmp_path / "out" / "impressions")
    got = {(row["request_id"], row["item_id"]): row for row in rows_of(table)}
    assert {key: {name: got[key][name] for name in row} for key, row in want.items()} == want
    assert found.rows == len(got) == len(want)
    assert found.statistics["served"] == len(candidates)
    assert found.statistics["not_seen"] == len(candidates) - len(seen)
    assert found.statistics["quarantined"] == 0


def test_doctor_says_that_the_log_is_well(loop: tuple[Path, list[Any], list[Any]], tmp_path: Path) -> None:
    root, candidates, events = loop

    ended = tidewheel("doctor", "--data", root, "--json", home=tmp_path / "home")

    found = {check["name"]: check["found"] for check in ended.document["checks"]}
    assert ended.code == 0, ended.out
    assert f"{len(candidates)} rows" in found["backend"]
    assert f"{len(events)} rows" in found["frontend"]
    assert found["orphans"] == f"0 of {len(events)} events (0.0%) are of no served candidate"


def test_doctor_names_a_file_that_was_cut_off(loop: tuple[Path, list[Any], list[Any]], tmp_path: Path) -> None:
    root = shutil.copytree(loop[0], tmp_path / "log")
    victim = next(root.glob("backend/date=*/part-*.parquet"))
    victim.write_bytes(victim.read_bytes()[:-10])

    ended = tidewheel("doctor", "--data", root, home=tmp_path / "home")

    line = next(line for line in ended.out.splitlines() if victim.name in line)
    assert ended.code == 1
    assert line.startswith(f"✗ {victim}: cannot be read")
    assert "expected a whole Parquet file: write it again" in line
