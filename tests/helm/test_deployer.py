"""Whoever runs the deploy step may patch one object and read nothing else."""

from __future__ import annotations

from tests.helm.chart import needs_helm, render

pytestmark = needs_helm
RUNNER = {"serviceAccounts": [{"name": "pipeline-runner", "namespace": "kubeflow"}]}
NAME = "feed-ranker-serving-deployer"


def test_it_may_patch_this_rollout_and_its_status() -> None:
    rules = render({"deployer": RUNNER})["Role", NAME]["rules"]

    assert rules == [
        {
            "apiGroups": ["argoproj.io"],
            "resources": ["rollouts"],
            "resourceNames": ["feed-ranker-serving"],
            "verbs": ["get", "list", "watch", "patch"],
        },
        {
            "apiGroups": ["argoproj.io"],
            "resources": ["rollouts/status"],
            "resourceNames": ["feed-ranker-serving"],
            "verbs": ["patch"],
        },
    ]


def test_in_plain_mode_it_may_patch_the_deployment() -> None:
    (rule,) = render({"deployer": RUNNER, "rollout": {"enabled": False}})["Role", NAME]["rules"]

    assert (rule["apiGroups"], rule["resources"], rule["resourceNames"]) == (["apps"], ["deployments"], ["feed-ranker-serving"])


def test_the_role_is_bound_to_those_who_were_named() -> None:
    binding = render({"deployer": RUNNER})["RoleBinding", NAME]

    assert binding["subjects"] == [{"kind": "ServiceAccount", "name": "pipeline-runner", "namespace": "kubeflow"}]
    assert binding["roleRef"]["name"] == NAME


def test_it_renders_nothing_when_nobody_is_named() -> None:
    assert not {"Role", "RoleBinding"} & {kind for kind, _ in render()}
