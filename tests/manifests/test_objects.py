"""What holds for every object of every overlay, and for the limits and the network of a namespace of runs."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.manifests.overlay import MANIFESTS, OVERLAYS, built, moved, named, needs_kubectl, objects

pytestmark = needs_kubectl
METADATA_ADDRESS = ipaddress.ip_address("169.254.169.254")  # of every cloud: whoever reaches it has the node's rights
FORBIDDEN_VERBS = {"*", "escalate", "bind", "impersonate"}


@pytest.fixture(scope="module", params=OVERLAYS)
def overlay(request: pytest.FixtureRequest) -> tuple[str, list[dict[str, Any]]]:
    return request.param, objects(request.param)


@pytest.fixture(scope="module", params=["local", "production"])
def namespace(request: pytest.FixtureRequest) -> list[dict[str, Any]]:
    """The objects of the overlays that make a namespace."""
    return objects(request.param)


def leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """(path, value) of everything in an object that holds nothing else."""
    if isinstance(value, dict):
        for key, each in value.items():
            yield from leaves(each, f"{path}/{key}")
    elif isinstance(value, list):
        for each in value:
            yield from leaves(each, path)
    else:
        yield path, value


def test_every_object_says_what_it_belongs_to(overlay: tuple[str, list[dict[str, Any]]]) -> None:
    assert {each["metadata"]["labels"]["app.kubernetes.io/part-of"] for each in overlay[1]} == {"tidewheel"}


def test_everything_lies_in_the_namespace_of_its_overlay(overlay: tuple[str, list[dict[str, Any]]]) -> None:
    name, found = overlay
    here = "kubeflow" if name == "standalone" else "tidewheel"

    assert {each["metadata"].get("namespace") for each in found if each["kind"] != "Namespace"} == {here}
    assert {subject["namespace"] for each in named(found, "RoleBinding").values() for subject in each["subjects"]} == {here}


def test_nothing_holds_a_secret(overlay: tuple[str, list[dict[str, Any]]]) -> None:
    _, found = overlay

    assert not named(found, "Secret")
    for each in found:
        for path, value in leaves(each):
            key = path.rsplit("/", 1)[-1]
            assert not re.search(r"(?i)password|token$|access_key|secret_key|credential", key) or isinstance(value, bool), path
            assert not re.search(r"//[^/@]*:[^/@]*@", str(value)), f"{path} holds a password"


def test_no_rule_is_open_ended(overlay: tuple[str, list[dict[str, Any]]]) -> None:
    for name, role in named(overlay[1], "Role").items():
        for rule in role["rules"]:
            assert not FORBIDDEN_VERBS & set(rule["verbs"]), name
            assert "*" not in rule["apiGroups"] + rule["resources"], name
            assert "nonResourceURLs" not in rule, name


def test_no_right_reaches_beyond_a_namespace(overlay: tuple[str, list[dict[str, Any]]]) -> None:
    _, found = overlay

    assert not [each["kind"] for each in found if each["kind"].startswith("Cluster")]
    assert {binding["roleRef"]["kind"] for binding in named(found, "RoleBinding").values()} == {"Role"}


def test_an_overlay_sets_store_and_registry(overlay: tuple[str, list[dict[str, Any]]]) -> None:
    values = named(overlay[1], "ConfigMap")["tidewheel"]["data"]

    assert {"TIDEWHEEL_STORE", "MLFLOW_TRACKING_URI"} <= set(values)
    assert not [name for name, value in values.items() if value.startswith("unset:")]


def test_without_an_overlay_no_run_finds_a_store() -> None:
    values = named(list(yaml.safe_load_all(built(MANIFESTS / "base"))), "ConfigMap")["tidewheel"]["data"]

    assert set(values.values()) == {"unset://set-in-an-overlay"}


def test_the_namespace_refuses_pods_that_are_not_restricted(namespace: list[dict[str, Any]]) -> None:
    labels = named(namespace, "Namespace")["tidewheel"]["metadata"]["labels"]

    assert {labels[f"pod-security.kubernetes.io/{mode}"] for mode in ("enforce", "audit", "warn")} == {"restricted"}


def test_a_backend_of_214_is_let_in_by_a_component_only(tmp_path: Path) -> None:
    folder = moved("local", "runs", tmp_path, "backend-2.14")

    labels = named(list(yaml.safe_load_all(built(folder))), "Namespace")["runs"]["metadata"]["labels"]

    assert labels["pod-security.kubernetes.io/enforce"] == "baseline"
    assert labels["pod-security.kubernetes.io/warn"] == "restricted"


def test_what_the_quota_asks_for_has_a_default(namespace: list[dict[str, Any]]) -> None:
    hard = named(namespace, "ResourceQuota")["runs"]["spec"]["hard"]
    (limits,) = named(namespace, "LimitRange")["runs"]["spec"]["limits"]
    asked = {name for name in hard if name.startswith(("requests.", "limits.")) and not name.endswith("/gpu")}

    assert asked == {f"requests.{name}" for name in limits["defaultRequest"]} | {f"limits.{name}" for name in limits["default"]}


def test_nothing_of_a_run_is_offered_to_the_outside(namespace: list[dict[str, Any]]) -> None:
    hard = named(namespace, "ResourceQuota")["runs"]["spec"]["hard"]

    assert (hard["services.nodeports"], hard["services.loadbalancers"]) == ("0", "0")


def test_nobody_talks_to_anybody_unless_it_is_said(namespace: list[dict[str, Any]]) -> None:
    policies = named(namespace, "NetworkPolicy")

    assert policies["default-deny"]["spec"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    for name, policy in policies.items():
        for way, side in (("ingress", "from"), ("egress", "to")):
            for rule in policy["spec"].get(way, []):
                assert rule.get(side), f"{name}: a rule without {side} lets everybody through"
                assert name == "runs" or rule.get("ports"), f"{name}: a rule without ports opens all of them"


def test_no_pod_reaches_the_clouds_metadata(namespace: list[dict[str, Any]]) -> None:
    for name, policy in named(namespace, "NetworkPolicy").items():
        blocks = [peer["ipBlock"] for rule in policy["spec"].get("egress", []) for peer in rule["to"] if "ipBlock" in peer]
        for block in blocks:
            is_inside = METADATA_ADDRESS in ipaddress.ip_network(block["cidr"])
            is_left_out = any(METADATA_ADDRESS in ipaddress.ip_network(each) for each in block.get("except", []))
            assert not is_inside or is_left_out, name
