"""Who tells Kubernetes of the GPUs."""

from __future__ import annotations

from typing import Any

from tests.helm.chart import merged, needs_helm
from tests.helm.gpu_node_pools.chart import POOL, queues, render

pytestmark = needs_helm
PLUGIN = {"devices": {"kind": "device-plugin"}}
CLAIMS = {"devices": {"kind": "dra"}}
TEAM = {"key": "team", "value": "a", "effect": "NoSchedule"}


def daemon(values: dict[str, Any]) -> dict[str, Any]:
    return render(values)["DaemonSet", "feed-device-plugin"]["spec"]["template"]["spec"]


def test_the_plugin_runs_on_the_pools_and_nowhere_else() -> None:
    pools = [{**POOL, "taints": [TEAM]}, {**POOL, "name": "spot", "taints": [TEAM, {"key": "spot", "effect": "NoExecute"}]}]
    spec = daemon({**PLUGIN, "pools": pools})
    (term,) = spec["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"]

    assert term == {"matchExpressions": [{"key": "tidewheel/pool", "operator": "In", "values": ["train", "spot"]}]}
    assert spec["tolerations"] == [
        {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"},
        {"key": "team", "operator": "Equal", "value": "a", "effect": "NoSchedule"},
        {"key": "spot", "operator": "Exists", "effect": "NoExecute"},
    ]


def test_the_plugin_has_no_rights_it_does_not_need() -> None:
    spec = daemon({**PLUGIN, "pools": [POOL]})

    assert spec["automountServiceAccountToken"] is False
    assert spec["containers"][0]["securityContext"] == {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
    assert [volume["hostPath"]["path"] for volume in spec["volumes"]] == ["/var/lib/kubelet/device-plugins"]


def test_a_digest_wins_over_the_tag() -> None:
    image = {"devices": {"devicePlugin": {"image": {"digest": "sha256:" + "1" * 64}}}}

    assert daemon({"pools": [POOL], **PLUGIN})["containers"][0]["image"] == "nvcr.io/nvidia/k8s-device-plugin:v0.19.3"
    pinned = daemon({"pools": [POOL], **merged(PLUGIN, image)})["containers"][0]["image"]
    assert pinned == "nvcr.io/nvidia/k8s-device-plugin@sha256:" + "1" * 64


def test_every_namespace_with_a_queue_has_the_claims() -> None:
    places = [{"name": "a", "namespace": "kubeflow"}, {"name": "b", "namespace": "kubeflow"}, {"name": "a", "namespace": "lab"}]
    text = render({**queues({"localQueues": places}), **CLAIMS}, "--kube-version", "1.34.0")
    claims = [each for (kind, _), each in text.items() if kind == "ResourceClaimTemplate"]

    assert {each["metadata"]["name"] for each in claims} == {"one-gpu"}
    (request,) = claims[0]["spec"]["spec"]["devices"]["requests"]
    assert request == {
        "name": "gpu",
        "exactly": {"deviceClassName": "tidewheel-gpu", "allocationMode": "ExactCount", "count": 1},
    }
    assert text["DeviceClass", "tidewheel-gpu"]["spec"]["selectors"] == [
        {"cel": {"expression": 'device.driver == "gpu.nvidia.com" && device.attributes["gpu.nvidia.com"].type == "gpu"'}}
    ]


def test_it_renders_nothing_when_disabled() -> None:
    kinds = {"DaemonSet", "DeviceClass", "ResourceClaimTemplate"}

    assert not kinds & {kind for kind, _ in render(queues())}
    assert not kinds & {kind for kind, _ in render(PLUGIN)}, "a plugin for no pool"
    assert kinds & {kind for kind, _ in render({**queues(), **PLUGIN})} == {"DaemonSet"}
