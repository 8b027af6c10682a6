"""The chart as tests see it: rendered by the real helm, or read as files where there is none."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
CHART = ROOT / "helm" / "ranker-serving"
CASES = sorted(CHART.glob("ci/*-values.yaml"))
HELM = os.environ.get("HELM") or shutil.which("helm") or ""
needs_helm = pytest.mark.skipif(not HELM, reason="no helm: set $HELM or put it on the PATH")

VALUES = yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8"))
SCHEMA = json.loads((CHART / "values.schema.json").read_text(encoding="utf-8"))
REQUIRED = {"recipe": "feed", "store": {"url": "s3://bucket/prefix"}}
Rendered = dict[tuple[str, str], dict[str, Any]]


def merged(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """`above` laid over `below`, mappings by key: what helm does with values."""
    both = {**below}
    for key, value in above.items():
        is_mapping = isinstance(value, dict) and isinstance(below.get(key), dict)
        both[key] = merged(below[key], value) if is_mapping else value
    return both


def helm(*arguments: str | Path, values: dict[str, Any] | None = None) -> subprocess.CompletedProcess[str]:
    """Run helm; `values` go in on stdin."""
    command = [HELM, *map(str, arguments), *(["--values", "-"] if values is not None else [])]
    text = None if values is None else json.dumps(values)
    return subprocess.run(command, input=text, capture_output=True, text=True, check=False, timeout=240)


def manifest(values: dict[str, Any], *more: str | Path) -> str:
    """What `helm template` writes for a release `feed` in the namespace `ranking`."""
    done = helm("template", "feed", CHART, "--namespace", "ranking", *more, values=values)
    assert done.returncode == 0, done.stderr
    return done.stdout


def render(values: dict[str, Any] | None = None) -> Rendered:
    """(kind, name) -> object, of the required values with `values` over them."""
    documents = yaml.safe_load_all(manifest(merged(REQUIRED, values or {})))
    return {(each["kind"], each["metadata"]["name"]): each for each in documents if each}


def refusal(values: dict[str, Any]) -> str:
    """What helm says when it refuses `values` (over the required ones)."""
    done = helm("template", "feed", CHART, "--namespace", "ranking", values=merged(REQUIRED, values))
    assert done.returncode != 0, "helm rendered it"
    return done.stderr


def container(workload: dict[str, Any]) -> dict[str, Any]:
    """The only container of a workload's or a Job's pods."""
    (only,) = workload["spec"]["template"]["spec"]["containers"]
    return only


def metric_names(text: str) -> set[str]:
    """Names of our metrics in an expression or a page."""
    return set(re.findall(r"\btidewheel_[a-z0-9_]+", text))
