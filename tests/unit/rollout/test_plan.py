from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidewheel.contracts.recipe import CanaryStep
from tidewheel.contracts.rollout import Signal
from tidewheel.contracts.verdict import Phase
from tidewheel.rollout.plan import Arm, Seen, arms, decide, positions

STEP = CanaryStep(share=0.1, min_requests=100, max_requests=500)
USERS = np.arange(20_000)


def signals(*phases: Phase) -> list[Signal]:
    return [Signal(name=str(at), phase=phase, message="") for at, phase in enumerate(phases)]


@pytest.mark.parametrize("share", [0.05, 0.25, 0.5])
def test_both_arms_have_the_share_of_users(share: float) -> None:
    chosen = arms(USERS, share, salt=3)
    for arm in (Arm.CANDIDATE, Arm.CONTROL):
        assert np.mean(chosen == arm) == pytest.approx(share, abs=4 * np.sqrt(share / len(USERS)))


@given(st.floats(0.01, 0.5), st.floats(0.01, 0.5), st.integers(0, 2**64 - 1))
def test_a_user_keeps_the_arm_while_the_share_grows(first: float, second: float, salt: int) -> None:
    before, after = arms(USERS[:500], min(first, second), salt), arms(USERS[:500], max(first, second), salt)
    kept = before != Arm.NEITHER
    assert (before[kept] == after[kept]).all()


def test_another_canary_takes_other_users() -> None:
    a, b = (arms(USERS, 0.1, salt) == Arm.CANDIDATE for salt in (1, 2))
    assert np.mean(a & b) == pytest.approx(0.01, abs=0.004)


def test_places_do_not_depend_on_who_else_asks() -> None:
    assert positions(USERS, 7)[123] == positions(np.array([123]), 7)[0]


def test_everybody_at_the_candidate_leaves_no_control() -> None:
    assert (arms(USERS, 1.0, 1) == Arm.CANDIDATE).all()


@pytest.mark.parametrize(
    ("phases", "requests", "is_exhausted", "want"),
    [
        ((Phase.SUCCESSFUL, Phase.SUCCESSFUL), 100, False, Phase.SUCCESSFUL),
        ((Phase.SUCCESSFUL, Phase.SUCCESSFUL), 99, False, Phase.RUNNING),  # too early, however good
        ((Phase.SUCCESSFUL, Phase.SUCCESSFUL), 99, True, Phase.INCONCLUSIVE),
        ((Phase.SUCCESSFUL, Phase.RUNNING), 499, False, Phase.RUNNING),
        ((Phase.SUCCESSFUL, Phase.RUNNING), 500, False, Phase.INCONCLUSIVE),
        ((Phase.SUCCESSFUL, Phase.RUNNING), 200, True, Phase.INCONCLUSIVE),
        ((Phase.SUCCESSFUL, Phase.FAILED), 10, False, Phase.FAILED),  # harm does not wait
        ((Phase.FAILED, Phase.ERROR), 500, False, Phase.FAILED),
        ((Phase.SUCCESSFUL, Phase.ERROR), 500, False, Phase.ERROR),
        ((), 500, False, Phase.INCONCLUSIVE),  # silence is not consent
        ((), 0, True, Phase.INCONCLUSIVE),
    ],
)
def test_a_step_ends_as_its_evidence_says(phases, requests: int, is_exhausted: bool, want: Phase) -> None:
    assert decide(STEP, Seen(requests, 0, 0.0), signals(*phases), is_exhausted) is want


@given(st.lists(st.sampled_from(list(Phase))), st.integers(0, 1000), st.booleans())
def test_only_unanimous_success_with_enough_requests_passes(phases: list[Phase], requests: int, is_exhausted: bool) -> None:
    if decide(STEP, Seen(requests, 0, 0.0), signals(*phases), is_exhausted) is Phase.SUCCESSFUL:
        assert phases
        assert set(phases) == {Phase.SUCCESSFUL}
        assert requests >= STEP.min_requests
