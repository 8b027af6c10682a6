"""Flavors, queues, priorities: what Kueue is told."""

from __future__ import annotations

from typing import Any

from tests.helm.chart import needs_helm
from tests.helm.gpu_node_pools.chart import POOL, of, queues, render

pytestmark = needs_helm


def spec(values: dict[str, Any], name: str = "retrain") -> dict[str, Any]:
    return render(values)["ClusterQueue", name]["spec"]


def test_a_pool_is_a_flavor_that_leads_to_its_nodes() -> None:
    taints = [{"key": "team", "value": "a", "effect": "NoSchedule"}]
    flavor = render(of("none", taints=taints))["ResourceFlavor", "train"]["spec"]

    assert flavor == {
        "nodeLabels": {"tidewheel/pool": "train"},
        "tolerations": [
            {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"},
            {"key": "team", "operator": "Equal", "value": "a", "effect": "NoSchedule"},
        ],
    }


def test_the_flavor_of_cpus_tolerates_nothing() -> None:
    assert "spec" not in render(of("none"))["ResourceFlavor", "cpu"]


def test_cpus_and_gpus_are_groups_of_their_own() -> None:
    """In one group a step without GPUs would be given a pool as soon as CPUs are short."""
    cpus, gpus = spec(queues({"resources": {"memory": "1Gi", "cpu": 4}}))["resourceGroups"]

    assert cpus == {
        "coveredResources": ["cpu", "memory"],
        "flavors": [
            {"name": "cpu", "resources": [{"name": "cpu", "nominalQuota": "4"}, {"name": "memory", "nominalQuota": "1Gi"}]}
        ],
    }
    assert gpus == {
        "coveredResources": ["nvidia.com/gpu"],
        "flavors": [{"name": "train", "resources": [{"name": "nvidia.com/gpu", "nominalQuota": "16"}]}],
    }


def test_pools_are_tried_in_the_order_of_the_queue() -> None:
    values = queues({"gpus": [{"pool": "spot", "quota": 1}, {"pool": "train", "quota": 1}]})
    values["pools"] = [POOL, {**POOL, "name": "spot"}]

    assert [flavor["name"] for flavor in spec(values)["resourceGroups"][1]["flavors"]] == ["spot", "train"]


def test_a_queue_without_gpus_has_none() -> None:
    (group,) = spec(queues({"gpus": []}))["resourceGroups"]

    assert group["flavors"][0]["name"] == "cpu"


def test_loans_have_their_limits_zero_included() -> None:
    values = queues({"gpus": [{"pool": "train", "quota": 16, "borrow": 0, "lend": 8}]}, cohort="gpus")
    (resource,) = spec(values)["resourceGroups"][1]["flavors"][0]["resources"]

    assert spec(values)["cohortName"] == "gpus"
    assert resource == {"name": "nvidia.com/gpu", "nominalQuota": "16", "borrowingLimit": "0", "lendingLimit": "8"}
    assert "cohortName" not in spec(queues())


def test_preemption_and_order_are_the_queues() -> None:
    said = spec(queues({"withinClusterQueue": "Never", "queueingStrategy": "StrictFIFO", "stopPolicy": "Hold"}))

    assert spec(queues())["preemption"] == {"withinClusterQueue": "LowerPriority", "reclaimWithinCohort": "Any"}
    assert said["preemption"] == {"withinClusterQueue": "Never", "reclaimWithinCohort": "Any"}
    assert (said["queueingStrategy"], said["stopPolicy"]) == ("StrictFIFO", "Hold")


def test_only_namespaces_with_a_local_queue_may_use_it() -> None:
    places = [{"name": "retrain", "namespace": "kubeflow"}, {"name": "backfill", "namespace": "kubeflow"}]
    found = render(queues({"localQueues": places}))

    assert found["ClusterQueue", "retrain"]["spec"]["namespaceSelector"] == {
        "matchExpressions": [{"key": "kubernetes.io/metadata.name", "operator": "In", "values": ["kubeflow"]}]
    }
    for name in ("retrain", "backfill"):
        queue = found["LocalQueue", name]
        assert (queue["metadata"]["namespace"], queue["spec"]) == ("kubeflow", {"clusterQueue": "retrain"})


def test_steps_may_look_at_the_queues_that_they_came_through_and_do_no_more() -> None:
    places = [{"name": "retrain", "namespace": "kubeflow"}, {"name": "retrain", "namespace": "shop"}]
    found = render(queues({"localQueues": places}))

    assert found["ClusterRole", "feed-queues"]["rules"] == [
        {"apiGroups": ["kueue.x-k8s.io"], "resources": ["clusterqueues"], "resourceNames": ["retrain"], "verbs": ["get"]}
    ]
    binding = found["ClusterRoleBinding", "feed-queues"]
    assert binding["roleRef"]["name"] == "feed-queues"
    assert [each["name"] for each in binding["subjects"]] == ["system:serviceaccounts:kubeflow", "system:serviceaccounts:shop"]
    assert not [kind for kind, _ in render({"kueue": {"clusterQueues": []}}) if kind.startswith("ClusterRole")]


def test_priorities_are_the_values() -> None:
    found = render()

    assert found["WorkloadPriorityClass", "retrain"]["value"] > found["WorkloadPriorityClass", "backfill"]["value"]
    assert not [kind for kind, _ in render({"kueue": {"priorityClasses": []}}) if kind == "WorkloadPriorityClass"]


def test_it_renders_nothing_when_disabled() -> None:
    values = queues()
    values["kueue"]["enabled"] = False

    assert render(values) == {}


def test_every_object_says_whose_it_is() -> None:
    for each in render({**queues(), "devices": {"kind": "device-plugin"}}).values():
        assert each["metadata"]["labels"]["app.kubernetes.io/instance"] == "feed"
        assert each["metadata"]["labels"]["app.kubernetes.io/part-of"] == "tidewheel"
