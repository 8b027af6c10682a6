"""What became of pods that a step started: how they ended, and which of them never will run. Pure: manifests in, words out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from tidewheel.pods.waiting import MAX_WORDS, waiting_for

HEAP_FULL = 52  # Spark's exit code of an executor whose heap was full
IMAGE_SECONDS = 45.0  # a registry may be slow to answer once


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


def never_starts(pods: Iterable[Mapping[str, Any]], waited_seconds: float) -> str | None:
    """Which pod cannot start whatever happens, and why; None where one still may."""
    for each in (waiting for pod in pods for waiting in waiting_for(pod)):
        if each.is_for_good or (each.what == "image" and waited_seconds > IMAGE_SECONDS):
            return f"pod {each.pod}: {each.words}"
    return None
