"""Which of the resident bundles a request is for."""

from __future__ import annotations

from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest

from tidewheel.contracts.assignment import Assignment, Share
from tidewheel.rollout.plan import positions
from tidewheel.serving.gate import HttpError
from tidewheel.serving.versions import Table, Version

LARGE, SMALL = "a" * 8 + "0" * 56, "b" * 64
TWIN = "a" * 8 + "1" * 56


def table_of(*shares: tuple[str, float]) -> Table:
    """Versions of which a table asks nothing but to be told apart."""
    assignment = Assignment(
        recipe="r", number=1, salt=5, shares=tuple(Share(bundle=bundle, share=share) for bundle, share in shares)
    )
    versions = {bundle: cast(Version, SimpleNamespace(digest=bundle)) for bundle, _ in shares}
    return Table.of(versions, assignment)


def test_whoever_names_no_user_gets_the_greatest_share() -> None:
    table = table_of((SMALL, 0.1), (LARGE, 0.9))
    assert table.main.digest == LARGE
    assert table.of_user(None).digest == LARGE
    assert table.shares == {SMALL: 0.1, LARGE: 0.9}


def test_users_are_served_as_the_canarys_plan_places_them() -> None:
    table = table_of((SMALL, 0.25), (LARGE, 0.75))
    users = np.arange(-1000, 3000)
    want = np.where(positions(users, 5) < 0.25, SMALL, LARGE).tolist()
    assert [table.of_user(user).digest for user in users.tolist()] == want


def test_a_version_is_named_by_its_digest_or_by_a_beginning_that_only_it_has() -> None:
    table = table_of((LARGE, 0.9), (SMALL, 0.1))
    assert table.named(SMALL).digest == SMALL
    assert table.named("bbbbbbbb").digest == SMALL
    assert table.named("BBBBBBBB").digest == SMALL


@pytest.mark.parametrize(
    ("asked", "status", "text"),
    [
        ("b" * 7, 400, "8 or more digits"),
        ("b" * 65, 400, "expected its digest"),
        ("../../etc", 400, "expected its digest"),
        ("cccccccc", 404, "is not resident; resident are aaaaaaaa0000, aaaaaaaa1111"),
        ("aaaaaaaa", 404, "is the beginning of several"),
    ],
)
def test_another_name_is_refused_with_what_there_is(asked: str, status: int, text: str) -> None:
    with pytest.raises(HttpError, match=text) as refused:
        table_of((LARGE, 0.9), (TWIN, 0.1)).named(asked)
    assert refused.value.status == status
