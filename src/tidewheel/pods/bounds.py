"""What of a cluster bounds the memory of a pod: quotas and limits of its namespace, and the queue that it came through."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from tidewheel.contracts.placement import PodPlacement, bytes_of
from tidewheel.errors import ConfigError, RetryableError
from tidewheel.pods.api import ask
from tidewheel.pods.ladder import MIB, Bound, shown

QUEUES = "/apis/kueue.x-k8s.io/v1beta2"
MEMORIES = ("memory", "requests.memory", "limits.memory")  # of a ResourceQuota
# A quota of some pods alone counts this one or not: the API server knows, and says so when it is asked for more.
OF_SOME = ("scopes", "scopeSelector")


def bounds_in(
    namespace: str,
    queue: str,
    asked: PodPlacement,
    own_bytes: int,
    count: int,
    unseen: Callable[[str], None],
    beside_bytes: int = 0,
) -> list[Bound]:
    """What bounds each of `count` equal pods. Where the cluster does not tell, nothing does, and `unseen` hears why.

    Args:
        queue: name of the LocalQueue; empty: none.
        own_bytes: what quotas count of these pods already, together.
        beside_bytes: what they count of the pod that asks, and go on counting.
    """
    within = f"/api/v1/namespaces/{namespace}"
    found: list[Bound] = []

    def look(what: str, read: Callable[[], list[Bound]]) -> None:
        try:
            found.extend(read())
        except (ConfigError, RetryableError) as error:
            unseen(f"{what} not known: {error}")

    look("quotas", lambda: _quotas(ask(f"{within}/resourcequotas", "quotas")["items"], own_bytes, count, beside_bytes))
    look("limits", lambda: _limits(ask(f"{within}/limitranges", "limits")["items"]))
    if queue:
        own = 0 if beside_bytes else bytes_of(asked.memory) * count
        look(f"quota of queue {queue}", lambda: _queue(namespace, queue, own, count, beside_bytes))
    return found


def _quotas(quotas: list[Mapping[str, Any]], own_bytes: int, count: int, beside_bytes: int) -> list[Bound]:
    found = []
    for quota in quotas:
        if any(quota["spec"].get(key) for key in OF_SOME):
            continue
        whose, used = f"ResourceQuota {quota['metadata']['name']}", quota.get("status", {}).get("used") or {}
        for key in MEMORIES:
            if (hard := (quota["spec"].get("hard") or {}).get(key)) is not None:
                found += _shared(f"{whose}, {key}", _amount(hard), _amount(used.get(key, "0")) - own_bytes, count, beside_bytes)
    return found


def _limits(ranges: list[Mapping[str, Any]]) -> list[Bound]:
    return [
        Bound(_amount(limit["max"]["memory"]), f"LimitRange {each['metadata']['name']}", "raise it")
        for each in ranges
        for limit in each["spec"]["limits"]
        if limit["type"] in ("Container", "Pod") and "memory" in (limit.get("max") or {})
    ]


def free_in(namespace: str, queue: str, resource: str) -> int | None:
    """How much of a resource a pod of the queue could have now; None: the queue does not bound it.

    Raises:
        ConfigError, RetryableError: the cluster does not tell.
    """
    _, flavors = _flavors(namespace, queue, resource)
    return max((limit - used for limit, used in flavors), default=None)


def _queue(namespace: str, queue: str, own_bytes: int, count: int, beside_bytes: int) -> list[Bound]:
    """Of the flavor with the most: which one a pod of the queue got is Kueue's business."""
    name, flavors = _flavors(namespace, queue, "memory")
    if not flavors:
        return []
    limit, taken = max(flavors, key=lambda one: one[0] - one[1])
    return _shared(f"quota of queue {queue} (ClusterQueue {name})", limit, taken - own_bytes, count, beside_bytes)


def _flavors(namespace: str, queue: str, resource: str) -> tuple[str, list[tuple[int, int]]]:
    """Of a LocalQueue its ClusterQueue, and limit and use of a resource by flavor; none where it does not bound it."""
    local = ask(f"{QUEUES}/namespaces/{namespace}/localqueues/{queue}", f"queue {queue}")
    name = local["spec"]["clusterQueue"]
    behind = ask(f"{QUEUES}/clusterqueues/{name}", f"ClusterQueue {name}")
    used = {
        flavor["name"]: _amount(each["total"])
        for flavor in behind.get("status", {}).get("flavorsUsage") or ()
        for each in flavor["resources"]
        if each["name"] == resource
    }
    is_lent = bool(behind["spec"].get("cohortName"))
    flavors = []
    for group in behind["spec"].get("resourceGroups") or ():
        for flavor in group["flavors"]:
            for each in flavor["resources"]:
                if each["name"] != resource:
                    continue
                if is_lent and "borrowingLimit" not in each:
                    return name, []  # it borrows whatever its cohort has
                limit = _amount(each["nominalQuota"]) + (_amount(each["borrowingLimit"]) if is_lent else 0)
                flavors.append((limit, used.get(flavor["name"], 0)))
    return name, flavors


def _shared(whose: str, limit_bytes: int, others_bytes: int, count: int, beside_bytes: int) -> list[Bound]:
    """Of what there is, and of what others leave of it now. The pod that stays beside them is none of the others."""
    if beside_bytes:
        whose = f"{whose}, less the {shown(beside_bytes)} of this pod"
    others_bytes = max(others_bytes - beside_bytes, 0)
    free_bytes = max(limit_bytes - beside_bytes, 0)
    in_use = f"{whose}, of which others use {others_bytes // MIB}Mi"
    return [
        Bound(free_bytes // count, whose, "raise it"),
        Bound(max(free_bytes - others_bytes, 0) // count, in_use, "wait for them or raise it", is_for_now=True),
    ]


def _amount(quantity: str) -> int:
    from kubernetes.utils import parse_quantity

    return int(parse_quantity(quantity))
