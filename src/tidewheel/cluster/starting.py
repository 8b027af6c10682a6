"""Pods of a submitted run that do not start: each is said once, and what does not mend itself ends the wait."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from tidewheel.cluster.api import Unseen, items
from tidewheel.cluster.checks.waiting import is_being_made, not_mounted, unconfigured, without_image, without_node
from tidewheel.cluster.facts import IN_WORK, MANY, listing
from tidewheel.cluster.finding import Finding, Severity, optional
from tidewheel.cluster.reach import Objects, Reach, reach
from tidewheel.contracts.labels import KUBEFLOW_RUN
from tidewheel.errors import ConfigError, TidewheelError

LOOK_SECONDS = 15.0  # between two looks
PATIENCE_SECONDS = 300.0

Say = Callable[[Finding], None]


class Starting:
    """What the pods of one run wait for.

    A missing image, ConfigMap or Secret is needed: nothing but a person mends it. A node, a queue, a quota or a slow volume may
    come by itself, however long it takes.
    """

    def __init__(
        self,
        within: Reach,
        run_id: str,
        say: Say,
        *,
        patience_seconds: float = PATIENCE_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """
        Args:
            say: hears of each thing that holds a pod up once.
            patience_seconds: how long what is needed may be missing.
        """
        self._within = within
        self._run_id = run_id
        self._say = say
        self._patience_seconds = patience_seconds
        self._clock = clock
        self._next = -math.inf
        self._said: set[tuple[str, str]] = set()
        self._since: dict[tuple[str, str], float] = {}

    def look(self) -> None:
        """Look, where the last look was long enough ago. Cheap to call often; a cluster that cannot be seen says nothing.

        Raises:
            TidewheelError: something needed is missing for longer than `patience_seconds`.
        """
        now = self._clock()
        if now < self._next:
            return
        self._next = now + LOOK_SECONDS
        pods = self._of_run("/api/v1", "pods", fieldSelector=IN_WORK)
        if isinstance(pods, Unseen):
            return
        found = dict(self._held(pods))
        self._since = {key: self._since.get(key, now) for key in found}
        for key, finding in found.items():
            if key not in self._said:
                self._said.add(key)
                self._say(finding)
            waited = now - self._since[key]
            if finding.severity is Severity.NEEDED and waited >= self._patience_seconds:
                raise TidewheelError(
                    f"run {self._run_id}: {finding.explain()}. That was waited for {waited:.0f} s; the run goes on in the "
                    "cluster, as soon as it is mended: end it in Kubeflow's interface if it shall not"
                )

    def _held(self, pods: Objects) -> Iterator[tuple[tuple[str, str], Finding]]:
        """((name of the pod, of the finding), finding)."""
        for pod in pods:
            found = [*without_image(pod), *unconfigured(pod), *without_node(pod)]
            if is_being_made(pod):
                found += not_mounted(pod, items(self._within.api.ask(_events(pod))))
            yield from (((pod["metadata"]["name"], finding.name), finding) for finding in found)
        if not pods:
            yield from self._without_pod()

    def _without_pod(self) -> Iterator[tuple[tuple[str, str], Finding]]:
        """Tasks whose pod could not be made, e.g. for a quota: only the workflow tells."""
        workflows = self._of_run("/apis/argoproj.io/v1alpha1", "workflows")
        for workflow in [] if isinstance(workflows, Unseen) else workflows:
            for node in (workflow.get("status", {}).get("nodes") or {}).values():
                if node.get("type") == "Pod" and node.get("phase") == "Pending" and node.get("message"):
                    found = f"the pod of {node.get('displayName')} is not made: {' '.join(node['message'].split())[:300]}"
                    remedy = "wait until other pods have ended, raise the quota, or ask for less in placement"
                    yield (node["id"], "pods"), optional("pods", found, "room for it in the namespace", remedy)

    def _of_run(self, group: str, kind: str, **query: str) -> Objects | Unseen:
        return self._within.listed(group, kind, labelSelector=f"{KUBEFLOW_RUN}={self._run_id}", **query)


def _events(pod: Mapping[str, Any]) -> str:
    about = f"involvedObject.kind=Pod,involvedObject.name={pod['metadata']['name']}"
    return listing(f"/api/v1/namespaces/{pod['metadata']['namespace']}/events", fieldSelector=about, limit=MANY)


def looking_at(run_id: str, say: Say, patience_seconds: float) -> Callable[[], None]:
    """`Starting.look` at the cluster of the kubeconfig or of this pod; where there is none, a look that sees nothing."""
    try:
        found = reach(math.inf)
    except ConfigError:
        found = None
    return Starting(found[1], run_id, say, patience_seconds=patience_seconds).look if found is not None else lambda: None
