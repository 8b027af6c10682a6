"""Whether Kueue's queues of the namespace let workloads in."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tidewheel.cluster.api import Unseen, Why, items
from tidewheel.cluster.checks.unseen import not_seen
from tidewheel.cluster.facts import Facts
from tidewheel.cluster.finding import Finding, needed, optional, well


def queues(facts: Facts) -> list[Finding]:
    """Nothing where Kueue is not installed and no step names a queue: that is said elsewhere."""
    if isinstance(facts.local_queues, Unseen):
        return _named_and_missing(facts) if facts.local_queues.why is Why.ABSENT else [not_seen("queues", facts.local_queues)]
    missing = _named_and_missing(facts)
    if missing:
        return [*missing, *(_queue(queue, facts) for queue in items(facts.local_queues))]
    if not items(facts.local_queues):
        found = f"no LocalQueue in namespace {facts.namespace}: runs do not queue, GPU pools of the chart are not used"
        return [optional("queues", found, "one", "name the namespace in queues of helm/gpu-node-pools")]
    return [_queue(queue, facts) for queue in items(facts.local_queues)]


def _named_and_missing(facts: Facts) -> list[Finding]:
    """Queues of the recipe's placement that are not in the namespace: a step that names one waits for ever."""
    there = {queue["metadata"]["name"] for queue in items(facts.local_queues)}
    steps: dict[str, list[str]] = {}
    for step, placed in facts.placement.steps().items():
        steps.setdefault(placed.queue, []).append(step)
    remedy = "add it with helm/gpu-node-pools, or correct placement in the recipe"
    return [
        needed(
            f"queue {name}",
            f"no LocalQueue of this name in namespace {facts.namespace}; used by {', '.join(of)}",
            "one",
            remedy,
        )
        for name, of in steps.items()
        if name and name not in there
    ]


def _queue(queue: Mapping[str, Any], facts: Facts) -> Finding:
    name, behind = f"queue {queue['metadata']['name']}", queue["spec"].get("clusterQueue", "")
    cluster_queue = facts.cluster_queues.get(behind, Unseen(Why.ABSENT, "it is not there"))
    expected = "an active LocalQueue of an active ClusterQueue"
    if isinstance(cluster_queue, Unseen) and cluster_queue.why is Why.ABSENT:
        remedy = "helm upgrade --install with helm/gpu-node-pools, or point the LocalQueue to another"
        return needed(name, f"its ClusterQueue {behind} is not there: nothing is ever admitted", expected, remedy)
    if not isinstance(cluster_queue, Unseen) and (why := _why_inactive(cluster_queue)):
        remedy = f"kubectl describe clusterqueue {behind}"
        return needed(name, f"its ClusterQueue {behind} is not active: {why}", expected, remedy)
    if why := _why_inactive(queue):
        remedy = f"kubectl --namespace {facts.namespace} describe localqueue {queue['metadata']['name']}"
        return needed(name, f"it is not active: {why}", expected, remedy)
    waiting = queue.get("status", {}).get("pendingWorkloads", 0)
    return well(name, f"active, of {behind}; {waiting} waiting")


def _why_inactive(queue: Mapping[str, Any]) -> str:
    """Empty where it is active."""
    if queue["spec"].get("stopPolicy", "None") != "None":
        return f"its stopPolicy is {queue['spec']['stopPolicy']}"
    conditions = {each["type"]: each for each in queue.get("status", {}).get("conditions") or ()}
    active = conditions.get("Active", {"status": "Unknown", "message": "Kueue has not looked at it yet"})
    return "" if active["status"] == "True" else active.get("message") or active.get("reason", "it does not say why")
