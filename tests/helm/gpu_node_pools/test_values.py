"""What a person may write: everything that is not a value of the chart is refused, and says where."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft7Validator

from tests.helm.chart import ROOT, helm, merged, needs_helm
from tests.helm.gpu_node_pools.chart import CASES, CHART, POOL, PROVIDERS, SCHEMA, VALUES, of, queues, refusal, render

VALIDATOR = Draft7Validator(SCHEMA)
TAINT = {"key": "team", "value": "a", "effect": "NoSchedule"}


def objects_of(schema: dict[str, Any], place: str = "values") -> Iterator[tuple[str, dict[str, Any]]]:
    if schema.get("type") == "object":
        yield place, schema
    for part in ("properties", "definitions"):
        for name, each in schema.get(part, {}).items():
            yield from objects_of(each, f"{place}.{name}")
    if "items" in schema:
        yield from objects_of(schema["items"], f"{place}[]")


def keys_of(schema: dict[str, Any], place: str = "") -> set[str]:
    found = set()
    for name, each in schema.get("properties", {}).items():
        found |= {f"{place}{name}"} | keys_of(each, f"{place}{name}.")
    return found


def values_keys_of(values: dict[str, Any], schema: dict[str, Any], place: str = "") -> set[str]:
    found = set()
    for name, each in values.items():
        found.add(f"{place}{name}")
        below = schema.get("properties", {}).get(name, {})
        if isinstance(each, dict) and "properties" in below:
            found |= values_keys_of(each, below, f"{place}{name}.")
    return found


def faults(values: dict[str, Any]) -> list[str]:
    return [fault.message for fault in VALIDATOR.iter_errors(merged(VALUES, values))]


def test_the_schema_is_a_schema() -> None:
    Draft7Validator.check_schema(SCHEMA)


@pytest.mark.parametrize(("place", "schema"), objects_of(SCHEMA), ids=lambda each: each if isinstance(each, str) else "")
def test_an_object_refuses_what_it_does_not_know(place: str, schema: dict[str, Any]) -> None:
    more = schema.get("additionalProperties", True)

    is_closed = more is False or (isinstance(more, dict) and ("type" in more or "oneOf" in more))
    assert is_closed or "description" in schema, f"{place} takes anything and does not say why"


def test_every_value_has_a_default_and_a_schema() -> None:
    assert values_keys_of(VALUES, SCHEMA) == keys_of(SCHEMA) - {"global"}


def test_whatever_has_a_default_may_be_said_of_one_pool_or_queue() -> None:
    properties = SCHEMA["properties"]
    queue = properties["kueue"]["properties"]

    assert set(properties["pools"]["items"]["properties"]) == {"name", *VALUES["poolDefaults"]}
    assert set(queue["clusterQueues"]["items"]["properties"]) == {
        "name",
        "gpus",
        "localQueues",
        *VALUES["kueue"]["queueDefaults"],
    }


def test_the_defaults_are_valid_and_declare_nothing() -> None:
    assert faults({}) == []
    assert (VALUES["pools"], VALUES["kueue"]["clusterQueues"]) == ([], [])


@pytest.mark.parametrize("case", CASES, ids=lambda path: path.stem)
def test_the_example_values_are_valid(case: Path) -> None:
    assert faults(yaml.safe_load(case.read_text(encoding="utf-8"))) == []


def test_every_provider_has_example_values() -> None:
    providers = [yaml.safe_load(case.read_text(encoding="utf-8"))["provider"] for case in CASES]

    assert sorted(providers) == sorted(SCHEMA["properties"]["provider"]["enum"]) == sorted(PROVIDERS)


REFUSED: dict[str, dict[str, Any]] = {
    "an unknown value": {"nodePools": []},
    "an unknown value of a pool": of("none", maxSize=3),
    "an unknown provider": {**of("none"), "provider": "karpenter"},
    "a pool without a name": {"pools": [{"gpus": 1}]},
    "a name that is no label": of("none", name="Train"),
    "nodes without GPUs": of("none", gpus=0),
    "a pool of no nodes": of("none", maxNodes=0),
    "neither spot nor on demand": of("none", capacity="preemptible"),
    "a disk for nothing": of("none", diskGi=8),
    "the chart's label said again": of("none", labels={"tidewheel/pool": "b"}),
    "the chart's taint said again": of("none", taints=[{"key": "nvidia.com/gpu", "effect": "NoSchedule"}]),
    "a taint without an effect": of("none", taints=[{"key": "team"}]),
    "more taints than a flavor tolerates": of("none", taints=[TAINT] * 8),
    "AWS without a role": merged(of("karpenter-aws"), {"karpenterAws": {"role": ""}}),
    "AWS without subnets": {
        **of("karpenter-aws"),
        "karpenterAws": {"role": "nodes", "amiAlias": "al2023@v1", "securityGroupTags": {"a": "b"}},
    },
    "an image that is no alias": merged(of("karpenter-aws"), {"karpenterAws": {"amiAlias": "ami-123"}}),
    "GKE without a cluster": merged(of("gke"), {"gke": {"cluster": ""}}),
    "Cluster API without a version": merged(of("cluster-api"), {"clusterApi": {"version": ""}}),
    "claims where Karpenter makes nodes": {**of("karpenter-aws"), "devices": {"kind": "dra"}},
    "a second device plugin on GKE": {**of("gke"), "devices": {"kind": "device-plugin"}},
    "an unknown way of devices": {**of("none"), "devices": {"kind": "mig"}},
    "a claim of nothing": {**of("none"), "devices": {"kind": "dra", "dra": {"claims": [{"name": "none", "count": 0}]}}},
    "a cluster queue nobody may use": queues({"localQueues": []}),
    "a local queue from nowhere": queues({"localQueues": [{"name": "retrain"}]}),
    "GPUs as a resource of all steps": queues({"resources": {"cpu": 1, "nvidia.com/gpu": 8}}),
    "a quota that is no quantity": queues({"resources": {"cpu": "many"}}),
    "a loan without a cohort": queues({"gpus": [{"pool": "train", "quota": 8, "borrow": 8}]}),
    "an unknown preemption": queues({"withinClusterQueue": "Always"}),
    "a priority without a value": {"kueue": {"priorityClasses": [{"name": "urgent"}]}},
}


@pytest.mark.parametrize("what", REFUSED)
def test_it_is_refused(what: str) -> None:
    assert faults(REFUSED[what]) != []


@pytest.mark.parametrize("provider", PROVIDERS)
def test_what_refused_values_were_made_of_is_valid(provider: str) -> None:
    assert faults(of(provider)) == []
    assert faults(queues()) == []
    assert faults(queues({"gpus": [{"pool": "train", "quota": 8, "borrow": 8}]}, cohort="gpus")) == []


@needs_helm
@pytest.mark.parametrize("what", ["an unknown value", "GKE without a cluster", "a loan without a cohort"])
def test_helm_refuses_it_too(what: str) -> None:
    assert "values don't meet the specifications of the schema" in refusal(REFUSED[what])


IMPOSSIBLE: dict[str, tuple[dict[str, Any], str]] = {
    "two pools of one name": ({"pools": [POOL, POOL]}, "pools: there are two of the name train"),
    "a range upside down": (of("none", minNodes=3), "pool train: minNodes 3 > maxNodes 2"),
    "idle nodes of Karpenter": (of("karpenter-aws", minNodes=1), "pool train: minNodes is 1; Karpenter keeps no node"),
    "no accelerator": (of("karpenter-azure", accelerator=""), "pool train: accelerator is empty; say which GPU"),
    "a disk larger than Azure's": (of("karpenter-azure", diskGi=4096), "pool train: diskGi is 4096; an AKSNodeClass has 2048"),
    "two machine types on GKE": (of("gke", machineTypes=["a", "b"]), "pool train: machineTypes has 2 entries; a GKE node pool"),
    "machines of no template": (of("cluster-api", infrastructureTemplate=""), "pool train: infrastructureTemplate is empty"),
    "an autoscaler in the dark": (of("cluster-api", nodeCpu=""), "pool train: nodeCpu is empty"),
    "machines in two zones": (of("cluster-api", zones=["a", "b"]), "pool train: zones has 2 entries"),
    "a quota of no pool": (queues({"gpus": [{"pool": "b", "quota": 1}]}), "there is no pool b; pools are train"),
    "a quota beyond the pool": (queues({"gpus": [{"pool": "train", "quota": 17}]}), "add up to 17 GPUs; its maxNodes have 16"),
    "two quotas beyond the pool": (
        queues({}, {"name": "b", "gpus": [{"pool": "train", "quota": 1}], "localQueues": [{"name": "b", "namespace": "b"}]}),
        "cluster queue b: quotas of pool train add up to 17 GPUs; its maxNodes have 16",
    ),
    "one local queue of two cluster queues": (
        queues({"gpus": []}, {"name": "b", "gpus": []}),
        "local queue kubeflow/retrain: it is named twice",
    ),
    "a pool named as the CPUs": (of("none", name="cpu"), "pool cpu has the name of kueue.cpuFlavor"),
}


@needs_helm
@pytest.mark.parametrize("what", IMPOSSIBLE)
def test_what_cannot_be_is_refused_with_its_reason(what: str) -> None:
    values, reason = IMPOSSIBLE[what]

    assert faults(values) == []
    assert reason in refusal(values)


@needs_helm
def test_claims_need_the_kubernetes_that_knows_them() -> None:
    values = {**of("none"), "devices": {"kind": "dra"}}

    assert "needs Kubernetes 1.34 (resource.k8s.io/v1), this is v1.33.0" in refusal(values, "--kube-version", "1.33.0")


@needs_helm
def test_the_values_of_the_page_render() -> None:
    page = (ROOT / "docs" / "operations" / "gpu-node-pools.md").read_text(encoding="utf-8")

    (block,) = re.findall(r"```yaml values\n(.*?)```", page, re.DOTALL)
    assert {"NodePool", "DaemonSet", "ClusterQueue", "LocalQueue"} <= {kind for kind, _ in render(yaml.safe_load(block))}


@needs_helm
@pytest.mark.parametrize("case", [None, *CASES], ids=lambda path: path.stem if path else "defaults")
def test_lint_finds_nothing(case: Path | None) -> None:
    done = helm("lint", "--strict", CHART, *([] if case is None else ["--values", case]))

    assert done.returncode == 0, done.stdout + done.stderr
