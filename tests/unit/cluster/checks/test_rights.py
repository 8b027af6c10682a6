"""A missing verb is named with its resource, and with the rule that gives it."""

from __future__ import annotations

import pytest

from tests.unit.cluster.well import ROLLOUT, resources, seen, sick
from tidewheel.cluster.checks.rights import rules
from tidewheel.cluster.doctor import asked
from tidewheel.cluster.needs import Right
from tidewheel.contracts.target import DeploymentTarget, EmbeddedTarget

LOOKING = frozenset({"list pods", "get pods", "list events", "list rayjobs"})
DEPLOYMENT = DeploymentTarget(kind="deployment", namespace="serving", name="feed")
USERS = {"/apis/kubeflow.org/v1": resources("profiles")}


def test_an_account_without_rights_is_told_every_verb_and_the_rule() -> None:
    (finding,) = sick(allowed=frozenset())

    assert finding.name == "rights of status"
    assert finding.is_in_the_way
    assert finding.found == "may not in namespace runs: list pods; get pods/log; list events; list rayjobs.ray.io"
    assert '{apiGroups: ["ray.io"], resources: [rayjobs], verbs: [list]}' in finding.remedy


def test_an_account_that_may_look_and_not_roll_back_is_sent_to_the_chart() -> None:
    (finding,) = sick(target=ROLLOUT, allowed=LOOKING | {"get rollouts"})

    assert finding.name == "rights of rollback"
    assert finding.found == ("may not in namespace serving: patch rollouts.argoproj.io; patch rollouts.argoproj.io/status")
    assert finding.remedy.startswith("name this account in deployer.serviceAccounts of the chart ranker-serving")


def test_a_deployment_is_asked_for_where_production_is_one() -> None:
    (finding,) = sick(target=DEPLOYMENT, allowed=LOOKING)

    assert finding.found == "may not in namespace serving: get deployments.apps; patch deployments.apps"


def test_submitting_needs_rights_only_where_kubeflow_has_users() -> None:
    assert sick(allowed=LOOKING) == []

    (finding,) = sick(USERS, allowed=LOOKING)

    assert finding.name == "rights of submit"
    assert "create runs.pipelines.kubeflow.org" in finding.found


def test_servers_that_follow_the_store_need_no_right() -> None:
    assert sick(target=EmbeddedTarget(), allowed=LOOKING) == []


def test_the_table_has_every_verb_that_was_asked_for() -> None:
    table = asked(seen(target=ROLLOUT, allowed=frozenset({"get rollouts"})))

    assert {(row.verb, row.resource): row.is_allowed for row in table if row.use == "rollback"} == {
        ("get", "rollouts.argoproj.io"): True,
        ("patch", "rollouts.argoproj.io"): False,
        ("patch", "rollouts.argoproj.io/status"): False,
    }


@pytest.mark.parametrize(
    ("resources_and_verbs", "want"),
    [
        ([("pods", "list"), ("pods", "get")], ['{apiGroups: [""], resources: [pods], verbs: [list, get]}']),
        ([("pods/log", "get")], ['{apiGroups: [""], resources: [pods/log], verbs: [get]}']),
        ([("a.b.c/status", "patch")], ['{apiGroups: ["b.c"], resources: [a/status], verbs: [patch]}']),
    ],
)
def test_rules_stand_as_in_a_role(resources_and_verbs: list[tuple[str, str]], want: list[str]) -> None:
    assert rules(Right("status", verb, resource, "runs") for resource, verb in resources_and_verbs) == want
