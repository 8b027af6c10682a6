from __future__ import annotations

from typing import Any

from tidewheel.pods.watched import Watched


def pod(uid: str, owner: str = "driver", **status: Any) -> dict[str, Any]:
    return {"metadata": {"name": uid, "uid": uid, "ownerReferences": [{"uid": owner}]}, "status": status}


def failed(uid: str, owner: str = "driver") -> dict[str, Any]:
    state = {"terminated": {"reason": "OOMKilled", "exitCode": 137}}
    return pod(uid, owner, phase="Failed", containerStatuses=[{"state": state}])


def test_how_a_pod_ended_is_known_after_it_was_deleted() -> None:
    seen = Watched("runs", "a=b", "driver")
    for kind, each in (("ADDED", pod("one")), ("ADDED", pod("two")), ("MODIFIED", failed("one")), ("DELETED", failed("one"))):
        seen.see(kind, each)

    assert [fate.pod for fate in seen.fates()] == ["one"]
    assert [each["metadata"]["uid"] for each in seen.pods()] == ["two"]


def test_an_end_that_is_seen_only_when_the_pod_is_deleted_counts_once() -> None:
    seen = Watched("runs", "a=b", "driver")
    for kind, each in (("ADDED", pod("one")), ("DELETED", failed("one")), ("DELETED", failed("one"))):
        seen.see(kind, each)

    assert len(seen.fates()) == 1
    assert seen.pods() == []


def test_pods_of_an_earlier_try_are_not_this_ones() -> None:
    seen = Watched("runs", "a=b", "driver")
    seen.see("ADDED", failed("old", owner="the driver before"))

    assert (seen.fates(), seen.pods()) == ([], [])
