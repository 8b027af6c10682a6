"""Whether volumes can be had, and which of the namespace wait for one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tidewheel.cluster.api import Unseen, items
from tidewheel.cluster.checks.unseen import not_seen
from tidewheel.cluster.facts import Facts, pending
from tidewheel.cluster.finding import Finding, needed, optional, well

DEFAULT = "storageclass.kubernetes.io/is-default-class"
NO_CONSUMER = "WaitForFirstConsumer"


def volumes(facts: Facts) -> list[Finding]:
    if isinstance(facts.claims, Unseen):
        return [not_seen("volumes", facts.claims)]
    waiting = pending(facts.claims)
    if not waiting:
        return [well("volumes", f"no claim in namespace {facts.namespace} waits")]
    return [_claim(claim, facts) for claim in waiting]


def storage(facts: Facts) -> Finding:
    if isinstance(facts.storage_classes, Unseen):
        return not_seen("storage", facts.storage_classes)
    classes = [each["metadata"] for each in items(facts.storage_classes)]
    defaults = [each["name"] for each in classes if each.get("annotations", {}).get(DEFAULT) == "true"]
    if not defaults:
        found = f"no StorageClass is the default ({', '.join(each['name'] for each in classes) or 'there is none'})"
        remedy = f"kubectl annotate storageclass … {DEFAULT}=true; or name one in every claim. Runs themselves claim no volume"
        return optional("storage", found, "one default, for claims that name no class", remedy)
    return well("storage", f"default StorageClass {', '.join(defaults)}")


def _claim(claim: Mapping[str, Any], facts: Facts) -> Finding:
    own = claim["metadata"]["name"]
    name, wanted = f"volume claim {own}", claim["spec"].get("storageClassName")
    reason, message = _last_event(own, facts)
    if reason == NO_CONSUMER:
        return well(name, f"waits for the first pod that uses it (StorageClass {wanted})")
    by = f"StorageClass {wanted}" if wanted else "no StorageClass"
    found = f"is Pending with {by}: {f'{reason}: {message}' if reason else 'no event says why'}; a pod that mounts it waits"
    remedy = (
        "name a StorageClass that is there (kubectl get storageclass), or delete the claim: "
        f"kubectl --namespace {facts.namespace} describe pvc {own}"
    )
    return needed(name, found, "Bound", remedy)


def _last_event(claim: str, facts: Facts) -> tuple[str, str]:
    """(reason, message) of the newest event about a claim; empty where there is none."""
    about = [each for each in items(facts.claim_events) if each.get("involvedObject", {}).get("name") == claim]
    if not about:
        return ("", facts.claim_events.words) if isinstance(facts.claim_events, Unseen) else ("", "")
    last = max(about, key=lambda each: each.get("lastTimestamp") or each.get("eventTime") or "")
    return last.get("reason", ""), " ".join(last.get("message", "").split())
