from __future__ import annotations

import threading

import pytest

from tidewheel.cluster.watched import Watched


def test_what_the_work_found_is_given() -> None:
    assert Watched(lambda: 3).result(10) == 3


def test_work_that_does_not_end_is_left_alone() -> None:
    never = threading.Event()

    assert Watched(never.wait).result(0) is None

    never.set()


def test_a_fault_of_the_work_is_raised_where_its_result_is_asked_for() -> None:
    def work() -> int:
        raise KeyError("a bug")

    with pytest.raises(KeyError, match="a bug"):
        Watched(work).result(10)
