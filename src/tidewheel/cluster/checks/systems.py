"""Whether what others install is there, runs, and is not older than what was tried."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tidewheel.cluster.api import Answer, Unseen, Why, items
from tidewheel.cluster.checks.unseen import not_seen
from tidewheel.cluster.facts import Facts, has_resource
from tidewheel.cluster.finding import Finding, at_fault, optional, well
from tidewheel.cluster.needs import KUBERNETES, System, systems

VERSION = re.compile(r"(\d+)\.(\d+)(?:\.(\d+))?")
VERSION_LABEL = "app.kubernetes.io/version"
PINS = "manifests/versions.toml"


@dataclass(frozen=True)
class Lasting:
    """A setting of Argo Workflows without which a pod that is lost ends its run; `value` is a part of what it must hold."""

    check: str
    variable: str
    value: str
    without: str

    @property
    def wanted(self) -> str:
        return f"{self.variable}='{self.value}'" if " " in self.value else f"{self.variable}={self.value}"

    def is_set(self, controller: Mapping[str, Any]) -> bool:
        containers = controller["spec"]["template"]["spec"]["containers"]
        values = {one["name"]: one.get("value") or "" for container in containers for one in container.get("env") or ()}
        return self.value in values.get(self.variable, "")


LASTING = (
    # It counts a pod that is gone before it was seen to end as an error, which it does not try again.
    Lasting("lost pods", "ARGO_POD_STATUS_CAPTURE_FINALIZER", "true", "a step whose pod is deleted ends the run"),
    # Webhooks of pods, such as Kueue's, refuse every pod while none of their own pods is ready.
    Lasting(
        "refused pods", "TRANSIENT_ERROR_PATTERN", "failed calling webhook", "a webhook that is away for a second ends runs"
    ),
)


def kubernetes(facts: Facts) -> Finding:
    found = str(facts.version.get("gitVersion", "")) if not isinstance(facts.version, Unseen) else ""
    if _is_older(found, KUBERNETES):
        remedy = f"upgrade the cluster where something does not work; older ones were not tried ({PINS})"
        return optional("kubernetes", found, f"{KUBERNETES} or newer", remedy)
    return well("kubernetes", found)


def installed(facts: Facts) -> list[Finding]:
    return [_installed(system, facts) for system in systems(facts.target)]


def _installed(system: System, facts: Facts) -> Finding:
    crd = f"{system.resource}.{system.group}"
    if system.group:
        known = facts.resources.get(system.name, Unseen(Why.LATE, f"{crd} was not asked for"))
        if isinstance(known, Unseen) and known.why is not Why.ABSENT:
            return not_seen(system.name, known)
        if not has_resource(known, system.resource):
            return at_fault(
                system.severity,
                system.name,
                f"the CRD {crd} in version {system.version} is not there: {system.without}",
                f"{system.group}/{system.version} with {system.resource}",
                system.install or f"install {_named(system)}",
            )
    if not system.controller:
        return well(system.name, f"the CRD {crd} in version {system.version} is there")
    return _running(system, facts.controllers.get(system.name, Unseen(Why.LATE, "it was not asked for")))


def _running(system: System, controllers: Answer) -> Finding:
    crd = f"the CRD {system.resource}.{system.group} is there; " if system.group else ""
    if isinstance(controllers, Unseen):
        return not_seen(system.name, Unseen(controllers.why, f"{crd}its controller is not to be seen: {controllers.words}"))
    if not items(controllers):
        found = f"{crd}no Deployment {system.controller} in any namespace"
        if system.group:  # it may run under another name
            remedy = f"install {_named(system)}, unless its controller runs under another name"
            return optional(system.name, found, "a controller that runs", remedy)
        return at_fault(system.severity, system.name, f"{found}: {system.without}", "it runs", f"install {_named(system)}")
    best = max(items(controllers), key=lambda each: each.get("status", {}).get("readyReplicas") or 0)
    where = f"Deployment {system.controller} in namespace {best['metadata']['namespace']}"
    if not best.get("status", {}).get("readyReplicas"):
        remedy = f"kubectl --namespace {best['metadata']['namespace']} describe deployment {system.controller}"
        return at_fault(system.severity, system.name, f"{where} has no ready pod: {system.without}", "one ready pod", remedy)
    version = version_of(best)
    if system.oldest and not version:
        remedy = f"compare its image with {PINS}"
        return optional(system.name, f"{where} runs; its image names no version", f"{system.oldest} or newer", remedy)
    if system.oldest and _is_older(version, system.oldest):
        remedy = f"upgrade it: {PINS} says what was tried and why"
        return at_fault(system.severity, system.name, f"{where} runs {version}", f"{system.oldest} or newer", remedy)
    return well(system.name, f"{version or 'of some version'}, {where}")


def lasting(facts: Facts) -> list[Finding]:
    """Whether a run outlives a pod that is taken away (a drained node) or not let in; none where that is not seen."""
    found = []
    for each in items(facts.controllers.get("argo-workflows", {})):
        where, called = each["metadata"]["namespace"], each["metadata"]["name"]
        for setting in LASTING:
            place = f"{called} in namespace {where}"
            if setting.is_set(each):
                found.append(well(setting.check, f"they are tried again: {setting.wanted} of {place}"))
            else:
                remedy = f"kubectl --namespace {where} set env deployment/{called} {setting.wanted}"
                fault = f"{setting.without}: {place} lacks a setting"
                found.append(optional(setting.check, fault, setting.wanted, remedy))
    return found


def version_of(deployment: Mapping[str, Any]) -> str:
    """From the tag of its image, else from its label; empty where neither says."""
    containers = deployment["spec"]["template"]["spec"]["containers"]
    tags = [each.get("image", "").partition("@")[0].rpartition("/")[2].partition(":")[2] for each in containers]
    said = [*tags, deployment["metadata"].get("labels", {}).get(VERSION_LABEL, "")]
    return next((match.group() for text in said if (match := VERSION.search(text))), "")


def _is_older(version: str, oldest: str) -> bool:
    match = VERSION.search(version)
    if match is None:
        return True
    return tuple(int(part or 0) for part in match.groups()) < tuple(int(part) for part in oldest.split("."))


def _named(system: System) -> str:
    return f"{system.name} {system.oldest} or newer ({PINS})" if system.oldest else system.name
