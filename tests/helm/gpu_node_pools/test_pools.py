"""One declaration, and what each provider makes of it."""

from __future__ import annotations

from typing import Any

import pytest

from tests.helm.chart import Rendered, merged, needs_helm
from tests.helm.gpu_node_pools.chart import PROVIDERS, of, render

pytestmark = needs_helm
MADE = {
    "none": set(),
    "karpenter-aws": {("karpenter.sh/v1", "NodePool"), ("karpenter.k8s.aws/v1", "EC2NodeClass")},
    "karpenter-azure": {("karpenter.sh/v1", "NodePool"), ("karpenter.azure.com/v1beta1", "AKSNodeClass")},
    "gke": {("container.cnrm.cloud.google.com/v1beta1", "ContainerNodePool")},
    "cluster-api": {
        ("cluster.x-k8s.io/v1beta2", "MachineDeployment"),
        ("bootstrap.cluster.x-k8s.io/v1beta2", "KubeadmConfigTemplate"),
    },
}
QUEUES = {"ResourceFlavor", "WorkloadPriorityClass"}
GPU = {"key": "nvidia.com/gpu", "value": "present", "effect": "NoSchedule"}
SPOT = {"key": "tidewheel/spot", "value": "true", "effect": "NoExecute"}


def only(found: Rendered, kind: str) -> dict[str, Any]:
    (each,) = [each for (its, _), each in found.items() if its == kind]
    return each


@pytest.mark.parametrize("provider", PROVIDERS)
def test_a_provider_gets_its_own_objects_and_nobody_elses(provider: str) -> None:
    found = render(of(provider))

    assert {(each["apiVersion"], kind) for (kind, _), each in found.items() if kind not in QUEUES} == MADE[provider]


@pytest.mark.parametrize("provider", PROVIDERS)
def test_without_pools_it_renders_nothing_of_them(provider: str) -> None:
    found = render({**of(provider), "pools": [], "kueue": {"enabled": False}})

    assert found == {}


@pytest.mark.parametrize("provider", [name for name in PROVIDERS if name != "none"])
def test_nodes_say_their_pool_and_keep_others_off(provider: str) -> None:
    """Whatever the provider calls it: label, both taints."""
    found = render(of(provider, labels={"team": "a"}, taints=[SPOT]))

    if provider.startswith("karpenter"):
        template = only(found, "NodePool")["spec"]["template"]
        labels, taints = template["metadata"]["labels"], template["spec"]["taints"]
    elif provider == "gke":
        config = only(found, "ContainerNodePool")["spec"]["nodeConfig"]
        effects = {"NO_SCHEDULE": "NoSchedule", "NO_EXECUTE": "NoExecute"}
        labels, taints = config["labels"], [{**each, "effect": effects[each["effect"]]} for each in config["taint"]]
    else:
        node = only(found, "KubeadmConfigTemplate")["spec"]["template"]["spec"]["joinConfiguration"]["nodeRegistration"]
        (argument,) = node["kubeletExtraArgs"]
        assert argument["name"] == "node-labels"
        labels = dict(each.split("=") for each in argument["value"].split(","))
        assert labels.pop("cluster-api/accelerator") == "h100"
        taints = node["taints"]
    assert labels == {"tidewheel/pool": "train", "team": "a"}
    assert taints == [GPU, SPOT]


def requirements(values: dict[str, Any]) -> dict[str, list[str]]:
    each = only(render(values), "NodePool")["spec"]["template"]["spec"]["requirements"]
    assert {one["operator"] for one in each} == {"In"}
    return {one["key"].split("/")[1]: one["values"] for one in each}


def test_karpenter_is_told_which_gpu_and_how_many() -> None:
    aws = requirements(of("karpenter-aws", machineTypes=["p5.48xlarge"], zones=["us-east-1a"], capacity="spot"))
    azure = requirements(of("karpenter-azure"))

    assert (aws["instance-gpu-name"], aws["instance-gpu-count"], aws["instance-gpu-manufacturer"]) == (
        ["h100"],
        ["8"],
        ["nvidia"],
    )
    assert (aws["instance-type"], aws["zone"], aws["capacity-type"]) == (["p5.48xlarge"], ["us-east-1a"], ["spot"])
    assert (azure["sku-gpu-name"], azure["sku-gpu-count"], azure["capacity-type"]) == (["h100"], ["8"], ["on-demand"])
    assert not {"instance-type", "zone"} & set(azure)


def test_karpenter_makes_no_more_nodes_than_declared() -> None:
    assert only(render(of("karpenter-aws", maxNodes=3)), "NodePool")["spec"]["limits"] == {"nvidia.com/gpu": "24"}


def test_karpenter_takes_empty_nodes_and_no_others() -> None:
    spec = only(render(of("karpenter-azure")), "NodePool")["spec"]

    assert (spec["disruption"]["consolidationPolicy"], spec["disruption"]["consolidateAfter"]) == ("WhenEmpty", "5m")
    assert spec["disruption"]["budgets"] == [
        {"nodes": "100%", "reasons": ["Empty"]},
        {"nodes": "0", "reasons": ["Drifted", "Underutilized"]},
    ]
    assert spec["template"]["spec"]["expireAfter"] == "Never"


@pytest.mark.parametrize("provider", ["karpenter-aws", "karpenter-azure"])
def test_a_node_pool_finds_its_node_class(provider: str) -> None:
    found = render(of(provider))
    reference = only(found, "NodePool")["spec"]["template"]["spec"]["nodeClassRef"]
    target = found[reference["kind"], reference["name"]]

    assert target["apiVersion"].split("/")[0] == reference["group"]


@pytest.mark.parametrize(("alias", "device"), [("al2023@v1", "/dev/xvda"), ("bottlerocket@1.50.0", "/dev/xvdb")])
def test_the_disk_is_the_one_that_holds_images(alias: str, device: str) -> None:
    spec = only(render(merged(of("karpenter-aws", diskGi=300), {"karpenterAws": {"amiAlias": alias}})), "EC2NodeClass")["spec"]
    (mapping,) = spec["blockDeviceMappings"]

    assert spec["amiSelectorTerms"] == [{"alias": alias}]
    assert (mapping["deviceName"], mapping["ebs"]["volumeSize"], mapping["ebs"]["encrypted"]) == (device, "300Gi", True)


def test_the_disk_of_other_providers() -> None:
    assert only(render(of("karpenter-azure", diskGi=300)), "AKSNodeClass")["spec"]["osDiskSizeGB"] == 300
    assert only(render(of("gke", diskGi=300)), "ContainerNodePool")["spec"]["nodeConfig"]["diskSizeGb"] == 300


def test_a_gke_pool_begins_empty_and_counts_over_all_zones() -> None:
    spec = only(render(of("gke", capacity="spot", zones=["us-central1-a", "us-central1-b"])), "ContainerNodePool")["spec"]

    assert spec["initialNodeCount"] == 0
    assert spec["autoscaling"] == {"totalMinNodeCount": 0, "totalMaxNodeCount": 2, "locationPolicy": "ANY"}
    assert (spec["nodeConfig"]["spot"], spec["nodeLocations"]) == (True, ["us-central1-a", "us-central1-b"])
    assert spec["nodeConfig"]["guestAccelerator"] == [
        {"type": "h100", "count": 8, "gpuDriverInstallationConfig": {"gpuDriverVersion": "DEFAULT"}}
    ]


def test_gke_keeps_its_device_plugin_off_where_claims_hand_out_gpus() -> None:
    label = "gke-no-default-nvidia-gpu-device-plugin"

    def labels(kind: str) -> dict[str, str]:
        return only(render({**of("gke"), "devices": {"kind": kind}}), "ContainerNodePool")["spec"]["nodeConfig"]["labels"]

    assert labels("dra")[label] == "true"
    assert label not in labels("none")


def test_the_autoscaler_can_plan_a_machine_that_is_not_there_yet() -> None:
    found = only(render(of("cluster-api", taints=[SPOT])), "MachineDeployment")
    known = {name.split("/")[1]: value for name, value in found["metadata"]["annotations"].items()}

    assert known == {
        "cluster-api-autoscaler-node-group-min-size": "0",
        "cluster-api-autoscaler-node-group-max-size": "2",
        "cpu": "64",
        "memory": "512Gi",
        "ephemeral-disk": "200Gi",
        "gpu-type": "nvidia.com/gpu",
        "gpu-count": "8",
        "labels": "cluster-api/accelerator=h100,tidewheel/pool=train",
        "taints": "nvidia.com/gpu=present:NoSchedule,tidewheel/spot=true:NoExecute",
    }
    assert "replicas" not in found["spec"], "they are the autoscaler's"


def test_the_autoscaler_is_told_of_claims() -> None:
    annotations = only(render({**of("cluster-api"), "devices": {"kind": "dra"}}), "MachineDeployment")["metadata"][
        "annotations"
    ]
    known = {name.split("/")[1]: value for name, value in annotations.items()}

    assert known["dra-driver"] == "gpu.nvidia.com"
    assert "gpu-type" not in known


def test_machines_are_made_anew_when_they_join_otherwise_and_only_then() -> None:
    def joins(**pool: Any) -> str:
        found = render(of("cluster-api", **pool))
        reference = only(found, "MachineDeployment")["spec"]["template"]["spec"]["bootstrap"]["configRef"]
        assert (reference["kind"], reference["name"]) in found
        return reference["name"]

    assert joins() == joins(maxNodes=7)
    assert len({joins(), joins(labels={"team": "a"}), joins(taints=[SPOT])}) == 3


def test_what_a_pool_says_is_what_it_gets() -> None:
    """0 and [] are said too: they are no silence for the default to fill."""
    defaults = {"poolDefaults": {"minNodes": 1, "taints": [SPOT], "maxNodes": 5}}
    said = only(render(merged(of("gke", minNodes=0, taints=[]), defaults)), "ContainerNodePool")["spec"]

    assert said["autoscaling"]["totalMinNodeCount"] == 0
    assert len(said["nodeConfig"]["taint"]) == 1
    silent = merged(of("gke"), defaults)
    silent["pools"] = [{"name": "train", "accelerator": "h100"}]
    spec = only(render(silent), "ContainerNodePool")["spec"]
    assert (spec["autoscaling"]["totalMinNodeCount"], spec["autoscaling"]["totalMaxNodeCount"]) == (1, 5)
    assert len(spec["nodeConfig"]["taint"]) == 2
