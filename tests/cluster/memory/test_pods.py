"""The memory ladder on a real cluster: real pods that the kernel kills, and the next try that gives itself more."""

import pytest

from tests.cluster.kubectl import eventually, get, kubectl, new_namespace
from tests.cluster.memory.ladder import ASKED, MIB, RULES, SECOND, Shelf, allow, ended, tried, try_once
from tests.manifests.rights import RIGHTS, rights_of
from tidewheel.contracts.placement import Placement
from tidewheel.steps.records import record_of

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(1800)]


def test_the_rights_of_the_tests_are_those_of_every_step() -> None:
    assert rights_of(RULES) <= RIGHTS["tidewheel-step"]
    assert rights_of(SECOND) <= RIGHTS["tidewheel-run"]


def test_a_step_that_was_killed_climbs_and_the_next_run_starts_there(namespace: str, shelf: Shelf) -> None:
    first = tried(namespace, shelf, "one", "hold", "200")
    second = tried(namespace, shelf, "one", "hold", "200")
    third = tried(namespace, shelf, "two", "hold", "200")

    assert (first[0], second[0], third[0]) == ("OOMKilled", "Completed", "Completed")
    assert "memory: 320Mi, 160Mi before" in second[1]
    assert shelf.learned is not None
    assert (shelf.learned.rung_bytes, shelf.learned.killed_bytes, shelf.learned.kills) == (320 * MIB, 160 * MIB, 1)
    for run_id in ("one", "two"):
        record = shelf.record(run_id)
        assert record.status == "succeeded"
        assert record.memory_bytes == 320 * MIB
        assert 200 * MIB < (record.peak_memory_bytes or 0) < 320 * MIB
        print(f"in a plain pod: {record.memory}")


def test_two_kills_are_two_rungs_and_the_highest_is_the_recipes(namespace: str, shelf: Shelf) -> None:
    asked = Placement(train=ASKED.train.model_copy(update={"max_memory": "400Mi"}))
    said = [tried(namespace, shelf, "top", "hold", "500", asked=asked) for _ in range(4)]

    assert [why for why, _ in said] == ["OOMKilled", "OOMKilled", "OOMKilled", "Error"]
    assert "memory: 400Mi, 160Mi before" in said[2][1]
    assert "400Mi of memory was not enough" in said[3][1]
    assert "max_memory of placement.train; raise placement.train.max_memory" in said[3][1]
    failed = shelf.record("top")
    assert failed.failure is not None
    assert failed.failure.kind == "ConfigError"


def test_a_pod_that_was_deleted_leaves_the_rung_as_it_is(namespace: str, shelf: Shelf) -> None:
    pod = try_once(namespace, shelf, "deleted", ("wait", "0"))
    eventually(lambda: record_of(shelf.store, "deleted", "train"), lambda found: found is not None, 60)
    kubectl("--namespace", namespace, "delete", "pod", pod)
    why, _ = tried(namespace, shelf, "deleted", "hold", "1")

    assert why == "Completed"
    assert shelf.record("deleted").memory_bytes == 160 * MIB
    assert shelf.learned is None


def test_a_pod_that_was_evicted_leaves_the_rung_as_it_is(namespace: str, shelf: Shelf) -> None:
    pod = ended(namespace, try_once(namespace, shelf, "evicted", ("fill", "64")))
    assert pod["status"]["reason"] == "Evicted"
    why, _ = tried(namespace, shelf, "evicted", "hold", "1")

    assert why == "Completed"
    assert shelf.record("evicted").memory_bytes == 160 * MIB
    assert shelf.learned is None


def test_more_than_any_node_has_is_said_and_the_step_goes_on(namespace: str, shelf: Shelf) -> None:
    shelf.teach(rung=1024 * 1024, killed=512 * 1024)
    asked = Placement(train=ASKED.train.model_copy(update={"max_memory": "2Ti"}))
    why, said = tried(namespace, shelf, "huge", "hold", "1", asked=asked)

    assert why == "Completed"
    assert "was not given 1024Gi of memory while it runs (Infeasible" in said
    assert shelf.record("huge").memory_bytes == 160 * MIB


def test_an_account_without_the_right_runs_as_before(namespace: str, shelf: Shelf) -> None:
    why, said = tried(namespace, shelf, "nobody", "hold", "1", account="nobody")

    assert why == "Completed"
    assert "memory does not climb: pod nobody-" in said


def test_a_quota_in_the_way_is_named(shelf: Shelf) -> None:
    tight = new_namespace("ladder")
    try:
        kubectl("--namespace", tight, "create", "serviceaccount", "climber")
        allow(tight, "ladder-test", "climber")
        first = tried(tight, shelf, "quota", "hold", "200")
        kubectl("--namespace", tight, "create", "quota", "runs", "--hard=limits.memory=160Mi")
        eventually(lambda: get(tight, "quota/runs"), lambda quota: "used" in quota.get("status", {}), 30)
        second = tried(tight, shelf, "quota", "hold", "200")
    finally:
        kubectl("delete", "namespace", tight, "--wait=false")

    assert (first[0], second[0]) == ("OOMKilled", "Error")
    assert (
        "placement.train: 160Mi of memory was not enough, and it may not have more than 160Mi: ResourceQuota runs" in second[1]
    )
