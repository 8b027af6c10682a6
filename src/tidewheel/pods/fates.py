"""What became of pods that a step started: how they ended, and why one does not run yet. Pure: manifests in, words out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

HEAP_FULL = 52  # Spark's exit code of an executor whose heap was full
NEVER = ("InvalidImageName", "ErrImageNeverPull", "CreateContainerConfigError", "CreateContainerError")
IMAGE = ("ErrImagePull", "ImagePullBackOff")
IMAGE_SECONDS = 45.0  # a registry may be slow to answer once
MAX_WORDS = 300


@dataclass(frozen=True)
class Fate:
    """How a pod ended: Kubernetes' reason, the exit code of its container, the last that it said."""

    pod: str
    reason: str
    exit_code: int | None
    words: str

    @property
    def is_out_of_memory(self) -> bool:
        return self.reason == "OOMKilled" or self.exit_code == HEAP_FULL

    def __str__(self) -> str:
        code = "" if self.exit_code is None else f", exit code {self.exit_code}"
        return f"{self.pod}: {self.reason or 'ended'}{code}{f' ({self.words})' if self.words else ''}"


def fate_of(pod: Mapping[str, Any]) -> Fate | None:
    """None while it has not ended."""
    status, name = pod.get("status", {}), pod["metadata"]["name"]
    for container in status.get("containerStatuses", ()):
        if ended := container.get("state", {}).get("terminated"):
            lines = (ended.get("message") or "").strip().splitlines()
            return Fate(name, ended.get("reason", ""), ended.get("exitCode"), lines[-1][:MAX_WORDS] if lines else "")
    if status.get("phase") == "Failed":
        return Fate(name, status.get("reason", ""), None, status.get("message", "")[:MAX_WORDS])
    return None


def waiting_of(pod: Mapping[str, Any]) -> tuple[str, str]:
    """Why a pod does not run yet, as Kubernetes' reason and message; both empty where nothing is said."""
    status = pod.get("status", {})
    for container in status.get("containerStatuses", ()):
        if waits := container.get("state", {}).get("waiting"):
            return waits.get("reason", ""), (waits.get("message") or "")[:MAX_WORDS]
    for condition in status.get("conditions", ()):
        if condition["type"] == "PodScheduled" and condition["status"] == "False":
            return condition.get("reason", ""), (condition.get("message") or "")[:MAX_WORDS]
    return "", ""


def never_starts(pods: Iterable[Mapping[str, Any]], waited_seconds: float) -> str | None:
    """Which pod cannot start whatever happens, and why; None where one still may."""
    for pod in pods:
        reason, message = waiting_of(pod)
        if reason in NEVER or (reason in IMAGE and waited_seconds > IMAGE_SECONDS):
            return f"pod {pod['metadata']['name']}: {reason} ({message or 'nothing more was said'})"
    return None
