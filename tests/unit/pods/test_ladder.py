"""What of a rung fits, and what is said where none does."""

from __future__ import annotations

import pytest

from tidewheel.contracts.placement import PodPlacement
from tidewheel.errors import ConfigError, RetryableError
from tidewheel.pods.ladder import Bound, fit, quantity, shown

MIB = 2**20
ASKED = PodPlacement(memory="1Gi")
QUOTA = Bound(3000 * MIB + 5, "ResourceQuota runs, memory", "raise it")
BUSY = Bound(1500 * MIB, "ResourceQuota runs, memory, of which others use 1500Mi", "wait for them or raise it", is_for_now=True)


@pytest.mark.parametrize(
    ("wanted", "killed", "bounds", "want"),
    [
        (2048, 1024, [], 2048),
        (4096, 2048, [QUOTA], 3000),
        (2048, 1024, [QUOTA, BUSY], 1500),
        (4096, 0, [Bound(10 * MIB, "LimitRange small", "raise it")], 1024),
        (8192, 0, [], 4096),
    ],
)
def test_a_rung_is_cut_to_what_there_is_and_never_below_memory(
    wanted: int, killed: int, bounds: list[Bound], want: int
) -> None:
    assert fit("train", wanted * MIB, killed * MIB, ASKED, bounds) == want * MIB


def test_a_step_that_was_killed_at_the_top_says_whose_top_it_is_and_what_to_do() -> None:
    with pytest.raises(ConfigError) as told:
        fit("train", 4096 * MIB, 4096 * MIB, ASKED, [])
    assert str(told.value) == (
        "placement.train: 4Gi of memory was not enough, and it may not have more than 4Gi: four times memory, for want of "
        "max_memory, of placement.train; raise placement.train.max_memory, or lower what it works on at once"
    )
    with pytest.raises(ConfigError, match=r"more than 2Gi: max_memory of placement.train"):
        fit("train", 2048 * MIB, 2048 * MIB, PodPlacement(memory="1Gi", max_memory="2Gi"), [])


def test_a_quota_in_the_way_is_named() -> None:
    with pytest.raises(
        ConfigError, match=r"2.93Gi of memory was not enough.* than 2.93Gi: ResourceQuota runs, memory; raise it"
    ):
        fit("train", 4096 * MIB, 3000 * MIB, ASKED, [QUOTA])


def test_memory_that_others_use_may_be_free_at_the_next_try() -> None:
    with pytest.raises(RetryableError, match="of which others use 1500Mi; wait for them"):
        fit("train", 2048 * MIB, 1500 * MIB, ASKED, [QUOTA, BUSY])


def test_amounts_read_as_in_a_recipe() -> None:
    assert [shown(amount * MIB) for amount in (96, 1024, 1536)] == ["96Mi", "1Gi", "1.5Gi"]
    assert quantity(1536 * MIB) == "1536Mi"
