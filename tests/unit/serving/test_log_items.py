"""Answers on their way to the writer: packed together, apart again, joined."""

from __future__ import annotations

import numpy as np
import pytest

from tidewheel.contracts.schema import Entity, FeatureKind, FeatureSpec
from tidewheel.serving.log_items import Answered, Item, Layout
from tidewheel.serving.rows import About

FEATURES = (
    FeatureSpec(id=1, name="user_id", kind=FeatureKind.HASHED, entity=Entity.USER, num_buckets=8),
    FeatureSpec(id=2, name="category", kind=FeatureKind.VOCABULARY, entity=Entity.ITEM),
    FeatureSpec(id=3, name="price", kind=FeatureKind.NUMERIC, entity=Entity.ITEM),
    FeatureSpec(id=4, name="clicks", kind=FeatureKind.SEQUENCE, entity=Entity.USER, of="category", length=3),
)
LAYOUT = Layout(FEATURES, ("click", "save"))


def answered(name: str, candidates: int, time: str = "2026-01-05T12:00:00", user_id: int | None = None) -> Answered:
    columns = {
        "user_id": np.array([7]),
        "item_id": np.arange(candidates),
        "category": np.array([f"{name}{number}" for number in range(candidates)], dtype=object),
        "price": np.arange(candidates) / 2,
        "clicks": np.arange(candidates, dtype=np.int64).reshape(1, candidates),
        "clicks_age_hours": np.zeros((1, candidates), dtype=np.int64),
    }
    scores = {label: np.full(candidates, score, dtype=np.float32) for label, score in (("click", 0.25), ("save", 0.5))}
    return Answered(About(name, user_id), time, columns, scores)


def items(*answers: Answered) -> list[Item]:
    return [LAYOUT.unpack(packed) for _, packed in LAYOUT.pack(answers)]


def told(found: list[Item]) -> list[tuple[object, ...]]:
    """All that the joined items say, in one form."""
    return [
        (
            [about.request_id for about in answers.parameters],
            list(answers.served_times),
            {name: (column.values.tolist(), column.lengths.tolist()) for name, column in answers.columns.items()},
            {label: scores.tolist() for label, scores in answers.scores.items()},
            answers.counts.tolist(),
        )
        for answers in LAYOUT.join(found)
    ]


def test_answers_of_one_kind_and_day_are_one_item_in_their_order() -> None:
    (found,) = items(answered("a", 2), answered("b", 1))

    assert (found.counts, found.num_rows) == ([2, 1], 3)
    ((names, _, columns, scores, counts),) = told([found])
    assert (names, counts) == (["a", "b"], [2, 1])
    assert columns["user_id"] == ([7, 7], [1, 1])  # type: ignore[index]
    assert columns["category"] == (["a0", "a1", "b0"], [2, 1])  # type: ignore[index]
    assert columns["price"] == ([0.0, 0.5, 0.0], [2, 1])  # type: ignore[index]
    assert columns["clicks"] == ([[0, 1], [0]], [1, 1])  # type: ignore[index]
    assert scores == {"click": [0.25] * 3, "save": [0.5] * 3}


@pytest.mark.parametrize(
    "second", [answered("b", 1, time="2026-01-06T00:00:00"), answered("b", 1, user_id=7)], ids=["another day", "a user once"]
)
def test_another_day_or_another_way_to_say_things_is_another_item(second: Answered) -> None:
    assert [item.counts for item in items(answered("a", 2), second)] == [[2], [1]]


def test_each_answer_alone_says_what_it_said_among_others() -> None:
    answers = [answered("a", 2), answered("b", 1), answered("c", 3)]
    (together,) = items(*answers)

    assert told(list(together.apart())) == told([together])
    assert [told([one]) for one in together.apart()] == [told(items(one)) for one in answers]
