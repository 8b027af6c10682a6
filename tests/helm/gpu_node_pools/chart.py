"""The chart of GPU pools as tests see it, with the helm of the chart beside it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

from tests.helm.chart import ROOT, Rendered, helm, merged

CHART = ROOT / "helm" / "gpu-node-pools"
CASES = sorted(CHART.glob("ci/*-values.yaml"))
VALUES = yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8"))
SCHEMA = json.loads((CHART / "values.schema.json").read_text(encoding="utf-8"))
POOL: dict[str, Any] = {"name": "train", "accelerator": "h100", "gpus": 8, "maxNodes": 2}
QUEUE: dict[str, Any] = {
    "name": "retrain",
    "gpus": [{"pool": "train", "quota": 16}],
    "localQueues": [{"name": "retrain", "namespace": "kubeflow"}],
}
PROVIDERS: dict[str, dict[str, Any]] = {
    "none": {},
    "karpenter-aws": {
        "karpenterAws": {"role": "nodes", "amiAlias": "al2023@v1", "subnetTags": {"a": "b"}, "securityGroupTags": {"a": "b"}}
    },
    "karpenter-azure": {},
    "gke": {
        "gke": {"cluster": "ranking", "location": "us-central1", "project": "prod"},
        "poolDefaults": {"machineTypes": ["a3-highgpu-8g"]},
    },
    "cluster-api": {
        "clusterApi": {"cluster": "ranking", "version": "v1.34.1", "infrastructureKind": "MetalMachineTemplate"},
        "poolDefaults": {"nodeCpu": "64", "nodeMemory": "512Gi", "infrastructureTemplate": "metal"},
    },
}


def of(provider: str, **pool: Any) -> dict[str, Any]:
    """Values of `provider` with what it requires, and one pool, `pool` over it."""
    return merged({"provider": provider, "pools": [{**POOL, **pool}]}, PROVIDERS[provider])


def queues(*each: dict[str, Any], **kueue: Any) -> dict[str, Any]:
    """Values of existing nodes with cluster queues, each `each` over one of 16 GPUs."""
    return {**of("none"), "kueue": {**kueue, "clusterQueues": [{**QUEUE, **queue} for queue in each or ({},)]}}


def manifest(values: dict[str, Any], *more: str | Path) -> str:
    """What `helm template` writes for a release `feed` in the namespace `ranking`."""
    done = helm("template", "feed", CHART, "--namespace", "ranking", *more, values=values)
    assert done.returncode == 0, done.stderr
    return done.stdout


def render(values: dict[str, Any] | None = None, *more: str) -> Rendered:
    """(kind, name) -> object."""
    documents = yaml.safe_load_all(manifest(values or {}, *more))
    return {(each["kind"], each["metadata"]["name"]): each for each in documents if each}


def refusal(values: dict[str, Any], *more: str) -> str:
    """What helm says when it refuses `values`."""
    done = helm("template", "feed", CHART, "--namespace", "ranking", *more, values=values)
    assert done.returncode != 0, "helm rendered it"
    return done.stderr
