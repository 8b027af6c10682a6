"""Whether quotas and limits of the namespace leave room for the smallest run."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from tidewheel.cluster.api import Unseen, items
from tidewheel.cluster.checks.unseen import not_seen
from tidewheel.cluster.facts import Facts
from tidewheel.cluster.finding import Finding, needed, optional, well
from tidewheel.cluster.needs import Room

ROOM = Room()
# What a quota counts -> how much of it the smallest run takes at once.
WANTED = {
    "pods": ROOM.pods,
    "count/pods": ROOM.pods,
    "cpu": ROOM.cpu,
    "requests.cpu": ROOM.cpu,
    "limits.cpu": ROOM.cpu,
    "memory": ROOM.memory,
    "requests.memory": ROOM.memory,
    "limits.memory": ROOM.memory,
    "count/rayjobs.ray.io": ROOM.rayjobs,
}
SMALLEST = f"room for the smallest run: {ROOM.pods} pods, {ROOM.cpu} CPU, {ROOM.memory} (a recipe does not say more yet)"


def room(facts: Facts) -> list[Finding]:
    """One finding for each quota that counts all pods, one for each range of limits."""
    found = []
    for name, answer in (("quotas", facts.quotas), ("limits", facts.limits)):
        if isinstance(answer, Unseen):
            found.append(not_seen(name, answer))
    of_all = [each for each in items(facts.quotas) if not each["spec"].get("scopes") and not each["spec"].get("scopeSelector")]
    found += [_quota(each, facts.namespace) for each in of_all]
    found += [_limits(each, facts.namespace) for each in items(facts.limits)]
    return found or [well("quotas", f"none in namespace {facts.namespace}")]


def _quota(quota: Mapping[str, Any], namespace: str) -> Finding:
    name = f"quota {quota['metadata']['name']}"
    hard = quota["spec"].get("hard") or {}
    used = quota.get("status", {}).get("used") or {}
    counted = [each for each in hard if each in WANTED]
    never = [each for each in counted if _amount(hard[each]) < _amount(WANTED[each])]
    if never:
        found = "; ".join(f"{each} is {hard[each]} < {WANTED[each]}" for each in never)
        remedy = f"raise it: kubectl --namespace {namespace} edit resourcequota {quota['metadata']['name']}"
        return needed(name, f"{found}: a run will never fit", SMALLEST, remedy)
    left = {each: _amount(hard[each]) - _amount(used.get(each, "0")) for each in counted}
    tight = [each for each in counted if left[each] < _amount(WANTED[each])]
    if tight:
        found = "; ".join(f"{used.get(each, '0')} of {hard[each]} {each} are used, {WANTED[each]} wanted" for each in tight)
        remedy = f"wait until other pods of namespace {namespace} have ended, or raise the quota"
        return optional(name, f"{found}: a run does not fit now", SMALLEST, remedy)
    shown = ", ".join(f"{used.get(each, '0')} of {hard[each]} {each}" for each in counted)
    return well(name, f"used: {shown}" if shown else "counts nothing that runs need")


def _limits(limits: Mapping[str, Any], namespace: str) -> Finding:
    name = f"limits {limits['metadata']['name']}"
    container = {"cpu": ROOM.container_cpu, "memory": ROOM.container_memory}
    small = [
        f"{each.get('type')} may have at most {each['max'][what]} {what} < {wanted}"
        for each in limits["spec"].get("limits") or ()
        if each.get("type") in ("Container", "Pod")
        for what, wanted in container.items()
        if what in (each.get("max") or {}) and _amount(each["max"][what]) < _amount(wanted)
    ]
    if small:
        remedy = f"raise it: kubectl --namespace {namespace} edit limitrange {limits['metadata']['name']}"
        expected = f"a container of {ROOM.container_cpu} CPU and {ROOM.container_memory}"
        return needed(name, f"{'; '.join(small)}: no step will ever start", expected, remedy)
    return well(name, "lets a step in")


def _amount(text: str) -> Decimal:
    from kubernetes.utils.quantity import parse_quantity

    return Decimal(parse_quantity(text))
