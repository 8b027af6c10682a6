"""Which pods wait for an image, for what they are configured with, or for a node."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from tidewheel.cluster.api import Unseen, items
from tidewheel.cluster.checks.unseen import not_seen
from tidewheel.cluster.facts import Facts
from tidewheel.cluster.finding import Finding, needed, optional, well
from tidewheel.pods.waiting import Waiting, shortened, waiting_for

NOT_MOUNTED = ("FailedMount", "FailedAttachVolume")  # reasons of events; the pod itself only says that it is being made
BEING_MADE = ("ContainerCreating", "PodInitializing")
MAX_SHOWN = 5
CONFIGURE = "make what it names: kubectl apply --kustomize manifests/overlays/… (docs/operations/manifests.md)"
OUTSIDE = "whether a node finds an image can be seen only there"


def images(facts: Facts) -> list[Finding]:
    """A cluster cannot be asked whether it finds an image; pods that wait for one say so."""
    if isinstance(facts.pods, Unseen):
        return [not_seen("images", facts.pods)]
    waiting = [finding for pod in items(facts.pods) for finding in without_image(pod)]
    if not waiting:
        return [well("images", f"no pod in namespace {facts.namespace} waits for one; {OUTSIDE}")]
    return waiting[:MAX_SHOWN] + _more("images", waiting)


def containers(facts: Facts) -> list[Finding]:
    """Nothing where all could be made."""
    waiting = [finding for pod in items(facts.pods) for finding in unconfigured(pod)]
    return waiting[:MAX_SHOWN] + _more("containers", waiting)


def unscheduled(facts: Facts) -> list[Finding]:
    """Pods that no node takes."""
    waiting = [finding for pod in items(facts.pods) for finding in without_node(pod)]
    return waiting[:MAX_SHOWN] + _more("nodes", waiting)


def without_image(pod: Mapping[str, Any]) -> Iterator[Finding]:
    for each in _of(pod, "image"):
        found = f"pod {each.pod}, container {each.container}: {each.image} {each.words}"
        remedy = (
            "push it (make images REGISTRY=…), correct its name or digest in the overlay or the chart, or give the pod's "
            "service account imagePullSecrets"
        )
        yield needed("images", found, "an image that the nodes find", remedy)


def unconfigured(pod: Mapping[str, Any]) -> Iterator[Finding]:
    for each in _of(pod, "settings"):
        found = f"pod {each.pod}, container {each.container}: {each.words}"
        yield needed("containers", found, "every ConfigMap, Secret and key that the container names", CONFIGURE)


def without_node(pod: Mapping[str, Any]) -> Iterator[Finding]:
    """A node may be being made for it, or a queue may hold it back: nothing is in the way yet."""
    for each in _of(pod, "node"):
        found = f"pod {each.pod} is not scheduled: {shortened(each.message) or 'it does not say why'}"
        yield optional("nodes", found, "a node that takes it", "kubectl describe it; add nodes or ask for less")


def is_being_made(pod: Mapping[str, Any]) -> bool:
    """It has a node, and something that only its events tell may be missing."""
    return any(each.reason in BEING_MADE for each in _of(pod, "start"))


def not_mounted(pod: Mapping[str, Any], events: Iterable[Mapping[str, Any]]) -> Iterator[Finding]:
    """By the newest event of such a pod; what is not there does not come by itself, what is slow may."""
    about = max(events, key=lambda each: each.get("lastTimestamp") or each.get("eventTime") or "", default=None)
    if about is None or about.get("reason") not in NOT_MOUNTED:
        return
    found = f"pod {pod['metadata']['name']}: {about['reason']}: {shortened(about.get('message'))}"
    say = needed if "not found" in found else optional
    yield say("volumes of a pod", found, "every volume that the pod mounts", CONFIGURE)


def _of(pod: Mapping[str, Any], what: str) -> Iterator[Waiting]:
    return (each for each in waiting_for(pod) if each.what == what)


def _more(name: str, waiting: list) -> list[Finding]:
    left = len(waiting) - MAX_SHOWN
    return [optional(name, f"{left} more pods wait so", "none", "repair those first")] if left > 0 else []
