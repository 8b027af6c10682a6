"""What a person may write: everything that is not a value of the chart is refused, and says where."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft7Validator

from tests.helm.chart import CASES, CHART, REQUIRED, ROOT, SCHEMA, VALUES, helm, merged, needs_helm, refusal

VALIDATOR = Draft7Validator(SCHEMA)


def objects_of(schema: dict[str, Any], place: str = "values") -> Iterator[tuple[str, dict[str, Any]]]:
    if schema.get("type") == "object":
        yield place, schema
    for name, each in schema.get("properties", {}).items():
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
    return [fault.message for fault in VALIDATOR.iter_errors(merged(merged(VALUES, REQUIRED), values))]


def test_the_schema_is_a_schema() -> None:
    Draft7Validator.check_schema(SCHEMA)


@pytest.mark.parametrize(("place", "schema"), objects_of(SCHEMA), ids=lambda each: each if isinstance(each, str) else "")
def test_an_object_refuses_what_it_does_not_know_or_is_kubernetes_own(place: str, schema: dict[str, Any]) -> None:
    more = schema.get("additionalProperties", True)

    is_closed = more is False or (isinstance(more, dict) and "type" in more)
    assert is_closed or "description" in schema, f"{place} takes anything and does not say why"


def test_every_value_has_a_default_and_a_schema() -> None:
    optional = {
        "global",
        *(f"server.limits.{name}" for name in SCHEMA["properties"]["server"]["properties"]["limits"]["properties"]),
    }

    assert values_keys_of(VALUES, SCHEMA) == keys_of(SCHEMA) - optional


def test_the_defaults_lack_only_the_recipe_and_the_store() -> None:
    places = {".".join(map(str, fault.path)) for fault in VALIDATOR.iter_errors(VALUES)}

    assert places == {"recipe", "store.url"}
    assert faults({}) == []


@pytest.mark.parametrize("case", CASES, ids=lambda path: path.stem)
def test_the_example_values_are_valid(case: Path) -> None:
    assert faults(yaml.safe_load(case.read_text(encoding="utf-8"))) == []


REFUSED: dict[str, dict[str, Any]] = {
    "an unknown value": {"replicaCount": 3},
    "an unknown value below": {"image": {"tags": "1"}},
    "an unknown limit of the server": {"server": {"limits": {"maxBody": 1}}},
    "no steps": {"rollout": {"steps": []}},
    "a share of nothing": {"rollout": {"steps": [{"share": 0, "maxSeconds": 60}]}},
    "a share in percent": {"rollout": {"steps": [{"share": 5, "maxSeconds": 60}]}},
    "a step without an end": {"rollout": {"steps": [{"share": 0.05}]}},
    "no pod at all": {"replicas": 0},
    "a bundle that is no digest": {"bundle": "latest"},
    "a store that is neither": {"store": {"url": "gs://bucket"}},
    "a variable that is the chart's own": {"extraEnv": [{"name": "TIDEWHEEL_BUNDLE", "value": "0"}]},
    "a candidate that stays after its failure": {"rollout": {"abortScaleDownDelaySeconds": 0}},
    "a canary without a second server": {"autoscaling": {"minReplicas": 1}},
    "a deployer from nowhere": {"deployer": {"serviceAccounts": [{"name": "runner"}]}},
}


@pytest.mark.parametrize("what", REFUSED)
def test_it_is_refused(what: str) -> None:
    assert faults(REFUSED[what]) != []


def test_the_values_of_the_runbook_are_valid() -> None:
    page = (ROOT / "docs" / "operations" / "serving-on-kubernetes.md").read_text(encoding="utf-8")

    (block,) = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)
    assert faults(yaml.safe_load(block)) == []


@needs_helm
@pytest.mark.parametrize("what", ["an unknown value", "no steps", "a share in percent"])
def test_helm_refuses_it_too(what: str) -> None:
    (place,) = REFUSED[what]

    assert place in refusal(REFUSED[what])


@needs_helm
@pytest.mark.parametrize("case", CASES, ids=lambda path: path.stem)
def test_lint_finds_nothing(case: Path) -> None:
    done = helm("lint", "--strict", CHART, "--values", case)

    assert done.returncode == 0, done.stdout + done.stderr
