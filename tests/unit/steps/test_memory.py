"""The memory of a step and of pods that it starts, against an API server in memory."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from tests.unit.pods.api_server import NAMESPACE, ApiServer, killed, pod, served
from tidewheel.contracts.base import canonical_json
from tidewheel.contracts.placement import Executors, Placed, PodPlacement, StepPlacement
from tidewheel.errors import ConfigError, RetryableError
from tidewheel.pods.memory import killed_bytes
from tidewheel.steps.memory import ChildMemory, StepMemory
from tidewheel.store import Store

MIB = 2**20
NOW = datetime(2026, 1, 12, 3, tzinfo=UTC)
CORE = f"/api/v1/namespaces/{NAMESPACE}"
ENVIRONMENT = {
    "TIDEWHEEL_POD": "mine",
    "TIDEWHEEL_NAMESPACE": NAMESPACE,
    "TIDEWHEEL_RECIPE": "shop",
    "TIDEWHEEL_PLACED": canonical_json(Placed(step=StepPlacement(memory="1Gi")).model_dump(mode="json")),
}
WORKERS = PodPlacement(memory="8Gi")


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ApiServer]:
    nothing: dict[str, Any] = {"items": []}
    others = {f"{CORE}/resourcequotas": nothing, f"{CORE}/limitranges": nothing}
    made = ApiServer({"mine": pod("mine", "1Gi")}, others)
    with served(made, tmp_path) as path:
        monkeypatch.setenv("KUBECONFIG", str(path))
        yield made


class Try:
    """One try of a step after another, over one store."""

    def __init__(self, folder: Path) -> None:
        self.store = Store.open(str(folder))
        self.said: list[str] = []

    def memory(self, environment: dict[str, str] = ENVIRONMENT) -> StepMemory:
        return StepMemory.of(self.store, "train", environment, self.said.append)


@pytest.fixture
def tried(tmp_path: Path) -> Try:
    return Try(tmp_path / "store")


def test_a_laptop_asks_for_nothing_and_learns_nothing(tried: Try) -> None:
    memory = tried.memory({})

    assert memory.climb(NOW) is False
    memory.ended_well(NOW)
    assert (memory.given_bytes, memory.was_killed, memory.child("workers", WORKERS, now=NOW)) == (None, False, WORKERS)
    assert tried.said == []
    assert tried.store.folders("memory") == []


def test_a_first_try_keeps_what_it_has(server: ApiServer, tried: Try) -> None:
    memory = tried.memory()

    assert memory.climb(NOW) is False
    assert memory.given_bytes == 1024 * MIB
    assert server.resizes == []
    assert tried.store.get("memory/shop/train.json") is None


def test_after_a_kill_it_has_twice_as_much_and_the_next_run_too(server: ApiServer, tried: Try) -> None:
    server.pods["before"] = pod("before", "1Gi", killed())
    memory = tried.memory()

    assert memory.was_killed
    assert memory.climb(NOW) is True
    assert memory.given_bytes == 2048 * MIB
    assert tried.said == ["memory: 2Gi, 1Gi before"]

    server.pods = {"mine": pod("mine", "1Gi")}
    again = tried.memory()
    assert not again.was_killed
    assert again.climb(NOW) is True
    assert again.given_bytes == 2048 * MIB


def test_a_kill_before_another_end_still_counts_for_memory_and_not_for_what_came_after(server: ApiServer, tried: Try) -> None:
    server.pods |= {
        "second": pod("second", "2Gi", killed("Error"), minute=2),
        "first": pod("first", "1Gi", killed(), minute=1),
    }
    memory = tried.memory()

    assert not memory.was_killed
    assert memory.climb(NOW) is True
    assert memory.given_bytes == 2048 * MIB


def test_a_kill_that_was_seen_before_is_no_second_one(server: ApiServer, tried: Try) -> None:
    server.pods["before"] = pod("before", "1Gi", killed())
    tried.memory().climb(NOW)
    first = tried.store.get("memory/shop/train.json")
    server.pods["mine"] = pod("mine", "1Gi")
    tried.memory().climb(NOW)

    assert tried.store.get("memory/shop/train.json") == first


def test_a_cluster_that_cannot_give_more_fails_the_next_try_with_the_remedy(server: ApiServer, tried: Try) -> None:
    server.pods["before"] = pod("before", "1Gi", killed())
    server.refuses = (404, "the server could not find the requested resource")

    with pytest.raises(ConfigError, match=r"1Gi of memory was not enough.*set placement.train.memory to 2048Mi, which pods"):
        tried.memory().climb(NOW)


def test_a_node_that_is_full_for_now_is_worth_another_try(server: ApiServer, tried: Try) -> None:
    server.pods["before"] = pod("before", "1Gi", killed())
    server.kubelet = {"reason": "Infeasible", "message": "Node didn't have enough capacity"}

    with pytest.raises(RetryableError, match="Infeasible: Node didn't have enough capacity"):
        tried.memory().climb(NOW)


def test_what_was_learned_and_cannot_be_given_is_said_and_the_step_goes_on(server: ApiServer, tried: Try) -> None:
    server.pods["before"] = pod("before", "1Gi", killed())
    tried.memory().climb(NOW)
    server.pods = {"mine": pod("mine", "1Gi")}
    server.refuses = (403, "not allowed")
    memory = tried.memory()

    assert memory.climb(NOW) is False
    assert memory.given_bytes == 1024 * MIB
    assert "not allowed" in tried.said[-1]
    assert tried.said[-1].endswith("it goes on with 1Gi")


def test_a_quota_cuts_the_rung_and_the_error_names_it_once_that_was_not_enough(server: ApiServer, tried: Try) -> None:
    quota = {"metadata": {"name": "runs"}, "spec": {"hard": {"memory": "1536Mi"}}, "status": {"used": {"memory": "1Gi"}}}
    server.others[f"{CORE}/resourcequotas"] = {"items": [quota]}
    server.pods["before"] = pod("before", "1Gi", killed())
    memory = tried.memory()

    assert memory.climb(NOW) is True
    assert memory.given_bytes == 1536 * MIB
    server.pods = {"mine": pod("mine", "1Gi"), "before": pod("before", "1536Mi", killed())}
    with pytest.raises(
        ConfigError, match=r"1\.5Gi of memory was not enough.*more than 1\.5Gi: ResourceQuota runs, memory; raise it"
    ):
        tried.memory().climb(NOW)


def test_an_account_that_may_not_look_at_its_pod_is_told_and_goes_on(server: ApiServer, tried: Try) -> None:
    del server.pods["mine"]
    memory = tried.memory()

    assert memory.climb(NOW) is False
    assert "pod mine in namespace runs: the cluster answered 403 Forbidden" in tried.said[0]
    assert "expected the right to get pods, as manifests/runs gives it" in tried.said[0]


def test_a_damaged_record_is_said_and_not_believed(server: ApiServer, tried: Try) -> None:
    tried.store.put("memory/shop/train.json", "{")

    assert tried.memory().climb(NOW) is False
    assert tried.said[0].startswith("memory: what was learned is not believed: memory/shop/train.json")


def test_pods_of_a_step_climb_by_their_kind(server: ApiServer, tried: Try) -> None:
    memory = tried.memory()
    ends = [pod("w1", "8Gi", killed()), pod("w2", "8Gi", killed("Error"))]

    assert memory.child("workers", WORKERS, now=NOW) == WORKERS
    memory.child_ended("workers", WORKERS, killed_bytes(ends), now=NOW)
    assert memory.child("workers", WORKERS, now=NOW) == PodPlacement(memory="16384Mi")
    assert memory.child("executors", Executors(memory="8Gi"), now=NOW) == Executors(memory="8Gi")


def test_pods_that_were_lost_otherwise_do_not_climb(server: ApiServer, tried: Try) -> None:
    memory = tried.memory()

    memory.child_ended("workers", WORKERS, killed_bytes([pod("w1", "8Gi", killed("Error"))]), now=NOW)
    assert memory.child("workers", WORKERS, now=NOW) == WORKERS


def test_pods_that_were_killed_at_the_top_are_an_error(server: ApiServer, tried: Try) -> None:
    with pytest.raises(
        ConfigError, match=r"placement.workers: 32Gi of memory was not enough.*raise placement.workers.max_memory"
    ):
        tried.memory().child_ended("workers", WORKERS, killed_bytes([pod("w1", "32Gi", killed())]), now=NOW)


def test_many_pods_get_what_a_quota_leaves_each(server: ApiServer, tried: Try) -> None:
    quota = {"metadata": {"name": "runs"}, "spec": {"hard": {"memory": "40Gi"}}, "status": {"used": {"memory": "4Gi"}}}
    server.others[f"{CORE}/resourcequotas"] = {"items": [quota]}
    memory = tried.memory()
    memory.child_ended("workers", WORKERS, killed_bytes([pod("w1", "8Gi", killed())]), count=3, now=NOW)

    assert memory.child("workers", WORKERS, count=3, now=NOW).memory == "12288Mi"


def test_pods_of_a_kind_are_sized_by_what_became_of_the_last(server: ApiServer, tried: Try) -> None:
    first, then = ChildMemory(tried.memory(), "workers"), ChildMemory(tried.memory(), "workers")
    assert first.sized(WORKERS, 2) == WORKERS
    first.ended(8192 * MIB)

    assert then.sized(WORKERS, 2).memory == "16384Mi"


QUEUED = ENVIRONMENT | {
    "TIDEWHEEL_PLACED": canonical_json(Placed(step=StepPlacement(memory="1Gi", queue="q")).model_dump(mode="json"))
}


def let_in(server: ApiServer, quota: str, used: str = "1Gi") -> None:
    """This pod came through a queue of so much memory, of which so much is used, by it too."""
    server.pods["mine"]["metadata"]["labels"]["kueue.x-k8s.io/managed"] = "true"
    flavor = {"name": "f", "resources": [{"name": "memory", "nominalQuota": quota}]}
    usage = [{"name": "f", "resources": [{"name": "memory", "total": used}]}]
    kueue = "/apis/kueue.x-k8s.io/v1beta2"
    server.others[f"{kueue}/namespaces/{NAMESPACE}/localqueues/q"] = {"spec": {"clusterQueue": "c"}}
    server.others[f"{kueue}/clusterqueues/c"] = {
        "spec": {"resourceGroups": [{"flavors": [flavor]}]},
        "status": {"flavorsUsage": usage},
    }


def test_a_pod_of_a_queue_stays_as_it_is_and_a_second_one_gets_the_rung(server: ApiServer, tried: Try) -> None:
    let_in(server, "8Gi")
    server.pods["before"] = pod("before", "1Gi", killed())
    memory = tried.memory(QUEUED)

    assert memory.climb(NOW, can_leave=True) is False
    assert (memory.beside_bytes, memory.given_bytes, server.resizes) == (2048 * MIB, 1024 * MIB, [])
    del server.pods["before"]
    later = tried.memory(QUEUED)  # of the next run
    later.climb(NOW, can_leave=True)
    assert later.beside_bytes == 2048 * MIB


@pytest.mark.parametrize(
    ("quota", "used", "words", "kind"),
    [
        (
            "2Gi",
            "1Gi",
            "may not have more than 1Gi: quota of queue q (ClusterQueue c), less the 1Gi of this pod; raise",
            ConfigError,
        ),
        ("4Gi", "3Gi", "less the 1Gi of this pod, of which others use 2048Mi; wait for them", RetryableError),
    ],
)
def test_a_second_pod_needs_room_beside_the_first(
    server: ApiServer, tried: Try, quota: str, used: str, words: str, kind: type[Exception]
) -> None:
    let_in(server, quota, used)
    server.pods["before"] = pod("before", "1Gi", killed())
    with pytest.raises(kind, match=re.escape(words)):
        tried.memory(QUEUED).climb(NOW, can_leave=True)


def test_a_second_pod_that_was_killed_is_a_rung_until_there_is_none(server: ApiServer, tried: Try) -> None:
    let_in(server, "16Gi")
    server.pods["before"] = pod("before", "1Gi", killed())
    tried.memory(QUEUED).climb(NOW, can_leave=True)
    tried.memory(QUEUED).killed_beside(2048 * MIB, NOW)
    third = tried.memory(QUEUED)
    third.climb(NOW, can_leave=True)
    assert third.beside_bytes == 4096 * MIB
    with pytest.raises(ConfigError, match="4Gi of memory was not enough, and it may not have more than 4Gi"):
        third.killed_beside(4096 * MIB, NOW)


def test_the_second_pod_itself_climbs_no_further(server: ApiServer, tried: Try) -> None:
    let_in(server, "16Gi")
    server.pods["before"] = pod("before", "1Gi", killed())
    memory = tried.memory(QUEUED | {"TIDEWHEEL_BESIDE": "mine"})
    assert memory.climb(NOW, can_leave=True) is False
    assert (memory.beside_bytes, server.resizes) == (0, [])


def with_gpus(server: ApiServer, number: int, used: int) -> None:
    """The queue's, this pod's one among those that are used."""
    behind = server.others["/apis/kueue.x-k8s.io/v1beta2/clusterqueues/c"]
    flavor = {"name": "g", "resources": [{"name": "nvidia.com/gpu", "nominalQuota": number}]}
    behind["spec"]["resourceGroups"].append({"flavors": [flavor]})
    behind["status"]["flavorsUsage"].append({"name": "g", "resources": [{"name": "nvidia.com/gpu", "total": used}]})


def asking(gpus: int) -> dict[str, str]:
    placed = Placed(step=StepPlacement(memory="1Gi", queue="q", gpus=gpus))
    return QUEUED | {"TIDEWHEEL_PLACED": canonical_json(placed.model_dump(mode="json"))}


@pytest.mark.parametrize(("gpus", "can_leave"), [(1, True), (0, False)])
def test_work_that_stays_says_what_to_set_memory_to(server: ApiServer, tried: Try, gpus: int, can_leave: bool) -> None:
    let_in(server, "16Gi")
    with_gpus(server, number=2, used=2)
    server.pods["before"] = pod("before", "1Gi", killed())
    with pytest.raises(ConfigError, match=r"Kueue let it in .*set placement.train.memory to 2048Mi"):
        tried.memory(asking(gpus)).climb(NOW, can_leave=can_leave)


def test_a_step_with_gpus_goes_beside_itself_where_the_queue_has_as_many_again(server: ApiServer, tried: Try) -> None:
    let_in(server, "16Gi")
    with_gpus(server, number=2, used=1)
    server.pods["before"] = pod("before", "1Gi", killed())
    memory = tried.memory(asking(1))
    memory.climb(NOW, can_leave=True)
    assert memory.beside_bytes == 2048 * MIB
