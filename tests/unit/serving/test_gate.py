"""How many requests a server takes on, and whose turn it is."""

from __future__ import annotations

import asyncio
from functools import partial

import pytest

from tidewheel.serving.gate import Gate, HttpError, Limits, Turns


def test_so_many_requests_enter_and_the_next_when_one_has_left() -> None:
    gate = Gate(Limits(max_waiting=2))
    assert [gate.enter() for _ in range(3)] == [True, True, False]
    gate.leave()
    assert gate.enter()
    assert gate.shed == {"requests": 1}
    assert (gate.refusal().status, gate.refusal().headers) == (429, b"retry-after: 1\r\n")


def test_bytes_that_are_held_and_answers_that_nobody_takes_share_one_budget() -> None:
    gate = Gate(Limits(max_waiting_bytes=100))
    gate.take(60)
    gate.take(40)
    with pytest.raises(HttpError, match="100 bytes of requests wait") as refused:
        gate.take(1)
    assert refused.value.status == 429
    gate.give(60)
    gate.unsent_bytes = 50
    with pytest.raises(HttpError):
        gate.take(11)
    gate.take(10)
    assert (gate.bytes, gate.shed["bytes"]) == (50, 2)


def test_a_request_whose_turn_comes_too_late_is_sent_away() -> None:
    gate = Gate(Limits(wait_seconds=0.5))
    gate.check_wait(0.5)
    with pytest.raises(HttpError, match=r"not scored after 0\.5 seconds") as refused:
        gate.check_wait(0.51)
    assert (refused.value.status, gate.shed) == (429, {"wait": 1})


def test_a_refusal_quotes_no_more_than_a_few_lines() -> None:
    assert len(str(HttpError(400, "x" * 10_000))) < 700


def test_turns_are_taken_in_order_and_the_loop_turns_between_them() -> None:
    seen: list[str] = []

    def work(name: str) -> None:
        seen.append(name)
        asyncio.get_running_loop().call_soon(seen.append, f"loop after {name}")

    async def main() -> None:
        turns = Turns()
        for name in "abc":
            if turns.take(partial(work, name)):
                work(name)
        while len(seen) < 6:
            await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert turns.take(lambda: None), "nothing is left behind: a turn is there at once"

    asyncio.run(main())
    assert seen == ["a", "loop after a", "b", "loop after b", "c", "loop after c"]
