"""A whole retrain from `tidewheel submit` to the bundle behind the Rollout's service: a real log, seven steps in pods."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.cluster.kubectl import eventually, kubectl
from tests.cluster.queues import queue_of, second_pods
from tests.cluster.wheel import RUNS, Wheel, wheel

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(1800)]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Wheel]:
    with wheel(tmp_path_factory.mktemp("wheel")) as found:
        yield found


def told(document: dict[str, Any], wall: float) -> None:
    """Print where the time went: what docs/evidence keeps."""
    report = document["report"]
    steps = report["steps"]
    processes, start_up = (sum(step[name] for step in steps) for name in ("seconds", "overhead_seconds"))
    print(f"{report['outcome']}: {report['reason']}")
    print(f"{wall:.0f} s; steps' processes {processes:.0f} s, of that start-up {start_up:.0f} s")
    backend = {task["name"].replace("-", "_"): task["seconds"] for task in document["tasks"]}
    for step in steps:
        name, own, before = step["name"], step["seconds"], step["overhead_seconds"]
        print(f"  {name}: {own:.1f} s, start-up {before:.1f} s, by Kubeflow {backend[name]:.0f} s")


def test_1_the_first_bundle_is_served_behind_the_rollout(place: Wheel) -> None:
    began = time.monotonic()
    document = place.turn(place.recipe(), "2022-05-04")
    told(document, time.monotonic() - began)

    assert document["report"]["outcome"] == "bootstrap"
    assert place.served() == document["report"]["bundle"] == document["report"]["production"]
    assert place.bundles() == {document["report"]["bundle"]}


def test_2_the_next_is_taught_by_it_walks_the_canary_and_takes_its_place(place: Wheel) -> None:
    (first,) = place.bundles()
    began = time.monotonic()
    document = place.turn(place.recipe(), "2022-05-05")
    told(document, time.monotonic() - began)

    report = document["report"]
    assert (report["outcome"], report["teacher"]) == ("promoted", first)
    assert report["verdicts"]["deploy"]["phase"] == "Successful"
    assert place.served() == report["bundle"] != first
    assert eventually(place.bundles, lambda found: found == {report["bundle"]}, 120) == {report["bundle"]}
    entries = place.tidewheel("history", "--name", place.name)
    assert [entry["decision"] for entry in entries] == ["bootstrap", "promoted"]


def test_3_what_kubectl_shows_says_the_same(place: Wheel) -> None:
    retrains = json.loads(kubectl("--namespace", RUNS, "get", "retrains", "--output=json"))["items"]
    ours = [each for each in retrains if each["spec"]["recipe"] == place.name]
    assert {each["status"]["outcome"] for each in ours} == {"bootstrap", "promoted"}


def test_4_a_step_in_a_queue_that_needs_more_memory_goes_on_in_a_second_pod_of_the_queue(place: Wheel) -> None:
    with queue_of(RUNS, "2Gi") as queue:
        small = {"memory": "224Mi", "max_memory": "1Gi", "queue": queue}  # it takes 260
        document = place.turn(place.recipe({"placement": {"evaluate": small}}), "2022-05-06")
        (evaluate,) = [step for step in document["report"]["steps"] if step["name"] == "evaluate"]
        print(f"{document['report']['outcome']}; evaluate: {evaluate}")
        assert second_pods(RUNS) == [], "the run has swept what it started"

    assert document["report"]["outcome"] in ("bootstrap", "promoted", "rolled_back", "rejected")
    assert (evaluate["status"], evaluate["memory_bytes"]) == ("succeeded", 448 * 2**20)
    assert document["report"]["verdicts"]["evaluate"]["reasons"]


def test_5_the_built_in_world_lives_in_pods_too(place: Wheel) -> None:
    document = place.turn(place.world(), "2026-01-12")
    print(f"{document['report']['outcome']}: {document['report']['reason']}")
    assert document["report"]["outcome"] == "bootstrap"
