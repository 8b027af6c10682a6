"""The memory of a step, or of a kind of pods that it starts: a ladder that an OOM kill climbs and quiet runs descend."""

from __future__ import annotations

from datetime import datetime, timedelta

from pydantic import AwareDatetime, Field

from tidewheel.contracts.base import Contract
from tidewheel.contracts.placement import PodPlacement, bytes_of

# Doubling reaches the default reach, four times `memory`, within the two retries that a step has by default.
FACTOR = 2
REACH = 4
# A rung is left once so many runs in a row would have fitted the one below, with room: a peak is sampled, and windows differ.
QUIET_RUNS = 5
ROOM = 0.8
# And where nobody has used it for so long: what it was needed for may be gone, and asking again costs one kill.
STALE = timedelta(days=14)


class Learned(Contract):
    """What earlier runs learned, `memory/<recipe>/<name>.json` in the store.

    rung_bytes: with which the next run starts. killed_bytes: the most that was not enough. kills: how often a rung was not
    enough; each makes the way down longer. quiet_runs: in a row that would have fitted the rung below. peak_bytes: of the
    last run that ended well. at: when it was last used.
    """

    rung_bytes: int = Field(gt=0)
    killed_bytes: int = Field(gt=0)
    kills: int = Field(ge=1)
    quiet_runs: int = Field(default=0, ge=0)
    peak_bytes: int | None = Field(default=None, ge=0)
    at: AwareDatetime


def highest(asked: PodPlacement) -> int:
    """The most that the recipe lets it have, bytes."""
    return bytes_of(asked.max_memory) if asked.max_memory else REACH * bytes_of(asked.memory)


def above(killed_bytes: int, asked: PodPlacement) -> int:
    """The rung above the one that was not enough; the highest has none but itself."""
    rung = bytes_of(asked.memory)
    while rung <= killed_bytes and rung < highest(asked):
        rung = min(rung * FACTOR, highest(asked))
    return rung


def below(rung_bytes: int, asked: PodPlacement) -> int:
    """The rung under it; the lowest has none but itself."""
    rung = bytes_of(asked.memory)
    while rung * FACTOR < rung_bytes:
        rung *= FACTOR
    return rung


def start(learned: Learned | None, asked: PodPlacement, now: datetime) -> int:
    """The rung to start with: what was learned, one lower for each `STALE` since it was used, within what the recipe says."""
    if learned is None:
        return bytes_of(asked.memory)
    rung = max(bytes_of(asked.memory), min(learned.rung_bytes, highest(asked)))
    for _ in range(max(0, (now - learned.at) // STALE)):
        rung = below(rung, asked)
    return rung


def after_kill(learned: Learned | None, asked: PodPlacement, killed_bytes: int, now: datetime) -> Learned:
    """Learn that so much was not enough. The same kill told twice changes nothing."""
    rung = above(killed_bytes, asked)
    if learned is None:
        return Learned(rung_bytes=rung, killed_bytes=killed_bytes, kills=1, at=now)
    known = start(learned, asked, now)
    if known >= rung and learned.killed_bytes >= killed_bytes:
        return learned
    return Learned(
        rung_bytes=max(rung, known),
        killed_bytes=max(killed_bytes, learned.killed_bytes),
        kills=learned.kills + 1,
        peak_bytes=learned.peak_bytes,
        at=now,
    )


def after_success(learned: Learned, asked: PodPlacement, peak_bytes: int | None, now: datetime) -> Learned:
    """Learn that a run ended well; the rung below is next once enough of them would have fitted it.

    Args:
        peak_bytes: the most that it used; None: nobody measured, and nothing is known of a lower rung.
    """
    rung = start(learned, asked, now)
    lower = below(rung, asked)
    is_quiet = lower < rung and peak_bytes is not None and peak_bytes <= ROOM * lower
    quiet_runs = learned.quiet_runs + 1 if is_quiet else 0
    is_over = quiet_runs >= QUIET_RUNS * learned.kills
    changed = {
        "rung_bytes": lower if is_over else rung,
        "killed_bytes": learned.killed_bytes,
        "quiet_runs": 0 if is_over else quiet_runs,
        "peak_bytes": peak_bytes,
        "at": now,
    }
    return learned.model_copy(update=changed)
