from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from tidewheel.contracts.assignment import Assignment, Share, place_of
from tidewheel.rollout.plan import positions


def assignment(*shares: float, salt: int = 7) -> Assignment:
    return Assignment(
        recipe="r", number=1, salt=salt, shares=tuple(Share(bundle=f"b{at}", share=share) for at, share in enumerate(shares))
    )


@given(st.integers(-(2**63), 2**63 - 1), st.integers(0, 2**64 - 1))
def test_a_user_has_the_same_place_alone_and_among_many(user_id: int, salt: int) -> None:
    assert place_of(user_id, salt) == positions(np.array([user_id]), salt)[0]


def test_every_bundle_serves_its_share_of_users() -> None:
    served = [assignment(0.05, 0.95).bundle_of(user) for user in range(20_000)]
    assert served.count("b0") / len(served) == pytest.approx(0.05, abs=4 * np.sqrt(0.05 / 20_000))


def test_shares_that_round_leave_nobody_unserved() -> None:
    thirds = assignment(*[1 / 3] * 3)
    assert {thirds.bundle_of(user) for user in range(1000)} == {"b0", "b1", "b2"}


def test_shares_must_sum_to_one() -> None:
    with pytest.raises(ValidationError, match=r"sum is 0\.5; expected 1"):
        assignment(0.5)


def test_a_bundle_has_one_share() -> None:
    with pytest.raises(ValidationError, match="named twice"):
        Assignment(recipe="r", number=1, salt=0, shares=(Share(bundle="b", share=0.5), Share(bundle="b", share=0.5)))
