from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidewheel.rollout.ordered import BLOCK, Ordered


@given(st.lists(st.lists(st.floats(allow_nan=False))))
def test_whatever_comes_stands_in_order(parts: list[list[float]]) -> None:
    ordered, want = Ordered(), []
    for part in parts:
        ordered.add(part)
        want = sorted(want + part)
        assert list(ordered) == want
        assert [ordered[place] for place in range(len(ordered))] == want


@pytest.mark.parametrize("kind", ["rising", "falling", "shuffled", "equal"])
def test_many_numbers_stand_in_order_too(kind: str) -> None:
    values = {"rising": range(9 * BLOCK), "falling": range(9 * BLOCK, 0, -1), "equal": [1] * 9 * BLOCK}.get(
        kind, random.Random(1).sample(range(10**6), 9 * BLOCK)
    )
    ordered = Ordered()
    ordered.add(map(float, values))
    assert list(ordered) == sorted(values)
    assert (ordered[0], ordered[4 * BLOCK], ordered[9 * BLOCK - 1]) == tuple(
        sorted(values)[place] for place in (0, 4 * BLOCK, 9 * BLOCK - 1)
    )
    with pytest.raises(IndexError):
        ordered[9 * BLOCK]
