"""The judge of a step: absence is not consent."""

from __future__ import annotations

from typing import Any

from tests.helm.chart import needs_helm, render

pytestmark = needs_helm


def template(values: dict[str, Any] | None = None) -> dict[str, Any]:
    return render(values)["AnalysisTemplate", "feed-ranker-serving-verdict"]["spec"]


def job(values: dict[str, Any] | None = None) -> dict[str, Any]:
    (metric,) = template(values)["metrics"]
    return metric["provider"]["job"]["spec"]


def test_one_measurement_and_no_failure_is_forgiven() -> None:
    (metric,) = template()["metrics"]

    assert {name: metric[name] for name in ("count", "failureLimit", "inconclusiveLimit", "consecutiveErrorLimit")} == {
        "count": 1,
        "failureLimit": 0,  # 1 would be fail-open: one failure is not more than one, and the count is reached
        "inconclusiveLimit": 0,
        "consecutiveErrorLimit": 4,  # of Jobs that a controller did not find: it measures again, and no error is a pass
    }
    assert "successCondition" not in metric
    assert "dryRun" not in template()


def test_no_argument_has_a_default() -> None:
    assert template()["args"] == [{"name": "step"}, {"name": "canary"}, {"name": "revision"}]


def test_a_verdict_ends_the_job_and_a_judge_that_could_not_judge_is_tried_again() -> None:
    spec = job()

    assert spec["podFailurePolicy"]["rules"] == [
        {"action": "FailJob", "onExitCodes": {"containerName": "judge", "operator": "In", "values": [4]}},
        {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
    ]
    assert spec["template"]["spec"]["restartPolicy"] == "Never"
    assert spec["backoffLimit"] == 6
    assert spec["template"]["spec"]["containers"][0]["name"] == "judge"


def test_a_judge_that_says_nothing_ends_after_the_longest_step() -> None:
    steps = [{"share": 0.1, "maxSeconds": 9000000}, {"share": 0.5, "maxSeconds": 60}]

    assert job({"rollout": {"steps": steps, "analysis": {"slackSeconds": 100}}})["activeDeadlineSeconds"] == 9000100


def test_the_judge_is_told_whom_to_compare() -> None:
    (judge,) = job()["template"]["spec"]["containers"]

    assert judge["command"] == ["tidewheel", "rollout", "judge"]
    assert " ".join(judge["args"]) == (
        "--canary {{args.canary}} --step {{args.step}} --revision {{args.revision}} "
        "--candidate http://feed-ranker-serving-canary.ranking:80 --production http://feed-ranker-serving-stable.ranking:80"
    )


def test_the_judge_has_the_servers_store_and_rights() -> None:
    values = {
        "store": {"url": "/store", "claim": "shared", "secretName": "credentials"},
        "extraEnv": [{"name": "A", "value": "b"}],
    }
    found = render(values)
    server = found["Rollout", "feed-ranker-serving"]["spec"]["template"]["spec"]
    judge = found["AnalysisTemplate", "feed-ranker-serving-verdict"]["spec"]["metrics"][0]["provider"]["job"]["spec"][
        "template"
    ]["spec"]

    for part in ("volumes", "securityContext", "serviceAccountName", "automountServiceAccountToken"):
        assert judge[part] == server[part]
    for part in ("image", "envFrom", "volumeMounts", "securityContext"):
        assert judge["containers"][0][part] == server["containers"][0][part]
    assert judge["containers"][0]["env"] == [
        {"name": "TIDEWHEEL_STORE", "value": "/store"},
        {"name": "TIDEWHEEL_HOME", "value": "/tmp/home"},
        {"name": "A", "value": "b"},
    ]


def test_it_renders_nothing_when_disabled() -> None:
    assert "AnalysisTemplate" not in {kind for kind, _ in render({"rollout": {"enabled": False}})}
