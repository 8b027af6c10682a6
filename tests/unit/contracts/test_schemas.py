"""JSON Schemas of what users write and read: generated, so they cannot lie."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter

from tidewheel.contracts.bundle import BundleManifest
from tidewheel.contracts.dataset import DatasetManifest
from tidewheel.contracts.diagnosis import Diagnosis
from tidewheel.contracts.experiment import ExperimentReport
from tidewheel.contracts.hybrid import ClientEvent, ServedCandidate
from tidewheel.contracts.ledger import LedgerEntry
from tidewheel.contracts.past import ServedThen
from tidewheel.contracts.recipe import Recipe
from tidewheel.contracts.report import RunReport
from tidewheel.contracts.schema_changes import SchemaRecord
from tidewheel.contracts.state import ReleaseState

ROOT = Path(__file__).parents[3]
SCHEMAS: dict[str, Any] = {
    "recipes/recipe.schema.json": Recipe,
    "docs/schemas/run.schema.json": RunReport,
    "docs/schemas/dataset.schema.json": DatasetManifest,
    "docs/schemas/bundle.schema.json": BundleManifest,
    "docs/schemas/ledger.schema.json": LedgerEntry,
    "docs/schemas/experiment.schema.json": ExperimentReport,
    "docs/schemas/schema.schema.json": SchemaRecord,
    "docs/schemas/state.schema.json": ReleaseState,
    "docs/schemas/past.schema.json": ServedThen,
    "docs/schemas/diagnosis.schema.json": Diagnosis,
    "docs/schemas/hybrid-log.schema.json": ServedCandidate | ClientEvent,  # a row of either part
}


@pytest.mark.parametrize("name", SCHEMAS)
def test_the_schema_on_disk_is_the_contract(name: str, golden: bool) -> None:
    text = json.dumps(TypeAdapter(SCHEMAS[name]).json_schema(), indent=2, sort_keys=True) + "\n"
    path = ROOT / name
    if golden:
        path.write_text(text, encoding="utf-8")

    assert path.read_text(encoding="utf-8") == text, "make golden; whoever reads these documents sees a change"
