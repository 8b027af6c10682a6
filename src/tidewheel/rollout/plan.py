"""Who sees the candidate, and when a step of the canary is over. Pure: no clock, no network, no state."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

import numpy as np

from tidewheel.contracts.recipe import CanaryStep
from tidewheel.contracts.rollout import Signal
from tidewheel.contracts.verdict import Phase


class Arm(IntEnum):
    NEITHER = 0  # served by production and not compared
    CONTROL = 1  # served by production, as many users as the candidate's where there are so many
    CANDIDATE = 2


def positions(user_ids: np.ndarray, salt: int) -> np.ndarray:
    """Place of each user in [0, 1): uniform over users, the same at every request and in every process.

    Args:
        user_ids: (N,) int64.
        salt: differs between canaries, so that no user is always among the first.

    Returns:
        (N,) float64; finalizer of SplittableRandom (Steele, Lea, Flood 2014), its upper 53 bits.
    """
    with np.errstate(over="ignore"):
        mixed = np.asarray(user_ids, dtype=np.int64).view(np.uint64) + np.uint64(salt % 2**64) * np.uint64(0x9E3779B97F4A7C15)
        mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        mixed = mixed ^ (mixed >> np.uint64(31))
    return (mixed >> np.uint64(11)).astype(np.float64) / 2.0**53


def arms(user_ids: np.ndarray, share: float, salt: int) -> np.ndarray:
    """(N,) int8 `Arm` of each user: whoever is the candidate's at a small share stays so at every larger one.

    The control arm is a concurrent part of production of the candidate's size, or all the rest where that is smaller;
    it lies at the other end, so no user changes from one arm to the other while the share is at most a half.
    """
    places = positions(user_ids, salt)
    control = min(share, 1.0 - share)
    chosen = np.full(len(places), Arm.NEITHER, dtype=np.int8)
    chosen[places >= 1.0 - control] = Arm.CONTROL
    chosen[places < share] = Arm.CANDIDATE
    return chosen


@dataclass(frozen=True)
class Seen:
    """How far a step is: requests of the candidate, goal labels among them, seconds of the traffic's own time."""

    requests: int
    events: int
    seconds: float


def decide(step: CanaryStep, seen: Seen, signals: Sequence[Signal], is_exhausted: bool) -> Phase:
    """Phase of a step after a look; `Running` asks for more requests.

    Proven harm ends the step at once, so does evidence that cannot be judged. `Successful` needs every signal to be so and
    every minimum to be reached. Whatever is undecided at `max_requests`, at `max_seconds` or when the traffic ends is
    `Inconclusive`; until then silence is waited for.
    """
    phases = {signal.phase for signal in signals}
    if Phase.FAILED in phases:
        return Phase.FAILED
    if Phase.ERROR in phases:
        return Phase.ERROR
    is_long_enough = seen.requests >= step.min_requests and seen.events >= step.min_events and seen.seconds >= step.min_seconds
    if is_long_enough and phases == {Phase.SUCCESSFUL}:
        return Phase.SUCCESSFUL
    if is_exhausted or _is_over(step, seen, phases == {Phase.SUCCESSFUL}):
        return Phase.INCONCLUSIVE
    return Phase.RUNNING


def _is_over(step: CanaryStep, seen: Seen, is_proven: bool) -> bool:
    """A proof that only waits for its minimum time or events may take more than `max_requests`."""
    return seen.seconds >= step.max_seconds or (seen.requests >= step.max_requests and not is_proven)
