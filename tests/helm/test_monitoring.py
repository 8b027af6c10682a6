"""Dashboards and alerts read metrics that servers really have."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

from tests.helm.chart import CHART, ROOT, metric_names, needs_helm, render
from tidewheel.serving.gate import Gate, Limits
from tidewheel.serving.metrics import LogCounters, ServingMetrics

DASHBOARD = json.loads((CHART / "files" / "dashboard.json").read_text(encoding="utf-8"))
RULES = (CHART / "templates" / "monitoring" / "prometheusrule.yaml").read_text(encoding="utf-8")
SUFFIXES = {"counter": ("_total",), "gauge": ("",), "histogram": ("_bucket", "_sum", "_count")}


def exported() -> set[str]:
    """Names of the series of a server that writes a log, as Prometheus stores them."""
    metrics = ServingMetrics(Gate(Limits()), dict)
    metrics.log = LogCounters()
    return {family.name + suffix for family in metrics.collect() for suffix in SUFFIXES[family.type]}


def panels() -> Iterator[dict[str, Any]]:
    yield from (panel for panel in DASHBOARD["panels"] if panel["type"] != "row")


def expressions() -> str:
    queries = [target["expr"] for panel in panels() for target in panel["targets"]]
    return "\n".join(queries + [variable["query"] for variable in DASHBOARD["templating"]["list"]])


@pytest.mark.parametrize("where", ["dashboard", "alerts"])
def test_every_metric_is_one_that_servers_have(where: str) -> None:
    text = expressions() if where == "dashboard" else RULES
    queried = set(re.findall(r"(tidewheel_\w+)\{", text))

    assert queried - exported() == set()
    assert len(queried) > 5
    assert {name for name in metric_names(text) if not any(each.startswith(name) for each in exported())} == set()


def test_the_dashboard_shows_every_documented_metric() -> None:
    page = (ROOT / "docs" / "serving.md").read_text(encoding="utf-8")
    table = page.split("## Metrics")[1].split("## KServe")[0]
    documented = {name for name in metric_names(table) if not name.endswith("_")}  # `tidewheel_log_*` names none

    shown = metric_names(expressions())
    assert {name for name in documented if not any(each.startswith(name) for each in shown)} == set()


def test_a_panel_says_what_it_shows_of_which_servers() -> None:
    for panel in panels():
        assert panel["title"]
        assert panel["description"]
        assert all('namespace="$namespace",job="$job"' in target["expr"] for target in panel["targets"])
    places = [(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in DASHBOARD["panels"]]
    numbers = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(set(places)) == len(places)
    assert len(set(numbers)) == len(numbers)


@needs_helm
def test_the_config_map_holds_the_dashboard_as_it_is() -> None:
    found = render({"monitoring": {"dashboard": {"enabled": True}}})["ConfigMap", "feed-ranker-serving-dashboard"]

    assert json.loads(found["data"]["ranker-serving.json"]) == DASHBOARD
    assert found["metadata"]["labels"]["grafana_dashboard"] == "1"


@needs_helm
def test_every_server_is_scraped_once() -> None:
    found = render({"monitoring": {"serviceMonitor": {"enabled": True}}})
    chosen = found["ServiceMonitor", "feed-ranker-serving"]["spec"]["selector"]["matchLabels"]

    services = {name: each["metadata"]["labels"] for (kind, name), each in found.items() if kind == "Service"}
    assert [name for name, labels in services.items() if chosen.items() <= labels.items()] == ["feed-ranker-serving"]


def rules(values: dict[str, Any]) -> dict[str, dict[str, Any]]:
    found = render({**values, "monitoring": {"prometheusRule": {"enabled": True}}})["PrometheusRule", "feed-ranker-serving"]
    return {rule["alert"]: rule for rule in found["spec"]["groups"][0]["rules"]}


@needs_helm
def test_an_alert_reads_this_release_and_says_what_to_do() -> None:
    for rule in rules({}).values():
        series = re.findall(r"tidewheel_\w+(\{[^}]*)", rule["expr"])
        assert series
        assert all(each.startswith('{namespace="ranking",job="feed-ranker-serving"') for each in series)
        assert rule["annotations"]["description"].endswith(".")


@needs_helm
def test_two_bundles_may_be_beside_each_other_as_long_as_a_canary_takes() -> None:
    steps = [{"share": 0.1, "maxSeconds": 1000000}, {"share": 0.5, "maxSeconds": 2000000}]

    assert rules({"rollout": {"steps": steps}})["RankerMixedBundles"]["for"] == "3003600s"
    assert rules({"rollout": {"enabled": False}})["RankerMixedBundles"]["for"] == "3600s"


@needs_helm
def test_it_renders_nothing_when_disabled() -> None:
    assert not {"ServiceMonitor", "PrometheusRule", "ConfigMap"} & {kind for kind, _ in render()}
