"""Whether this account may do what the verbs of the command line do."""

from __future__ import annotations

from collections.abc import Iterable

from tidewheel.cluster.api import Unseen
from tidewheel.cluster.checks.unseen import not_seen
from tidewheel.cluster.facts import Facts
from tidewheel.cluster.finding import Finding, needed, well
from tidewheel.cluster.needs import Right

USES = ("submit", "status", "rollback")
NOTHING = {
    "submit": "asks Kubeflow Pipelines, which has no users here: no right of the API server is used",
    "rollback": "no recipe with a target on this cluster was named (--recipe): no right of the API server is used",
}


def rights(facts: Facts) -> list[Finding]:
    return [_use(use, facts) for use in USES]


def _use(use: str, facts: Facts) -> Finding:
    name = f"rights of {use}"
    asked = {right: answer for right, answer in facts.rights.items() if right.use == use}
    if not asked:
        return well(name, NOTHING.get(use, "none are needed"))
    for answer in asked.values():
        if isinstance(answer, Unseen):
            return not_seen(name, answer)
    missing = [right for right, answer in asked.items() if not answer]
    if not missing:
        return well(name, f"all {len(asked)}")
    namespace = missing[0].namespace
    lacking = "; ".join(f"{right.verb} {right.resource}" for right in missing)
    found = f"may not in namespace {namespace}: {lacking}"
    rule = f"a Role there with {' '.join(rules(missing))}"
    remedy = f"let an administrator bind this account to {rule}"
    if use == "rollback":
        remedy = f"name this account in deployer.serviceAccounts of the chart ranker-serving, or {remedy}"
    return needed(name, found, "every verb that it uses", remedy)


def rules(missing: Iterable[Right]) -> list[str]:
    """As they stand in a Role."""
    verbs: dict[str, list[str]] = {}
    for right in missing:
        verbs.setdefault(right.resource, []).append(right.verb)
    found = []
    for resource, wanted in verbs.items():
        kind, slash, part = resource.partition("/")
        plural, _, group = kind.partition(".")
        found.append(f'{{apiGroups: ["{group}"], resources: [{plural}{slash}{part}], verbs: [{", ".join(wanted)}]}}')
    return found
