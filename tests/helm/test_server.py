"""Servers: what runs, as whom, who reaches them, how they leave."""

from __future__ import annotations

import re
from typing import Any

import pytest

from tests.helm.chart import container, needs_helm, render
from tidewheel.serving.options import parser

pytestmark = needs_helm
ROLLOUT = ("Rollout", "feed-ranker-serving")
DEPLOYMENT = ("Deployment", "feed-ranker-serving")
PLAIN: dict[str, Any] = {"rollout": {"enabled": False}}
DIGEST = "297be53d" + "0" * 56


@pytest.mark.parametrize(("values", "key"), [({}, ROLLOUT), (PLAIN, DEPLOYMENT)])
def test_before_the_first_release_nothing_starts(values: dict[str, Any], key: tuple[str, str]) -> None:
    workload = render(values)[key]

    assert workload["spec"]["paused"] is True
    assert container(workload)["env"][0] == {"name": "TIDEWHEEL_BUNDLE", "value": ""}


def test_argo_rollouts_does_not_see_a_rollout_without_a_bundle() -> None:
    """It would take the paused, empty revision for the stable one, and compare the first bundle with it."""
    label = "argo-rollouts.argoproj.io/controller-instance-id"
    before, after = render()[ROLLOUT], render({"bundle": DIGEST})[ROLLOUT]

    assert before["metadata"]["labels"][label] == "unreleased"
    assert label not in after["metadata"]["labels"]
    assert label not in before["spec"]["template"]["metadata"]["labels"]


@pytest.mark.parametrize(("values", "key"), [({}, ROLLOUT), (PLAIN, DEPLOYMENT)])
def test_a_first_bundle_is_served(values: dict[str, Any], key: tuple[str, str]) -> None:
    workload = render({**values, "bundle": DIGEST})[key]

    assert workload["spec"]["paused"] is False
    assert container(workload)["env"][0] == {"name": "TIDEWHEEL_BUNDLE", "value": DIGEST}


@pytest.mark.parametrize(("values", "key"), [({}, ROLLOUT), (PLAIN, DEPLOYMENT)])
def test_the_pod_can_do_nothing_but_serve(values: dict[str, Any], key: tuple[str, str]) -> None:
    pod = render(values)[key]["spec"]["template"]["spec"]
    (server,) = pod["containers"]

    assert pod["automountServiceAccountToken"] is False
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["runAsUser"] == 10001
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert server["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert [(each["name"], each["mountPath"]) for each in server["volumeMounts"]] == [("cache", "/cache"), ("tmp", "/tmp")]


def test_the_server_has_time_to_leave() -> None:
    pod = render()[ROLLOUT]["spec"]["template"]["spec"]
    arguments = container(render()[ROLLOUT])["args"]
    drain_seconds = float(arguments[arguments.index("--drain-seconds") + 1])

    assert pod["terminationGracePeriodSeconds"] >= drain_seconds + 15  # docs/serving.md, Leaving
    assert "lifecycle" not in pod["containers"][0]


def test_the_limits_are_options_of_the_server() -> None:
    limits = {"maxBodyBytes": 8388608, "maxCandidates": 100, "maxWaiting": 8, "maxWaitingBytes": 67108864, "maxConnections": 90}
    seconds = {"headerSeconds": 1.5, "bodySeconds": 2, "waitSeconds": 0.25, "idleSeconds": 30}
    arguments = container(render({"server": {"limits": {**limits, **seconds}}})[ROLLOUT])["args"]
    ours = arguments[arguments.index("--drain-seconds") + 2 :]

    options = parser().parse_args(ours)

    found = {name: getattr(options, re.sub("([A-Z])", r"_\1", name).lower()) for name in (*limits, *seconds)}
    assert found == {**limits, **seconds}


def test_credentials_come_by_reference_only() -> None:
    server = container(render({"store": {"url": "s3://bucket", "secretName": "store-credentials"}})[ROLLOUT])

    assert server["envFrom"] == [{"secretRef": {"name": "store-credentials"}}]
    assert not [key for key in render() if key[0] == "Secret"]


def test_a_store_on_a_volume_is_mounted() -> None:
    values = {"store": {"url": "/data/store", "claim": "shared", "mountPath": "/data"}}
    rollout = render(values)[ROLLOUT]

    assert {"name": "store", "mountPath": "/data"} in container(rollout)["volumeMounts"]
    volumes = rollout["spec"]["template"]["spec"]["volumes"]
    assert {"name": "store", "persistentVolumeClaim": {"claimName": "shared"}} in volumes


def test_an_image_by_digest_wins_over_its_tag() -> None:
    digest = "sha256:" + "1" * 64
    image = {"repository": "registry.example/tidewheel/python-serving", "tag": "0.1.0", "digest": digest}

    assert container(render({"image": image})[ROLLOUT])["image"] == f"registry.example/tidewheel/python-serving@{digest}"
    assert container(render()[ROLLOUT])["image"] == "tidewheel/python-serving:0.1.0"


@pytest.mark.parametrize(
    ("share", "weight"), [(0.001, 1), (0.05, 5), (0.07, 7), (0.29, 29), (0.295, 30), (0.57, 57), (0.58, 58), (1, 100)]
)
def test_a_share_is_never_rounded_down(share: float, weight: int) -> None:
    steps = render({"rollout": {"steps": [{"share": share, "maxSeconds": 60}]}})[ROLLOUT]["spec"]["strategy"]["canary"]["steps"]

    assert steps[0] == {"setWeight": weight}


def test_every_share_is_followed_by_its_judgement() -> None:
    canary = render()[ROLLOUT]["spec"]["strategy"]["canary"]
    first, second = canary["steps"][1]["analysis"], canary["steps"][3]["analysis"]

    assert [list(step) for step in canary["steps"]] == [["setWeight"], ["analysis"]] * 2
    assert first["templates"] == second["templates"] == [{"templateName": "feed-ranker-serving-verdict"}]
    assert [each["args"][0] for each in (first, second)] == [{"name": "step", "value": "1"}, {"name": "step", "value": "2"}]
    assert first["args"][1:] == [
        {"name": "canary", "valueFrom": {"fieldRef": {"fieldPath": "metadata.annotations['tidewheel/canary']"}}},
        {"name": "revision", "valueFrom": {"podTemplateHashValue": "Latest"}},
    ]


def test_a_rollout_takes_no_server_away_and_gives_up_in_time() -> None:
    spec = render()[ROLLOUT]["spec"]

    assert spec["strategy"]["canary"]["maxUnavailable"] == 0
    assert spec["progressDeadlineAbort"] is True
    assert render(PLAIN)[DEPLOYMENT]["spec"]["strategy"]["rollingUpdate"]["maxUnavailable"] == 0


def test_a_traffic_router_is_passed_on() -> None:
    router = {"nginx": {"stableIngress": "feed"}}

    assert render({"rollout": {"trafficRouting": router}})[ROLLOUT]["spec"]["strategy"]["canary"]["trafficRouting"] == router
    assert "trafficRouting" not in render()[ROLLOUT]["spec"]["strategy"]["canary"]


def test_services_choose_the_servers_and_no_judge() -> None:
    found = render()
    pod = found[ROLLOUT]["spec"]["template"]["metadata"]["labels"]
    judge = found["AnalysisTemplate", "feed-ranker-serving-verdict"]["spec"]["metrics"][0]["provider"]["job"]["spec"][
        "template"
    ]
    names = [name for kind, name in found if kind == "Service"]

    assert names == ["feed-ranker-serving", "feed-ranker-serving-stable", "feed-ranker-serving-canary"]
    for name in names:
        selector = found["Service", name]["spec"]["selector"]
        assert selector.items() <= pod.items()
        assert not selector.items() <= judge["metadata"]["labels"].items()


def test_an_upgrade_of_the_chart_alone_is_no_new_revision() -> None:
    """For Argo Rollouts another pod template is another revision: it would begin a canary, or end one."""
    rollout = render()[ROLLOUT]

    assert "helm.sh/chart" in rollout["metadata"]["labels"]
    assert "helm.sh/chart" not in rollout["spec"]["template"]["metadata"]["labels"]
    assert "app.kubernetes.io/version" not in rollout["spec"]["template"]["metadata"]["labels"]


def test_plain_mode_needs_nothing_of_argo_rollouts() -> None:
    found = render(PLAIN)

    assert {each["apiVersion"] for each in found.values()} == {"apps/v1", "networking.k8s.io/v1", "policy/v1", "v1"}
    assert [name for kind, name in found if kind == "Service"] == ["feed-ranker-serving"]
    assert [name for kind, name in found if kind == "NetworkPolicy"] == ["feed-ranker-serving"]


@pytest.mark.parametrize(("values", "key"), [({}, ROLLOUT), (PLAIN, DEPLOYMENT)])
def test_the_autoscaler_owns_the_number_of_servers(values: dict[str, Any], key: tuple[str, str]) -> None:
    found = render({**values, "autoscaling": {"enabled": True}})
    target = found["HorizontalPodAutoscaler", "feed-ranker-serving"]["spec"]["scaleTargetRef"]

    assert "replicas" not in found[key]["spec"]
    assert target == {"apiVersion": found[key]["apiVersion"], "kind": key[0], "name": key[1]}
    assert render(values)[key]["spec"]["replicas"] == 3


SWITCHES: dict[str, dict[str, Any]] = {
    "PodDisruptionBudget": {"podDisruptionBudget": {"enabled": False}},
    "NetworkPolicy": {"networkPolicy": {"enabled": False}},
    "ServiceAccount": {"serviceAccount": {"create": False}},
}


@pytest.mark.parametrize("kind", SWITCHES)
def test_it_renders_nothing_when_disabled(kind: str) -> None:
    assert kind in {kind for kind, _ in render()}
    assert kind not in {kind for kind, _ in render(SWITCHES[kind])}


def test_without_a_service_account_of_its_own_the_default_one_serves() -> None:
    pods = render({"serviceAccount": {"create": False}})[ROLLOUT]["spec"]["template"]["spec"]
    named = render({"serviceAccount": {"create": False, "name": "ranker"}})[ROLLOUT]["spec"]["template"]["spec"]

    assert (pods["serviceAccountName"], named["serviceAccountName"]) == ("default", "ranker")


def test_the_judge_reaches_servers_that_few_may_ask() -> None:
    ingress = [{"podSelector": {"matchLabels": {"app": "feed"}}}]
    found = render({"networkPolicy": {"ingress": {"from": ingress}}})
    rules = found["NetworkPolicy", "feed-ranker-serving"]["spec"]["ingress"]
    judge = found["NetworkPolicy", "feed-ranker-serving-judge"]["spec"]

    assert rules[0] == {"ports": [{"port": 8080, "protocol": "TCP"}], "from": ingress}
    assert rules[1]["from"] == [{"podSelector": judge["podSelector"]}]
    assert judge["ingress"] == []


def test_servers_reach_names_and_the_store_and_nothing_else() -> None:
    dns = {"ports": [{"port": 53, "protocol": "UDP"}, {"port": 53, "protocol": "TCP"}]}
    store = {"to": [{"ipBlock": {"cidr": "10.0.0.0/8"}}], "ports": [9000]}

    def egress(values: dict[str, Any]) -> list[dict[str, Any]]:
        return render({"networkPolicy": {"egress": values}})["NetworkPolicy", "feed-ranker-serving"]["spec"]["egress"]

    assert egress({"store": store}) == [dns, {"ports": [{"port": 9000, "protocol": "TCP"}], "to": store["to"]}]
    assert egress({"store": {"ports": []}}) == [dns]


def test_every_object_says_whose_it_is() -> None:
    everything = {"autoscaling": {"enabled": True}, "deployer": {"serviceAccounts": [{"name": "a", "namespace": "b"}]}}
    for each in render(everything).values():
        labels = each["metadata"]["labels"]
        assert labels["app.kubernetes.io/instance"] == "feed"
        assert labels["app.kubernetes.io/part-of"] == "tidewheel"
        assert labels["tidewheel/recipe"] == "feed"
