"""The ladder of memory: what a kill teaches, and how it is forgotten."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidewheel.contracts.memory import Learned, above, after_kill, after_success, below, highest, start
from tidewheel.contracts.placement import PodPlacement

MIB = 2**20
NOW = datetime(2026, 1, 12, 3, tzinfo=UTC)
DAY = timedelta(days=1)
ASKED = PodPlacement(memory="1Gi")  # rungs of 1, 2 and 4 GiB


def placements() -> st.SearchStrategy[PodPlacement]:
    return st.tuples(st.integers(64, 4096), st.one_of(st.none(), st.integers(0, 16384))).map(
        lambda drawn: PodPlacement(memory=f"{drawn[0]}Mi", max_memory="" if drawn[1] is None else f"{drawn[0] + drawn[1]}Mi")
    )


def gib(amount: float) -> int:
    return round(amount * 1024 * MIB)


def killed_at(amount: float, learned: Learned | None = None, now: datetime = NOW) -> Learned:
    return after_kill(learned, ASKED, gib(amount), now)


def well(learned: Learned, peak: int | None, runs: int = 1) -> Learned:
    for _ in range(runs):
        learned = after_success(learned, ASKED, peak, NOW)
    return learned


def test_a_step_that_was_never_killed_starts_with_what_the_recipe_says() -> None:
    assert start(None, ASKED, NOW) == gib(1)


def test_each_kill_is_one_rung_of_twice_as_much_until_the_highest() -> None:
    first = killed_at(1)
    second = killed_at(2, first)
    third = killed_at(4, second)

    assert [start(each, ASKED, NOW) for each in (first, second, third)] == [gib(2), gib(4), gib(4)]
    assert third.killed_bytes == gib(4)


@pytest.mark.parametrize(
    ("memory", "max_memory", "want"), [("1Gi", "", 4096), ("1Gi", "3Gi", 3072), ("1Gi", "1Gi", 1024), ("100Mi", "", 400)]
)
def test_the_highest_rung_is_the_recipes_or_four_times_memory(memory: str, max_memory: str, want: int) -> None:
    assert highest(PodPlacement(memory=memory, max_memory=max_memory)) == want * MIB


def test_a_rung_that_a_quota_cut_short_has_the_next_whole_one_above_it() -> None:
    assert above(gib(1.5), ASKED) == gib(2)
    assert below(gib(1.5), ASKED) == gib(1)


def test_the_same_kill_seen_by_two_tries_is_one_kill() -> None:
    assert killed_at(1, killed_at(1)) == killed_at(1)
    assert killed_at(4, killed_at(4)) == killed_at(4)


def test_five_runs_that_would_have_fitted_the_rung_below_leave_the_rung() -> None:
    learned = killed_at(1)

    assert start(well(learned, gib(0.8), runs=4), ASKED, NOW) == gib(2)
    assert start(well(learned, gib(0.8), runs=5), ASKED, NOW) == gib(1)


@pytest.mark.parametrize("peak", [gib(0.81), gib(1.9), None])
def test_runs_that_need_the_rung_or_were_not_measured_keep_it(peak: int | None) -> None:
    assert start(well(killed_at(1), peak, runs=100), ASKED, NOW) == gib(2)


def test_one_busy_run_between_quiet_ones_begins_the_count_again() -> None:
    learned = well(well(killed_at(1), gib(0.5), runs=4), gib(1.5))

    assert start(well(learned, gib(0.5), runs=4), ASKED, NOW) == gib(2)


def test_a_rung_that_was_left_too_early_takes_twice_as_long_to_leave() -> None:
    again = killed_at(1, well(killed_at(1), gib(0.5), runs=5))

    assert start(well(again, gib(0.5), runs=9), ASKED, NOW) == gib(2)
    assert start(well(again, gib(0.5), runs=10), ASKED, NOW) == gib(1)


def test_a_rung_that_nobody_used_for_two_weeks_is_one_lower() -> None:
    learned = killed_at(2, killed_at(1))

    assert [start(learned, ASKED, NOW + days * DAY) for days in (13, 14, 27, 28, 400)] == [
        gib(4),
        gib(2),
        gib(2),
        gib(1),
        gib(1),
    ]


def test_a_kill_after_such_a_rest_climbs_again() -> None:
    later = NOW + 15 * DAY
    again = killed_at(1, killed_at(1), now=later)

    assert start(again, ASKED, later) == gib(2)
    assert again.kills == 2


def test_a_recipe_that_asks_for_more_than_was_learned_is_believed() -> None:
    assert start(killed_at(1), PodPlacement(memory="8Gi"), NOW) == gib(8)


def test_a_recipe_that_allows_less_than_was_learned_is_believed_too() -> None:
    assert start(killed_at(2, killed_at(1)), PodPlacement(memory="1Gi", max_memory="1536Mi"), NOW) == gib(1.5)


@given(
    asked=placements(),
    story=st.lists(st.tuples(st.booleans(), st.integers(1, 32768), st.integers(0, 40)), max_size=30),
)
def test_whatever_happens_the_rung_is_within_what_the_recipe_says(
    asked: PodPlacement, story: list[tuple[bool, int, int]]
) -> None:
    learned, now = None, NOW
    for is_kill, amount, days in story:
        now += days * DAY
        if is_kill:
            learned = after_kill(learned, asked, amount * MIB, now)
            assert start(learned, asked, now) > amount * MIB or start(learned, asked, now) == highest(asked)
        elif learned is not None:
            before = start(learned, asked, now)
            learned = after_success(learned, asked, amount * MIB, now)
            assert start(learned, asked, now) <= before
        assert int(asked.memory[:-2]) * MIB <= start(learned, asked, now) <= highest(asked)


@given(asked=placements(), kills=st.lists(st.integers(1, 32768), min_size=1, max_size=10))
def test_kills_only_climb(asked: PodPlacement, kills: list[int]) -> None:
    learned, rung = None, 0
    for amount in kills:
        learned = after_kill(learned, asked, amount * MIB, NOW)
        assert start(learned, asked, NOW) >= rung
        rung = start(learned, asked, NOW)


@given(asked=placements(), kills=st.lists(st.integers(1, 32768), min_size=1, max_size=6))
def test_quiet_runs_come_back_to_where_the_recipe_starts(asked: PodPlacement, kills: list[int]) -> None:
    learned = None
    for amount in kills:
        learned = after_kill(learned, asked, amount * MIB, NOW)
    assert learned is not None
    for _ in range(5 * len(kills) * 20):
        learned = after_success(learned, asked, 1, NOW)

    assert start(learned, asked, NOW) == int(asked.memory[:-2]) * MIB
