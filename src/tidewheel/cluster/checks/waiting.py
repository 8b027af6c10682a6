"""Which pods of the namespace wait for an image or for a node."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from tidewheel.cluster.api import Unseen, items
from tidewheel.cluster.checks.unseen import not_seen
from tidewheel.cluster.facts import Facts
from tidewheel.cluster.finding import Finding, needed, optional, well

NO_IMAGE = ("ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "ImageInspectError")
MAX_SHOWN = 5
OUTSIDE = "whether a node finds an image can be seen only there"


def images(facts: Facts) -> list[Finding]:
    """A cluster cannot be asked whether it finds an image; pods that wait for one say so."""
    if isinstance(facts.pods, Unseen):
        return [not_seen("images", facts.pods)]
    waiting = [(pod, each) for pod in items(facts.pods) for each in _without_image(pod)]
    if not waiting:
        return [well("images", f"no pod in namespace {facts.namespace} waits for one; {OUTSIDE}")]
    return [_image(pod["metadata"]["name"], each) for pod, each in waiting[:MAX_SHOWN]] + _more("images", waiting)


def _without_image(pod: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    status = pod.get("status", {})
    for each in [*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())]:
        if (each.get("state", {}).get("waiting") or {}).get("reason") in NO_IMAGE:
            yield each


def _image(pod: str, container: Mapping[str, Any]) -> Finding:
    waiting = container["state"]["waiting"]
    said = " ".join(waiting.get("message", "").split())[:300]
    found = (
        f"pod {pod}, container {container['name']}: {container.get('image')} {waiting['reason']}{f': {said}' if said else ''}"
    )
    remedy = (
        "push it (make images REGISTRY=…), correct its name or digest in the overlay or the chart, or give the pod's service "
        "account imagePullSecrets"
    )
    return needed("images", found, "an image that the nodes find", remedy)


def unscheduled(facts: Facts) -> list[Finding]:
    """Pods that no node takes; they may wait for one that is being made, so nothing is in the way yet."""
    waiting = [(pod["metadata"]["name"], why) for pod in items(facts.pods) if (why := _why_unscheduled(pod))]
    found = [
        optional(
            "nodes",
            f"pod {name} is not scheduled: {why}",
            "a node that takes it",
            "kubectl describe it; add nodes or ask for less",
        )
        for name, why in waiting[:MAX_SHOWN]
    ]
    return found + _more("nodes", waiting)


def _why_unscheduled(pod: Mapping[str, Any]) -> str:
    conditions = {each["type"]: each for each in pod.get("status", {}).get("conditions") or ()}
    scheduled = conditions.get("PodScheduled", {"status": "True"})
    return "" if scheduled["status"] != "False" else " ".join((scheduled.get("message") or "it does not say why").split())


def _more(name: str, waiting: list) -> list[Finding]:
    left = len(waiting) - MAX_SHOWN
    return [optional(name, f"{left} more pods wait so", "none", "repair those first")] if left > 0 else []
