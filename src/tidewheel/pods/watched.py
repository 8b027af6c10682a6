"""Pods of an owner as they are and as they ended, seen as it happens: who lost a pod may delete it a moment later."""

from __future__ import annotations

from collections.abc import Mapping
from threading import Event, Lock, Thread
from typing import Any, Self

from tidewheel.pods.api import CALL_SECONDS, connect
from tidewheel.pods.fates import Fate, fate_of

WATCH_SECONDS = 30  # a watch is begun again after so long
PAUSE_SECONDS = 1.0


class Watched:
    """Watches while its block runs, in a thread of its own; a cluster that does not answer is asked again."""

    def __init__(self, namespace: str, selector: str, owner: str) -> None:
        """`owner`: the uid of the pod whose pods are meant, among those of the selector."""
        self._namespace, self._selector, self._owner = namespace, selector, owner
        self._pods: dict[str, Mapping[str, Any]] = {}
        self._fates: dict[str, Fate] = {}
        self._lock, self._ended = Lock(), Event()

    def __enter__(self) -> Self:
        Thread(target=self._follow, name="executors", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()  # the thread ends with its watch, or with the process

    def pods(self) -> list[Mapping[str, Any]]:
        """Those that are there and have not ended."""
        with self._lock:
            return [pod for pod in self._pods.values() if pod["metadata"]["uid"] not in self._fates]

    def fates(self) -> list[Fate]:
        """How others ended, in the order in which they did."""
        with self._lock:
            return list(self._fates.values())

    def see(self, kind: str, pod: Mapping[str, Any]) -> None:
        """One event of the API server's."""
        if all(owner["uid"] != self._owner for owner in pod["metadata"].get("ownerReferences", ())):
            return
        uid, fate = pod["metadata"]["uid"], fate_of(pod)
        with self._lock:
            if kind == "DELETED":
                self._pods.pop(uid, None)
            else:
                self._pods[uid] = pod
            if fate is not None:
                self._fates.setdefault(uid, fate)

    def _follow(self) -> None:
        from kubernetes import client, watch
        from kubernetes.client import ApiException
        from urllib3.exceptions import HTTPError

        api = connect()
        core = client.CoreV1Api(api)
        while not self._ended.is_set():
            try:
                found = api.sanitize_for_serialization(
                    core.list_namespaced_pod(self._namespace, label_selector=self._selector, _request_timeout=CALL_SECONDS)
                )
                with self._lock:
                    self._pods = {}
                for pod in found["items"]:
                    self.see("ADDED", pod)
                for event in watch.Watch().stream(
                    core.list_namespaced_pod,
                    self._namespace,
                    label_selector=self._selector,
                    resource_version=found["metadata"]["resourceVersion"],
                    timeout_seconds=WATCH_SECONDS,
                    _request_timeout=WATCH_SECONDS + CALL_SECONDS,
                ):
                    self.see(event["type"], event["raw_object"])
                    if self._ended.is_set():
                        return
            except (ApiException, HTTPError):
                self._ended.wait(PAUSE_SECONDS)  # asked again: what matters is in the next list
