"""Whether a bundle can teach on some rows, and whether it agrees with the randomized ones."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from tidewheel.contracts.schema import Entity, FeatureKind, FeatureSpec
from tidewheel.ranker import OpenBundle
from tidewheel.steps import teaching
from tidewheel.steps.teaching import disagreement_of, misfit_of, randomized_rows

LABELS = ("click", "long_view", "like")


@pytest.fixture
def rows(quickstart, make_rows) -> pa.Table:
    """As the bundle's training rows, but others."""
    return make_rows(quickstart, 1500, 3)


def with_clicks(rows: pa.Table, clicks: pa.ChunkedArray) -> pa.Table:
    return rows.set_column(rows.column_names.index("label_click"), "label_click", clicks)


def test_a_bundle_with_fewer_features_and_some_common_label_may_teach(tiny_bundle: OpenBundle) -> None:
    own = tiny_bundle.manifest.features
    more = FeatureSpec(id=99, name="price", kind=FeatureKind.NUMERIC, entity=Entity.ITEM)
    assert misfit_of(tiny_bundle, (*own, more), ["click", "purchase"]) is None


def test_a_bundle_that_cannot_score_the_rows_does_not_teach(tiny_bundle: OpenBundle) -> None:
    first, *others = tiny_bundle.manifest.features
    labels = list(tiny_bundle.manifest.labels)
    lacking = misfit_of(tiny_bundle, tuple(others), labels)
    assert lacking == f"it takes {first.name}, which this recipe does not allow"
    renamed = misfit_of(tiny_bundle, (first.model_copy(update={"id": 99}), *others), labels)
    assert renamed == f"{first.name} has another id in its features: another meaning"
    assert misfit_of(tiny_bundle, (first, *others), ["purchase"]) == "it knows click, long_view, like, none of purchase"


def test_a_teacher_that_ranks_randomized_rows_well_agrees(tiny_bundle: OpenBundle, rows: pa.Table) -> None:
    assert disagreement_of(tiny_bundle, rows, LABELS, 0.5) is None


def test_a_teacher_that_ranks_them_the_wrong_way_round_does_not_and_says_its_numbers(
    tiny_bundle: OpenBundle, rows: pa.Table
) -> None:
    wrong = with_clicks(rows, pc.subtract(pa.scalar(1, pa.int8()), rows["label_click"]))
    found = disagreement_of(tiny_bundle, wrong, LABELS, 0.5)
    assert found is not None
    assert found.startswith("its AUC of click on this window's randomized rows is 0.")
    assert found.endswith(", limit 0.5")
    assert disagreement_of(tiny_bundle, wrong, LABELS, 0.0) is None


def test_a_label_with_too_few_rows_of_a_class_is_not_judged(tiny_bundle: OpenBundle, rows: pa.Table) -> None:
    wrong = with_clicks(rows, pc.subtract(pa.scalar(1, pa.int8()), rows["label_click"]))
    few = wrong.filter(pc.equal(wrong["label_click"], 1)).slice(0, 600)
    assert disagreement_of(tiny_bundle, few, ("click",), 0.99) is None
    assert disagreement_of(tiny_bundle, rows.slice(0, 0), LABELS, 0.99) is None


def test_a_large_slice_is_read_in_part(tiny_bundle: OpenBundle, rows: pa.Table, tmp_path, monkeypatch) -> None:
    for number in range(3):
        pq.write_table(rows.slice(500 * number, 500), tmp_path / f"part-{number}.parquet")
    assert randomized_rows(tmp_path, tiny_bundle, LABELS).num_rows == 1500
    monkeypatch.setattr(teaching, "MAX_ROWS", 700)
    assert randomized_rows(tmp_path, tiny_bundle, LABELS).equals(
        rows.slice(0, 700).select(randomized_rows(tmp_path, tiny_bundle, LABELS).column_names)
    )
