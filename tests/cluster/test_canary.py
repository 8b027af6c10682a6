"""Canaries on a real cluster: a Rollout of the chart, live traffic, judges in Jobs, the ledger in a bucket."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import yaml

from tests.canaries import Setting, setting
from tests.cluster import users
from tests.cluster.bucket import BUCKET, bucket
from tests.cluster.kubectl import NAME, eventually, get, has_rollouts, kubectl, new_namespace, require_cluster
from tests.conftest import TinyRun
from tests.e2e.command import PROGRAM, QUICKSTART
from tests.helm.chart import CHART, HELM, helm
from tidewheel import __version__
from tidewheel.contracts.ledger import Decision
from tidewheel.contracts.offer import CanaryOffer
from tidewheel.contracts.recipe import Recipe
from tidewheel.contracts.rollout import CanaryResult
from tidewheel.contracts.schema import FeatureKind, FeatureSpec
from tidewheel.contracts.target import ArgoTarget
from tidewheel.contracts.verdict import Phase
from tidewheel.ranker import load_bundle
from tidewheel.registry.state import state_of
from tidewheel.rollout.workload import Workload
from tidewheel.steps.offers import publish
from tidewheel.steps.served import follow, followed, tried_in_steps
from tidewheel.store import Store

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(1800)]

# What `deploy` does after it offered, in a process that can be killed.
DEPLOY = """
import os, sys
from pathlib import Path
from tidewheel.contracts.offer import CanaryOffer
from tidewheel.registry.ledger import Ledger
from tidewheel.steps.served import tried_in_steps
from tidewheel.store import Store
offer = CanaryOffer.parse(Path(sys.argv[2]).read_text(), "offer")
ledger = Ledger(Store.open(sys.argv[1]), offer.part.recipe)
told = lambda share, words: print(words, flush=True)
print(tried_in_steps(offer.part.deploy.target, offer, ledger, False, told).verdict.phase.value)
"""


@dataclass(frozen=True)
class Place:
    """A release of the chart in a namespace of its own, whose bundles lie in a bucket."""

    namespace: str
    variables: Mapping[str, str]
    url: str
    made: Setting

    @property
    def target(self) -> ArgoTarget:
        target = self.made.part.deploy.target
        assert isinstance(target, ArgoTarget)
        return target

    @property
    def image(self) -> str:
        return f"{os.environ.get('TIDEWHEEL_REGISTRY', 'registry.local')}/tidewheel/python-serving:{__version__}"

    def columns(self) -> dict[str, Any]:
        """A request of three candidates, as `users` send it."""
        features = load_bundle(self.made.store, self.made.production).manifest.features
        return {name: _column(feature) for feature in features for name in feature.columns}

    def ask(self) -> None:
        users.start(self.namespace, self.image, f"http://{NAME}.{self.namespace}:80", self.columns())

    def bundles(self) -> set[str]:
        """What the pods that are ready serve."""
        pods = get(self.namespace, "pods", "--selector=app.kubernetes.io/component=server")["items"]
        ready = [pod for pod in pods if _is_ready(pod)]
        return {pod["spec"]["containers"][0]["env"][0]["value"] for pod in ready}

    def try_out(self, offer: CanaryOffer) -> CanaryResult:
        return tried_in_steps(self.target, offer, self.made.ledger, is_closed_loop=False)


@pytest.fixture(scope="module")
def place(
    tiny_run: TinyRun, make_rows: Callable[[Recipe, int, int], pa.Table], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Place]:
    require_cluster()
    if not HELM:
        pytest.skip("no helm: set $HELM or put it on the PATH")
    if not has_rollouts():
        pytest.skip("the cluster has no Argo Rollouts")
    namespace = new_namespace("tidewheel-canary")
    with bucket() as variables:
        target = ArgoTarget(kind="argo", namespace=namespace, name=NAME, start_seconds=300)
        url = f"s3://{BUCKET}/{namespace}"
        made = setting(Store.open(url, tmp_path_factory.mktemp("cache")), tiny_run, make_rows, target)
        secrets = [f"--from-literal={name}={value}" for name, value in variables.items()]
        kubectl("--namespace", namespace, "create", "secret", "generic", "store", *secrets)
        found = Place(namespace, variables, url, made)
        repository, _, tag = found.image.rpartition(":")
        small = {"requests": {"cpu": "10m", "memory": "128Mi"}}
        values = {
            "recipe": made.part.recipe,
            "image": {"repository": repository, "tag": tag, "pullPolicy": "Always"},
            "store": {"url": url, "secretName": "store"},
            "replicas": 3,
            "resources": small,
            "rollout": {
                "steps": [{"share": step.share, "maxSeconds": 900} for step in made.part.deploy.steps],
                "analysis": {"resources": small},
            },
            "networkPolicy": {"enabled": False},
        }
        done = helm("install", "feed", CHART, "--namespace", namespace, values=values)
        assert done.returncode == 0, done.stderr
        yield found
        helm("uninstall", "feed", "--namespace", namespace, "--wait")
        kubectl("delete", "namespace", namespace, "--wait=false")


def test_1_the_first_release_starts_the_pods(place: Place) -> None:
    made = place.made
    assert place.bundles() == set()
    made.bootstrap(place.target)
    publish(made.store, offer := made.offer(made.production, "first"))
    (said,) = follow(made.ledger, offer.key)
    assert "serves " + made.production[:12] in said
    assert place.bundles() == {made.production}
    assert follow(made.ledger) == []  # nothing left to do


def test_1b_doctor_says_where_production_is_served_and_what_is_not_well(place: Place, tmp_path: Path) -> None:
    recipe = yaml.safe_load(QUICKSTART.read_text(encoding="utf-8"))
    steps = [{"share": step.share, "min_requests": 60, "max_requests": 600} for step in place.made.part.deploy.steps]

    def looked(name: str, shares: int) -> dict[str, dict[str, Any]]:
        target = {"kind": "argo", "namespace": place.namespace, "name": name}
        recipe["deploy"] |= {"target": target, "steps": steps[:shares]}
        path = tmp_path / "recipe.yaml"
        path.write_text(yaml.safe_dump(recipe), encoding="utf-8")
        command = [*PROGRAM, "doctor", "--recipe", str(path), "--home", str(tmp_path / "home"), "--json"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        return {check["name"]: check for check in json.loads(done.stdout)["checks"]}

    well = looked(NAME, 2)
    assert all(well[name]["is_well"] for name in ("target", "rights", "steps")), well
    assert place.made.production[:12] in well["target"]["found"]
    assert "upgrade the chart" in looked(NAME, 1)["steps"]["found"]
    assert "is not there; install the chart" in looked("nobody", 2)["target"]["found"]


def test_2_a_harmful_candidate_is_aborted_under_live_traffic_and_no_request_is_lost(place: Place) -> None:
    made = place.made
    place.ask()
    offer = made.offer(made.harmful, "harmful")
    began = time.monotonic()
    result = place.try_out(offer)
    print(f"harmful: {result.verdict.phase} after {time.monotonic() - began:.0f} s; {result.verdict.explain()[:300]}")
    assert result.verdict.phase is Phase.FAILED
    *_, entry = made.ledger.entries()  # by the judge, before anybody else came to it
    assert (entry.decision, entry.run_id, entry.production) == (Decision.ROLLED_BACK, "harmful", made.production)
    assert entry.reason.endswith(result.verdict.explain())
    assert Workload(place.target).standing().is_aborted
    followed(made.ledger)
    now = Workload(place.target).standing()
    assert (now.bundle, now.is_settled, now.is_aborted) == (made.production, True, False)
    assert eventually(place.bundles, lambda found: found == {made.production}, 60) == {made.production}
    time.sleep(20)
    counted = users.stop(place.namespace)
    print(f"harmful: {counted.requests} requests, answered by {counted.answered}, lost {counted.lost}")
    assert counted.lost == {}
    assert counted.answered[made.harmful] > 0
    assert set(counted.last) == {made.production}


def test_3_a_deploy_that_is_killed_changes_nothing_of_that(place: Place, tmp_path: Path) -> None:
    made = place.made
    offer = made.offer(made.harmful, "killed")
    (tmp_path / "offer.json").write_text(offer.to_json(), encoding="utf-8")
    child = subprocess.Popen(
        [sys.executable, "-c", DEPLOY, place.url, str(tmp_path / "offer.json")], stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    for line in child.stdout:
        if "step 1 of 2" in line:
            break
    child.kill()
    child.wait()
    entries = eventually(made.ledger.entries, lambda found: found[-1].run_id == "killed", 300)
    assert (entries[-1].decision, entries[-1].run_id) == (Decision.ROLLED_BACK, "killed")
    aborted = eventually(Workload(place.target).standing, lambda standing: standing.is_aborted, 60)
    assert aborted.is_aborted
    assert place.try_out(offer).verdict.phase is Phase.FAILED  # started again, and nobody gets it again
    assert Workload(place.target).standing().is_aborted
    followed(made.ledger)
    assert made.ledger.last_number() == len(entries)


def test_4_an_equal_candidate_is_promoted_although_its_judge_is_killed(place: Place, tmp_path: Path) -> None:
    made = place.made
    place.ask()
    offer = made.offer(made.equal, "equal")
    (tmp_path / "offer.json").write_text(offer.to_json(), encoding="utf-8")
    command = [sys.executable, "-c", DEPLOY, place.url, str(tmp_path / "offer.json")]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    judges = eventually(lambda: _judges(place.namespace), bool, 300)
    kubectl("--namespace", place.namespace, "delete", "pod", judges[0], "--grace-period=0", "--force")
    said, _ = child.communicate(timeout=900)
    assert said.splitlines()[-1] == "Successful", said
    *_, entry = made.ledger.entries()
    assert (entry.decision, entry.production) == (Decision.PROMOTED, made.equal)
    assert eventually(place.bundles, lambda found: found == {made.equal}, 60) == {made.equal}
    counted = users.stop(place.namespace)
    print(f"equal: {counted.requests} requests, answered by {counted.answered}, lost {counted.lost}")
    assert counted.lost == {}
    assert set(counted.last) == {made.equal}


def test_5_a_rollback_by_hand_skips_the_canary(place: Place, tmp_path: Path) -> None:
    made = place.made
    place.ask()
    environment = {**os.environ, "TIDEWHEEL_STORE": place.url}
    began = time.monotonic()
    (tmp_path / "home").mkdir()
    command = [*PROGRAM, "rollback", "--reason", "a test", "--json", "--home", str(tmp_path / "home")]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    print(f"rollback: {time.monotonic() - began:.0f} s")
    (said,) = json.loads(done.stdout)["served"]
    assert made.production[:12] in said
    assert eventually(place.bundles, lambda found: found == {made.production}, 60) == {made.production}
    state = state_of(made.ledger)
    assert state is not None
    assert state.production == made.production
    counted = users.stop(place.namespace)
    print(f"rollback: {counted.requests} requests, answered by {counted.answered}, lost {counted.lost}")
    assert counted.lost == {}


def test_6_what_was_promoted_by_hand_is_taken_back(place: Place) -> None:
    """Somebody skips the analysis: absence is not consent."""
    made = place.made
    offer = made.offer(made.equal, "skipped")
    publish(made.store, offer)
    workload = Workload(place.target)
    workload.offer(made.equal, offer.key)
    workload.serve(made.equal)
    result = place.try_out(offer)
    assert result.verdict.phase is Phase.ERROR
    assert "without a verdict" in result.verdict.explain()


def _judges(namespace: str) -> list[str]:
    """Names of judges at work."""
    pods = get(namespace, "pods", "--selector=app.kubernetes.io/component=judge")["items"]
    return [pod["metadata"]["name"] for pod in pods if _is_ready(pod)]


def _is_ready(pod: dict[str, Any]) -> bool:
    conditions = pod["status"].get("conditions", ())
    is_ready = any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)
    return is_ready and "deletionTimestamp" not in pod["metadata"]


def _column(feature: FeatureSpec) -> tuple[str, list[Any]]:
    count = 3 if feature.entity == "item" else 1
    if feature.kind is FeatureKind.NUMERIC:
        return "float", [1.0] * count
    is_text = feature.kind is FeatureKind.VOCABULARY and feature.dtype == "string"
    return ("text", ["a"] * count) if is_text else ("int", list(range(1, count + 1)))
