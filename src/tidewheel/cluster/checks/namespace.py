"""Whether the namespace of runs is there, lets their pods in, and holds what they need."""

from __future__ import annotations

from tidewheel.cluster.api import Unseen, Why, items
from tidewheel.cluster.checks.systems import version_of
from tidewheel.cluster.checks.unseen import not_seen
from tidewheel.cluster.facts import Facts
from tidewheel.cluster.finding import Finding, needed, well
from tidewheel.cluster.needs import ACCOUNTS, UNSET
from tidewheel.contracts.placement import SETTINGS

LEVEL = "pod-security.kubernetes.io/enforce"
APPLY = "kubectl apply --kustomize manifests/overlays/… (docs/operations/manifests.md)"


def namespace(facts: Facts) -> list[Finding]:
    place = f"namespace {facts.namespace}"
    if isinstance(facts.about, Unseen):
        if facts.about.why is Why.ABSENT:
            remedy = f"name another with --namespace, or {APPLY}"
            return [needed("namespace", f"{place} is not there", "the namespace of runs", remedy)]
        return [not_seen("namespace", facts.about), *_contents(facts)]
    if facts.about.get("status", {}).get("phase") == "Terminating":
        found = f"{place} is being deleted, and lets nothing new in"
        return [needed("namespace", found, "a namespace that stays", f"wait until it is gone, then {APPLY}")]
    return [well("namespace", facts.namespace), _pod_security(facts), *_contents(facts)]


def _pod_security(facts: Facts) -> Finding:
    assert not isinstance(facts.about, Unseen)
    level = facts.about["metadata"].get("labels", {}).get(LEVEL, "")
    backend = next((version_of(each) for each in items(_controller(facts))), "")
    if level == "restricted" and backend.startswith("2.14"):
        return needed(
            "pod security",
            f"namespace {facts.namespace} enforces restricted, which refuses task pods of Kubeflow Pipelines {backend}",
            "baseline, with this backend",
            "add components: [../../components/backend-2.14] to the overlay (docs/operations/manifests.md)",
        )
    return well("pod security", f"enforces {level}" if level else "nothing is enforced")


def _controller(facts: Facts) -> Unseen | dict:
    found = facts.controllers.get("kubeflow-pipelines", Unseen(Why.LATE, "it was not asked for"))
    return found if isinstance(found, Unseen) else dict(found)


def _contents(facts: Facts) -> list[Finding]:
    return [_accounts(facts), _settings(facts)]


def _accounts(facts: Facts) -> Finding:
    if isinstance(facts.accounts, Unseen):
        return not_seen("service accounts", facts.accounts)
    there = {each["metadata"]["name"] for each in items(facts.accounts)}
    missing = [name for name in ACCOUNTS if name not in there]
    if missing:
        found = f"not in namespace {facts.namespace}: {', '.join(missing)}"
        return needed("service accounts", found, "the accounts of manifests/runs", APPLY)
    return well("service accounts", f"all {len(ACCOUNTS)} of manifests/runs")


def _settings(facts: Facts) -> Finding:
    place = f"ConfigMap {SETTINGS} in namespace {facts.namespace}"
    if isinstance(facts.settings, Unseen):
        if facts.settings.why is Why.ABSENT:
            return needed("settings", f"{place} is not there", "store and MLflow of runs", APPLY)
        return not_seen("settings", facts.settings)
    data = facts.settings.get("data") or {}
    wanted = ("TIDEWHEEL_STORE", "MLFLOW_TRACKING_URI")
    unset = [name for name in wanted if not data.get(name) or data[name].startswith(UNSET)]
    if unset:
        remedy = f"set them in the overlay, then {APPLY}"
        return needed("settings", f"{place} does not set {', '.join(unset)}", "what pods of runs can reach", remedy)
    return well("settings", f"{place} names store and MLflow")
