"""What is packed on the core that answers is what the writer joins."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidewheel.contracts.schema import Entity, FeatureKind, FeatureSpec
from tidewheel.serving.log_items import Layout
from tidewheel.serving.rows import About

FEATURES = (FeatureSpec(id=1, name="category", kind=FeatureKind.VOCABULARY, entity=Entity.ITEM),)
LAYOUT = Layout(FEATURES, ("click",))
NOW = "2026-01-05T12:00:00+00:00"
SURROGATE_TOO = st.characters(min_codepoint=0, max_codepoint=0xFFFF)
VALUES = st.lists(st.text(SURROGATE_TOO, max_size=4) | st.none() | st.integers(0, 9), min_size=1, max_size=5)


def packed(values: list[object], request: str = "r") -> bytes:
    columns = {"category": np.array(values, dtype=object), "item_id": np.arange(len(values))}
    return LAYOUT.pack(About(request), NOW, columns, {"click": np.arange(len(values), dtype=np.float32)})


@given(st.lists(VALUES, min_size=1, max_size=6))
def test_every_value_of_a_vocabulary_comes_out_as_it_went_in(requests: list[list[object]]) -> None:
    found: list[object] = []
    for answers in LAYOUT.join([LAYOUT.unpack(packed(values)) for values in requests]):
        column = answers.columns["category"]
        assert column.lengths.tolist() == answers.counts.tolist()
        found += column.values.tolist()
    assert found == [value for values in requests for value in values]


@pytest.mark.parametrize("values", [["a\0b", "c"], ["\0"], ["", ""], [""], ["a", None], ["a", 3]])
def test_texts_that_cannot_be_one_text_stay_many(values: list[object]) -> None:
    (answers,) = LAYOUT.join([LAYOUT.unpack(packed(values))])
    assert answers.columns["category"].values.tolist() == values
