"""Pins of systems that others install: complete, with a reason, and of one mind with pyproject.toml."""

from __future__ import annotations

import re
import tomllib

from tests.manifests.overlay import MANIFESTS, ROOT

VERSIONS = tomllib.loads((MANIFESTS / "versions.toml").read_text(encoding="utf-8"))


def parts(version: str) -> tuple[int, ...]:
    return tuple(int(each) for each in version.split("."))


def test_every_system_has_a_version_a_reason_and_an_oldest() -> None:
    assert set(VERSIONS) == {"kubernetes", "argo-rollouts", "kueue", "kuberay", "kubeflow-pipelines"}
    for name, each in VERSIONS.items():
        assert re.fullmatch(r"\d+\.\d+\.\d+", each["version"]), name
        assert parts(each["oldest"]) <= parts(each["version"]), name
        assert each["why"], name
        assert each["why_oldest"], name


def test_the_sdk_is_the_one_that_compiles_our_pipelines() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]

    assert f"kfp=={VERSIONS['kubeflow-pipelines']['sdk']}" in project["optional-dependencies"]["pipeline"]
