"""Why a pod does not run yet, in the words of Kubernetes. Pure: manifests in."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

ABSENT_FOR_GOOD = ("InvalidImageName", "ErrImageNeverPull")
NO_IMAGE = ("ErrImagePull", "ImagePullBackOff", "ImageInspectError", *ABSENT_FOR_GOOD)
UNMADE = ("CreateContainerConfigError", "CreateContainerError")
# What a registry says of an image that no waiting brings.
REFUSALS = ("not found", "unauthorized", "denied", "forbidden", "no match for platform", "invalid reference format")
MAX_WORDS, END_WORDS = 300, 120  # of what is shown; a long message of an image says at its end what is wrong


@dataclass(frozen=True)
class Waiting:
    """One thing that a pod waits for.

    what: an `image`; the `settings` of a container that cannot be made; a `node`; its own `start`.
    reason, message: Kubernetes', on one line, whole.
    container, image: of what waits; empty where it is the pod.
    """

    pod: str
    what: Literal["image", "settings", "node", "start"]
    reason: str
    message: str = ""
    container: str = ""
    image: str = ""

    @property
    def is_for_good(self) -> bool:
        """Only a person ends it. An image of which nothing more is said than that it could not be had may still come."""
        if self.what != "image":
            return self.what == "settings"
        return self.reason in ABSENT_FOR_GOOD or any(sign in self.message for sign in REFUSALS)

    @property
    def words(self) -> str:
        """For people."""
        return f"{self.reason}: {shortened(self.message)}" if self.message else self.reason


def waiting_for(pod: Mapping[str, Any]) -> Iterator[Waiting]:
    """Nothing where all of it runs or has ended."""
    name, status = pod["metadata"]["name"], pod.get("status", {})
    for each in [*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())]:
        if waits := each.get("state", {}).get("waiting"):
            reason = waits.get("reason", "")
            what: Literal["image", "settings", "start"] = (
                "image" if reason in NO_IMAGE else "settings" if reason in UNMADE else "start"
            )
            yield Waiting(name, what, reason, _line(waits.get("message")), each.get("name", ""), each.get("image", ""))
    for condition in status.get("conditions") or ():
        if condition["type"] == "PodScheduled" and condition["status"] == "False":
            yield Waiting(name, "node", condition.get("reason", ""), _line(condition.get("message")))


def shortened(text: str | None) -> str:
    """What Kubernetes says, on one line; of a long one beginning and end."""
    words = _line(text)
    return words if len(words) <= MAX_WORDS else f"{words[: MAX_WORDS - END_WORDS]} … {words[-END_WORDS:]}"


def _line(text: str | None) -> str:
    return " ".join((text or "").split())
