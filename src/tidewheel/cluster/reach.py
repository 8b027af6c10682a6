"""Objects of runs: in all namespaces or, where this account may not look at all of them, in those where runs are."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from tidewheel.cluster.api import Api, Unseen, Why, items
from tidewheel.cluster.connection import Place, connect
from tidewheel.cluster.facts import MANY, listing
from tidewheel.cluster.watched import Watched

BACKEND = "kubeflow"  # the namespace of the runs of a backend for one user
CONNECT_SECONDS = 10.0  # a credential plugin of the kubeconfig may hang

Objects = list[Mapping[str, Any]]


class Reach:
    """What may be listed through `api`."""

    def __init__(self, api: Api, namespaces: Sequence[str]) -> None:
        self.api = api
        self._namespaces = namespaces

    def listed(self, group: str, kind: str, **query: str) -> Objects | Unseen:
        """The objects of a kind, of `/api/v1` or `/apis/<group>/<version>`; why not, where no namespace could be looked at."""
        wanted: dict[str, str | int] = {**query, "limit": MANY}
        everywhere = self.api.ask(listing(f"{group}/{kind}", **wanted))
        if not isinstance(everywhere, Unseen):
            return items(everywhere)
        if everywhere.why is not Why.FORBIDDEN:
            return everywhere
        answers = [self.api.ask(listing(f"{group}/namespaces/{each}/{kind}", **wanted)) for each in self._namespaces]
        seen = [answer for answer in answers if not isinstance(answer, Unseen)]
        return [each for answer in seen for each in items(answer)] if seen else everywhere


def reach(seconds: float, namespace: str = "") -> tuple[Place, Reach] | None:
    """The cluster of the kubeconfig or of this pod, asked for so many seconds; None where a plugin of the kubeconfig hangs.

    Args:
        namespace: the one where runs are; empty: that of the context.

    Raises:
        ConfigError: no kubeconfig, or one that gives no cluster.
    """
    deadline = time.monotonic() + seconds
    reached = Watched(lambda: connect(deadline)).result(CONNECT_SECONDS)
    if reached is None:
        return None
    place, api = reached
    return place, Reach(api, sorted({namespace or place.namespace, BACKEND} - {""}))
