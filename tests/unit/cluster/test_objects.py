"""What a cluster has of runs, as an API server tells of it."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import pytest

from tests.unit.cluster.well import several
from tidewheel.cluster.api import Answer, RememberedApi, Unseen, Why
from tidewheel.cluster.objects import OnCluster, gathered
from tidewheel.cluster.reach import Reach
from tidewheel.contracts.target import ArgoTarget
from tidewheel.errors import RetryableError

AT_WORK = (
    "/api/v1/pods?labelSelector=app.kubernetes.io%2Fpart-of%3Dtidewheel"
    "&fieldSelector=status.phase%21%3DSucceeded%2Cstatus.phase%21%3DFailed&limit=500"
)
FORBIDDEN = Unseen(Why.FORBIDDEN, "ada may not list pods")
ROLLOUT = "/apis/argoproj.io/v1alpha1/namespaces/serving/rollouts/feed"


def of_runs(group: str, plural: str, label: str, *run_ids: str) -> str:
    return f"{group}/{plural}?labelSelector={quote(label, safe='')}+in+%28{'%2C'.join(run_ids)}%29&limit=500"


def thing(name: str, status: dict[str, Any], **labels: str) -> dict[str, Any]:
    named = {label.replace("__", "/").replace("_", "-"): value for label, value in labels.items()}
    return {"metadata": {"uid": name, "name": name, "namespace": "runs", "labels": named}, "status": status}


def gather(answers: dict[str, Answer], *known: str, targets: dict[str, ArgoTarget] | None = None) -> OnCluster:
    return gathered(Reach(RememberedApi(answers), ["runs"]), "here", known, targets or {})


def test_each_run_is_shown_with_its_objects_however_many_there_are() -> None:
    ingest = thing("a-ingest", {"phase": "Succeeded"}, pipeline__runid="a", tidewheel__step="ingest")
    train = thing("b-train", {"phase": "Running"}, pipeline__runid="b", tidewheel__run_id="b", tidewheel__step="train")
    child = thing("b-ray", {"jobDeploymentStatus": "Running", "jobStatus": "PENDING"}, tidewheel__run_id="b")
    judge = thing("a-judge", {"conditions": [{"type": "Complete", "status": "True"}]}, tidewheel__run_id="a")
    retrain = thing("a", {"outcome": "promoted", "step": "deploy", "verdict": "deploy: Successful"}, tidewheel__run_id="a")

    found = gather(
        {
            AT_WORK: several(train),
            of_runs("/api/v1", "pods", "pipeline/runid", "b", "a"): several(ingest, train),
            of_runs("/api/v1", "pods", "tidewheel/run-id", "b", "a"): several(train),
            of_runs("/apis/ray.io/v1", "rayjobs", "tidewheel/run-id", "b", "a"): several(child),
            of_runs("/apis/batch/v1", "jobs", "tidewheel/run-id", "b", "a"): several(judge),
            of_runs("/apis/tidewheel.dev/v1alpha1", "retrains", "tidewheel/run-id", "b", "a"): several(retrain),
        },
        "no-label-" * 9,
        "a",
    )

    assert {run: [f"{seen.kind} {seen.name}: {seen.state}" for seen in objects] for run, objects in found.runs.items()} == {
        "a": ["Retrain a: promoted, deploy, deploy: Successful", "Job a-judge: Complete", "Pod a-ingest: ingest Succeeded"],
        "b": ["RayJob b-ray: Running PENDING", "Pod b-train: train Running"],
    }
    assert found.unseen == ()


def test_a_pod_that_does_not_start_says_why() -> None:
    condition = {"type": "PodScheduled", "status": "False", "message": "0/1 nodes have a GPU"}
    waiting = thing("a-train", {"phase": "Pending", "conditions": [condition]}, pipeline__runid="a")

    found = gather({AT_WORK: several(), of_runs("/api/v1", "pods", "pipeline/runid", "a"): several(waiting)}, "a")

    assert found.runs["a"][0].state == "Pending, pod a-train is not scheduled: 0/1 nodes have a GPU"


def test_the_workload_that_production_is_served_by_is_shown() -> None:
    rollout = {"spec": {"replicas": 3}, "status": {"phase": "Healthy", "readyReplicas": 2}}
    target = ArgoTarget(kind="argo", namespace="serving", name="feed")

    found = gather({AT_WORK: several(), ROLLOUT: rollout}, targets={"feed": target})
    hidden = gather({AT_WORK: several(), ROLLOUT: FORBIDDEN}, targets={"feed": target})

    assert [seen.state for seen in found.targets] == ["Healthy, 2 of 3 pods ready, serves feed"]
    assert [seen.state for seen in hidden.targets] == ["not seen: ada may not list pods"]


def test_what_may_not_be_seen_is_said_and_the_rest_is_shown() -> None:
    retrain = thing("a", {"outcome": "running"}, tidewheel__run_id="a")
    answers: dict[str, Answer] = {AT_WORK: FORBIDDEN}
    answers |= {of_runs("/api/v1", "pods", label, "a"): FORBIDDEN for label in ("pipeline/runid", "tidewheel/run-id")}
    answers[of_runs("/apis/tidewheel.dev/v1alpha1", "retrains", "tidewheel/run-id", "a")] = several(retrain)

    found = gather(answers, "a")

    assert found.unseen == ("pods: ada may not list pods",)
    assert [seen.state for seen in found.runs["a"]] == ["running"]


def test_a_cluster_that_does_not_answer_is_one_line() -> None:
    with pytest.raises(RetryableError, match="context here: refused; tidewheel doctor --cluster"):
        gather({AT_WORK: Unseen(Why.SILENT, "refused")}, "a")


def test_of_more_runs_than_one_question_holds_the_newest_are_asked_for() -> None:
    newest = [f"r{number}" for number in range(149, 49, -1)]
    pod = thing("p", {"phase": "Succeeded"}, pipeline__runid="r149")
    answers = {AT_WORK: several(), of_runs("/api/v1", "pods", "pipeline/runid", *newest): several(pod)}

    found = gather(answers, *(f"r{number}" for number in range(150)))

    assert list(found.runs) == ["r149"]
    assert found.unseen == ("objects of 50 older runs: 100 are asked for at once",)
