"""Whether quotas and limits of the namespace leave room for every step of the recipe."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from tidewheel.cluster.api import Unseen, items
from tidewheel.cluster.checks.unseen import not_seen
from tidewheel.cluster.facts import Facts
from tidewheel.cluster.finding import Finding, needed, optional, well
from tidewheel.contracts.placement import GPU, Placement

PODS = "2"  # of one step: its own and its driver


@dataclass(frozen=True)
class Share:
    """The most that one step takes of something, in Kubernetes' units, and which step that is."""

    amount: str
    step: str

    def __str__(self) -> str:
        return f"{self.amount} of {self.step}"


def room(facts: Facts) -> list[Finding]:
    """One finding for each quota that counts all pods, one for each range of limits."""
    found = []
    for name, answer in (("quotas", facts.quotas), ("limits", facts.limits)):
        if isinstance(answer, Unseen):
            found.append(not_seen(name, answer))
    of_all = [each for each in items(facts.quotas) if not each["spec"].get("scopes") and not each["spec"].get("scopeSelector")]
    found += [_quota(each, facts) for each in of_all]
    found += [_limits(each, facts) for each in items(facts.limits)]
    return found or [well("quotas", f"none in namespace {facts.namespace}")]


def largest(placement: Placement) -> dict[str, Share]:
    """What the most demanding step takes, by the words of a quota; not limits.cpu, as no step has such a limit."""
    steps = placement.steps()
    by_cpu = max(steps, key=lambda name: _amount(steps[name].cpu))
    by_memory = max(steps, key=lambda name: _amount(steps[name].memory))
    by_gpus = max(steps, key=lambda name: steps[name].gpus)
    pods, cpu = Share(PODS, "any step"), Share(steps[by_cpu].cpu, by_cpu)
    memory = Share(steps[by_memory].memory, by_memory)
    found = {"pods": pods, "count/pods": pods, "cpu": cpu, "requests.cpu": cpu}
    found |= dict.fromkeys(("memory", "requests.memory", "limits.memory"), memory)
    return found | ({f"requests.{GPU}": Share(str(steps[by_gpus].gpus), by_gpus)} if steps[by_gpus].gpus else {})


def _quota(quota: Mapping[str, Any], facts: Facts) -> Finding:
    name = f"quota {quota['metadata']['name']}"
    hard = quota["spec"].get("hard") or {}
    used = quota.get("status", {}).get("used") or {}
    wanted = {each: share for each, share in largest(facts.placement).items() if each in hard}
    expected = "room for the largest step of the recipe's placement"
    never = [each for each, share in wanted.items() if _amount(hard[each]) < _amount(share.amount)]
    if never:
        found = "; ".join(f"{each} is {hard[each]} < {wanted[each]}" for each in never)
        remedy = f"raise it: kubectl --namespace {facts.namespace} edit resourcequota {quota['metadata']['name']}"
        return needed(name, f"{found}: it will never fit", expected, f"{remedy}; or ask for less in placement")
    left = {each: _amount(hard[each]) - _amount(used.get(each, "0")) for each in wanted}
    tight = [each for each, share in wanted.items() if left[each] < _amount(share.amount)]
    if tight:
        found = "; ".join(f"{used.get(each, '0')} of {hard[each]} {each} are used, {wanted[each]} wanted" for each in tight)
        remedy = f"wait until other pods of namespace {facts.namespace} have ended, or raise the quota"
        return optional(name, f"{found}: it does not fit now", expected, remedy)
    shown = ", ".join(f"{used.get(each, '0')} of {hard[each]} {each}" for each in wanted)
    return well(name, f"used: {shown}" if shown else "counts nothing that steps need")


def _limits(limits: Mapping[str, Any], facts: Facts) -> Finding:
    name = f"limits {limits['metadata']['name']}"
    shares = largest(facts.placement)
    small = [
        f"{each.get('type')} may have at most {each['max'][what]} {what} < {shares[what]}"
        for each in limits["spec"].get("limits") or ()
        if each.get("type") in ("Container", "Pod")
        for what in ("cpu", "memory")
        if what in (each.get("max") or {}) and _amount(each["max"][what]) < _amount(shares[what].amount)
    ]
    if small:
        remedy = f"raise it: kubectl --namespace {facts.namespace} edit limitrange {limits['metadata']['name']}"
        found = f"{'; '.join(small)}: it will never start"
        return needed(name, found, "what the recipe's placement asks for", f"{remedy}; or ask for less in placement")
    return well(name, "lets every step in")


def _amount(text: str) -> Decimal:
    from kubernetes.utils.quantity import parse_quantity

    return Decimal(parse_quantity(text))
