"""What is left of a run is looked for on a cluster alone; tests/cluster/test_rayjob.py has one."""

from tidewheel.pods.sweep import sweep


def test_a_laptop_has_nothing_to_sweep() -> None:
    assert sweep({}, "run-1") == ""
