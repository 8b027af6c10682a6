"""What is asked of a cluster is what `manifests/` says and brings."""

from __future__ import annotations

import tomllib

import yaml

from tests.manifests.overlay import MANIFESTS
from tidewheel.cluster.needs import ACCOUNTS, KUBERNETES, UNSET, systems
from tidewheel.contracts.placement import SETTINGS

RUNS = MANIFESTS / "runs"


def test_no_system_is_asked_to_be_newer_or_older_than_its_pin() -> None:
    pins = tomllib.loads((MANIFESTS / "versions.toml").read_text(encoding="utf-8"))

    asked = {system.name: system.oldest for system in systems(None) if system.oldest}

    assert asked | {"kubernetes": KUBERNETES} == {name: pin["oldest"] for name, pin in pins.items()}


def test_the_accounts_are_those_of_the_manifests() -> None:
    accounts = yaml.safe_load_all((RUNS / "accounts.yaml").read_text(encoding="utf-8"))

    assert {account["metadata"]["name"] for account in accounts} == set(ACCOUNTS)


def test_settings_that_nobody_set_begin_as_the_manifests_leave_them() -> None:
    (generated,) = yaml.safe_load((RUNS / "kustomization.yaml").read_text(encoding="utf-8"))["configMapGenerator"]

    assert generated["name"] == SETTINGS
    assert all(literal.partition("=")[2].startswith(UNSET) for literal in generated["literals"])
