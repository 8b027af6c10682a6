"""What bounds a pod, read from an API server in memory."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.unit.pods.api_server import NAMESPACE, ApiServer, served
from tidewheel.contracts.placement import PodPlacement
from tidewheel.pods.bounds import bounds_in, free_in
from tidewheel.pods.ladder import Bound

MIB = 2**20
ASKED = PodPlacement(memory="1Gi")
CORE = f"/api/v1/namespaces/{NAMESPACE}"
KUEUE = "/apis/kueue.x-k8s.io/v1beta2"


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ApiServer]:
    nothing: dict[str, Any] = {"items": []}
    made = ApiServer(others={f"{CORE}/resourcequotas": nothing, f"{CORE}/limitranges": nothing})
    with served(made, tmp_path) as path:
        monkeypatch.setenv("KUBECONFIG", str(path))
        yield made


def found(queue: str = "", own: int = 1024, count: int = 1) -> list[tuple[int, bool, str]]:
    """MiB, whether for now, whose."""
    unseen: list[str] = []
    bounds: list[Bound] = bounds_in(NAMESPACE, queue, ASKED, own * MIB, count, unseen.append)
    assert unseen == []
    return [(bound.limit_bytes // MIB, bound.is_for_now, bound.whose) for bound in bounds]


def quota(hard: dict[str, str], used: dict[str, str], **spec: Any) -> dict[str, Any]:
    return {"items": [{"metadata": {"name": "runs"}, "spec": {"hard": hard, **spec}, "status": {"used": used}}]}


def behind(server: ApiServer, memory: dict[str, str], used: str, **spec: Any) -> None:
    """A LocalQueue and what is behind it: one flavor with memory, one with GPUs alone."""
    groups = [
        {"flavors": [{"name": "cpu", "resources": [{"name": "cpu", "nominalQuota": "8"}, {"name": "memory", **memory}]}]},
        {"flavors": [{"name": "gpu", "resources": [{"name": "nvidia.com/gpu", "nominalQuota": "8"}]}]},
    ]
    usage = [{"name": "cpu", "resources": [{"name": "memory", "total": used}]}]
    server.others[f"{KUEUE}/namespaces/{NAMESPACE}/localqueues/retrain"] = {"spec": {"clusterQueue": "pools"}}
    status = {"flavorsUsage": usage}
    server.others[f"{KUEUE}/clusterqueues/pools"] = {"spec": {"resourceGroups": groups, **spec}, "status": status}


def test_nothing_bounds_a_pod_where_there_is_nothing(server: ApiServer) -> None:
    assert found() == []


def test_a_quota_bounds_by_all_of_it_and_by_what_others_leave(server: ApiServer) -> None:
    server.others[f"{CORE}/resourcequotas"] = quota({"limits.memory": "8Gi", "cpu": "4"}, {"limits.memory": "5Gi"})

    assert found() == [
        (8192, False, "ResourceQuota runs, limits.memory"),
        (4096, True, "ResourceQuota runs, limits.memory, of which others use 4096Mi"),
    ]


def test_pods_of_a_kind_share_what_there_is(server: ApiServer) -> None:
    server.others[f"{CORE}/resourcequotas"] = quota({"memory": "8Gi"}, {"memory": "2Gi"})

    assert [amount for amount, _, _ in found(own=0, count=4)] == [2048, 1536]


def test_a_quota_of_some_pods_is_left_to_the_api_server(server: ApiServer) -> None:
    server.others[f"{CORE}/resourcequotas"] = quota({"memory": "1Gi"}, {}, scopes=["BestEffort"])

    assert found() == []


def test_a_range_of_limits_bounds_each_container(server: ApiServer) -> None:
    limits = [{"type": "Container", "max": {"memory": "3G"}}, {"type": "PersistentVolumeClaim", "max": {"storage": "1Gi"}}]
    server.others[f"{CORE}/limitranges"] = {"items": [{"metadata": {"name": "small"}, "spec": {"limits": limits}}]}

    assert found() == [(2861, False, "LimitRange small")]


def test_a_queue_bounds_by_the_quota_behind_it(server: ApiServer) -> None:
    behind(server, {"nominalQuota": "16Gi"}, used="13Gi")

    assert found("retrain") == [
        (16384, False, "quota of queue retrain (ClusterQueue pools)"),
        (4096, True, "quota of queue retrain (ClusterQueue pools), of which others use 12288Mi"),
    ]


def test_a_queue_in_a_cohort_may_borrow_as_far_as_it_says(server: ApiServer) -> None:
    behind(server, {"nominalQuota": "16Gi", "borrowingLimit": "4Gi"}, used="1Gi", cohortName="all")
    assert [amount for amount, _, _ in found("retrain")] == [20480, 20480]

    behind(server, {"nominalQuota": "16Gi"}, used="1Gi", cohortName="all")
    assert found("retrain") == []


def test_what_an_account_may_not_see_bounds_nothing_and_is_said(server: ApiServer) -> None:
    server.others.clear()
    unseen: list[str] = []

    assert bounds_in(NAMESPACE, "retrain", ASKED, 0, 1, unseen.append) == []
    assert [words.partition(" not known: ")[0] for words in unseen] == ["quotas", "limits", "quota of queue retrain"]


def test_the_pod_that_stays_beside_them_takes_its_part_for_good(server: ApiServer) -> None:
    behind(server, {"nominalQuota": "8Gi"}, "3Gi")
    bounds = bounds_in(NAMESPACE, "retrain", ASKED, 0, 1, pytest.fail, beside_bytes=1024 * MIB)
    assert [(bound.limit_bytes // MIB, bound.is_for_now) for bound in bounds] == [(7 * 1024, False), (5 * 1024, True)]
    assert (
        bounds[1].whose == "quota of queue retrain (ClusterQueue pools), less the 1Gi of this pod, of which others use 2048Mi"
    )


def test_how_many_gpus_a_queue_has_to_spare(server: ApiServer) -> None:
    behind(server, {"nominalQuota": "8Gi"}, "3Gi")
    assert free_in(NAMESPACE, "retrain", "nvidia.com/gpu") == 8
    used = [{"name": "gpu", "resources": [{"name": "nvidia.com/gpu", "total": "7"}]}]
    server.others[f"{KUEUE}/clusterqueues/pools"]["status"]["flavorsUsage"] = used
    assert free_in(NAMESPACE, "retrain", "nvidia.com/gpu") == 1
    assert free_in(NAMESPACE, "retrain", "example.com/tpu") is None
