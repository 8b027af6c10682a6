"""Whether quotas and limits of the namespace leave room for every step of the recipe."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from tidewheel.cluster.api import Unseen, items
from tidewheel.cluster.checks.unseen import not_seen
from tidewheel.cluster.facts import Facts
from tidewheel.cluster.finding import Finding, needed, optional, well
from tidewheel.contracts.placement import GPU, Placement, PodPlacement, bytes_of
from tidewheel.pods.ladder import quantity

PODS = 2  # of one step: its own and its driver


@dataclass(frozen=True)
class Share:
    """The most that is taken of something at once, in Kubernetes' units, and by what."""

    amount: str
    whose: str

    def __str__(self) -> str:
        return f"{self.amount} of {self.whose}"


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


def largest(placement: Placement, num_workers: int) -> dict[str, Share]:
    """What the most demanding step takes, with the pods that it starts, by the words of a quota; none has limits.cpu."""
    steps = placement.at_once(num_workers)
    totals = [_Total.of(step, tuple(pods.values())) for step, pods in steps.items()]
    most = max(totals, key=lambda total: total.pods)
    pods = Share(str(most.pods), most.whose if most.pods > PODS else "any step")
    cpu = max(totals, key=lambda total: _amount(total.cpu_text))
    memory = max(totals, key=lambda total: bytes_of(total.memory_text))
    gpus = max(totals, key=lambda total: total.gpus)
    by_cpu, by_memory = Share(cpu.cpu_text, cpu.whose), Share(memory.memory_text, memory.whose)
    found = {"pods": pods, "count/pods": pods, "cpu": by_cpu, "requests.cpu": by_cpu}
    found |= dict.fromkeys(("memory", "requests.memory", "limits.memory"), by_memory)
    return found | ({f"requests.{GPU}": Share(str(gpus.gpus), gpus.whose)} if gpus.gpus else {})


@dataclass(frozen=True)
class _Total:
    """Of the pods of one step. Texts are the recipe's own where there is one pod."""

    whose: str
    pods: int
    cpu_text: str
    memory_text: str
    gpus: int

    @classmethod
    def of(cls, step: str, pods: Sequence[PodPlacement]) -> _Total:
        if len(pods) == 1:
            return cls(step, PODS, pods[0].cpu, pods[0].memory, pods[0].gpus)
        cpu, memory = sum(_amount(pod.cpu) for pod in pods), sum(bytes_of(pod.memory) for pod in pods)
        gpus = sum(pod.gpus for pod in pods)
        whose = f"{step} with {len(pods) - 1} pod{'s' if len(pods) > 2 else ''} that it starts"
        return cls(whose, PODS + len(pods) - 1, f"{cpu * 1000:.0f}m", quantity(memory), gpus)


def _largest_pods(placement: Placement, num_workers: int) -> dict[str, Share]:
    """What the most demanding pod alone takes."""
    pods = {name: pod for of_step in placement.at_once(num_workers).values() for name, pod in of_step.items()}
    by_cpu = max(pods, key=lambda name: _amount(pods[name].cpu))
    by_memory = max(pods, key=lambda name: bytes_of(pods[name].memory))
    return {"cpu": Share(pods[by_cpu].cpu, by_cpu), "memory": Share(pods[by_memory].memory, by_memory)}


def _quota(quota: Mapping[str, Any], facts: Facts) -> Finding:
    name = f"quota {quota['metadata']['name']}"
    hard = quota["spec"].get("hard") or {}
    used = quota.get("status", {}).get("used") or {}
    wanted = {each: share for each, share in largest(facts.placement, facts.num_workers).items() if each in hard}
    expected = "room for the largest step of the recipe's placement, with the pods that it starts"
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
    shares = _largest_pods(facts.placement, facts.num_workers)
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
