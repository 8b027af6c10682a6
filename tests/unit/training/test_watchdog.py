"""The watchdog of the training loop."""

from __future__ import annotations

import pytest

from tidewheel.training.watchdog import FIRST_STEPS, MAX_STALLS, Watchdog


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def watched(steps: int, seconds: float = 0.1) -> tuple[Watchdog, Clock]:
    clock = Clock()
    watchdog = Watchdog(factor=20.0, floor_seconds=1.0, first_step=101, clock=clock)
    for _ in range(steps):
        with watchdog.step():
            clock.now += seconds
    return watchdog, clock


def the_loop_hangs_here(watchdog: Watchdog, clock: Clock, seconds: float) -> None:
    with watchdog.step():
        clock.now += seconds
        watchdog.look()
        watchdog.look()


def test_a_step_of_more_than_k_medians_is_recorded_once_with_the_place_where_it_hangs():
    watchdog, clock = watched(30)
    the_loop_hangs_here(watchdog, clock, 2.5)
    (stall,) = watchdog.stalls
    assert (stall.step, stall.seconds) == (131, pytest.approx(2.5))
    (stack,) = [stack for name, stack in stall.stacks.items() if name.endswith("(training)")]
    assert "the_loop_hangs_here" in stack


def test_a_step_below_k_medians_or_below_the_floor_is_no_stall():
    watchdog, clock = watched(30)
    the_loop_hangs_here(watchdog, clock, 1.9)  # 19 medians
    fast, its_clock = watched(30, seconds=0.001)
    the_loop_hangs_here(fast, its_clock, 0.9)  # 900 medians, under a second
    assert watchdog.stalls == fast.stalls == []


def test_the_first_steps_have_nothing_to_be_compared_with():
    watchdog, clock = watched(FIRST_STEPS - 1)
    the_loop_hangs_here(watchdog, clock, 100.0)
    assert watchdog.stalls == []


def test_a_loop_that_always_hangs_does_not_fill_the_report():
    watchdog, clock = watched(200)
    for _ in range(20):
        the_loop_hangs_here(watchdog, clock, 5.0)
    assert len(watchdog.stalls) == MAX_STALLS


def test_waiting_is_summed_apart_from_steps():
    watchdog, clock = watched(0)
    for _ in range(4):
        with watchdog.step():
            with watchdog.waiting():
                clock.now += 0.25
            clock.now += 0.5
    assert (watchdog.waited_seconds, watchdog.median_seconds) == (1.0, 0.75)
