"""The RayJob of a step: KubeRay starts Ray in pods of its own, and in it the driver of distributed training."""

from __future__ import annotations

import hashlib
import importlib.metadata
import shlex
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tidewheel.contracts.labels import STEP
from tidewheel.contracts.placement import GPU, RAY_HEAD, Placed, Toleration
from tidewheel.errors import ConfigError, RetryableError, TidewheelError
from tidewheel.pods.api import CALL_SECONDS, LOOK_SECONDS, AwayError, connect, message_of, patiently
from tidewheel.pods.ladder import shown
from tidewheel.pods.memory import Sizes, killed_bytes
from tidewheel.pods.own import OwnPod, child_template, labels_of
from tidewheel.pods.raystate import refusal_of, state_of

GROUP, VERSION, PLURAL = "ray.io", "v1", "rayjobs"
QUEUES = {"group": "kueue.x-k8s.io", "version": "v1beta2", "plural": "workloads"}
TTL_SECONDS = 600  # of Ray's pods, should nobody be left who removes the RayJob
OBJECT_STORE_BYTES = 128 * 2**20  # nothing of ours goes through it: rows and weights are files
ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_gcs_server_port_wait_time_s": "120",  # a busy machine needs more than the usual 30
}
NODE_LABEL = "ray.io/node-type"
GONE, THERE = 404, 409


def name_of(run_id: str, step: str, folder: Path) -> str:
    """Of the RayJob of a step's work in `folder`: equal whenever the step is started again."""
    digest = hashlib.sha256(f"{run_id} {folder}".encode()).hexdigest()
    return f"tidewheel-{step.replace('_', '-')}-{digest[:16]}"


def rayjob_of(
    pod: OwnPod, placed: Placed, run_id: str, folder: Path, num_workers: int, max_failures: int, ray_version: str
) -> dict[str, Any]:
    """The object: a small head for the driver, and a pod for each worker as `placed.workers` says.

    It ends with the pod that owns it. A driver that fails is started again in another Ray, `max_failures` times; one whose head
    was lost is submitted to the new head.
    """
    if placed.workers is None:
        raise ValueError("no workers are placed: there is nothing to start")
    labels = labels_of(pod, run_id)
    # Where the step's pod found a place, the head does too; but it needs no GPU.
    gpus = (Toleration(key=GPU, effect="NoSchedule"),) if placed.step.gpus else ()
    head = RAY_HEAD.model_copy(update={"pool": placed.step.pool, "tolerations": (*placed.step.tolerations, *gpus)})
    start = {"object-store-memory": str(OBJECT_STORE_BYTES)}
    return {
        "apiVersion": f"{GROUP}/{VERSION}",
        "kind": "RayJob",
        "metadata": {
            "name": name_of(run_id, labels.get(STEP, "train"), folder),
            "namespace": pod.namespace,
            "labels": labels | placed.step.queue_labels,
            "ownerReferences": [pod.owner],
        },
        "spec": {
            "entrypoint": shlex.join(["python", "-m", "tidewheel.training", "--one-a-node", str(folder)]),
            "submissionMode": "HTTPMode",  # KubeRay submits it itself: no pod that only waits
            "shutdownAfterJobFinishes": True,
            "ttlSecondsAfterFinished": TTL_SECONDS,
            "activeDeadlineSeconds": placed.step.timeout_seconds,
            "backoffLimit": max_failures,
            "rayClusterSpec": {
                "rayVersion": ray_version,
                "headGroupSpec": {
                    "rayStartParams": start | {"num-cpus": "0"},
                    "template": child_template(pod, head, labels, "ray-head", ENVIRONMENT),
                },
                "workerGroupSpecs": [
                    {
                        "groupName": "workers",
                        "replicas": num_workers,
                        "minReplicas": num_workers,
                        "maxReplicas": num_workers,
                        "rayStartParams": start | {"num-cpus": "1"},
                        "template": child_template(pod, placed.workers, labels, "ray-worker", ENVIRONMENT),
                    }
                ],
            },
        },
    }


def expect_enough_memory(where: str, pods: Sequence[Mapping[str, Any]], sizes: Sizes) -> None:
    """No pod of Ray was killed because its memory was not enough; `sizes` hears of a worker that was.

    Raises:
        RetryableError: one was.
        ConfigError: one was, and may have no more.
    """
    for pod in pods:
        if killed := killed_bytes([pod]):
            if pod["metadata"].get("labels", {}).get(NODE_LABEL) == "worker":
                sizes.ended(killed)
                more = "the next try gives workers more, up to placement.workers.max_memory"
            else:
                more = "it is Ray's head, whose memory is fixed: fewer workers need less of it"
            raise RetryableError(f"{where}: pod {pod['metadata']['name']} was OOMKilled at {shown(killed)}; {more}")


@dataclass(frozen=True)
class RayJobDriver:
    """Runs a driver of distributed training as the RayJob of this step, and removes it however that ends.

    A RayJob that an earlier pod of the same step left is taken over: it keeps running, and now ends with this pod.
    `sizes` hears how the workers ended; `placed` has them as it sized them.
    """

    pod: OwnPod
    placed: Placed
    run_id: str
    num_workers: int
    max_failures: int
    sizes: Sizes
    sleep: Callable[[float], None] = time.sleep

    @property
    def owner(self) -> str:
        return self.run_id

    def run(self, folder: Path, has_ended: Callable[[], bool], tell: Callable[[str], None]) -> str | None:
        """As training's `Driver`.

        Raises:
            ConfigError: it can never run here: KubeRay, a right, quota or the image is missing.
            RetryableError: a pod took more memory than it has, somebody else removed the RayJob, or the cluster is away.
        """
        wanted = rayjob_of(
            self.pod, self.placed, self.run_id, folder, self.num_workers, self.max_failures, importlib.metadata.version("ray")
        )
        door = Door(self.pod.namespace, wanted["metadata"]["name"])
        try:
            uid = self._make(door, wanted, has_ended, tell)
            return self._watch(door, uid, tell)
        finally:
            door.remove()

    def _make(self, door: Door, wanted: dict[str, Any], has_ended: Callable[[], bool], tell: Callable[[str], None]) -> str:
        """Make the RayJob, or take over the one that is there; its uid."""
        while True:
            try:
                live = patiently(lambda: door.make(wanted) or door.adopt(self.pod.owner), tell, self.sleep)
            except RefusedError as error:
                state = refusal_of(str(error))
                if state.phase == "hopeless":
                    raise ConfigError(f"{door.where}: {state.words}") from error
                tell(f"{door.where} {state.words}")
            else:
                if live is not None and (state_of(live).phase != "died" or has_ended()):
                    return live["metadata"]["uid"]
                if live is not None:
                    door.remove()
                tell(f"{door.where}: that of an earlier try goes")
            self.sleep(LOOK_SECONDS)

    def _watch(self, door: Door, uid: str, tell: Callable[[str], None]) -> str | None:
        while True:
            job, pods, workloads = patiently(lambda: door.look(uid), tell, self.sleep)
            expect_enough_memory(door.where, pods, self.sizes)
            state = state_of(job, pods, workloads)
            if state.phase == "succeeded":
                self.sizes.ended(0)
                return None
            if state.phase == "died":
                return f"{door.where}: {state.words}"
            if state.phase == "hopeless":
                raise ConfigError(f"{door.where}: {state.words}")
            tell(state.words)
            self.sleep(LOOK_SECONDS)


class RefusedError(Exception):
    """The cluster understood, and did not want the object."""


class Door:
    """One RayJob, by name. Every call may be made again."""

    def __init__(self, namespace: str, name: str) -> None:
        self.where = f"rayjob {name} in namespace {namespace}"
        self._name = name
        self._place = {"namespace": namespace}
        self._kind = {"group": GROUP, "version": VERSION, "plural": PLURAL}
        self._client = connect()

    def make(self, wanted: Mapping[str, Any]) -> dict[str, Any] | None:
        """Create it; None where there is one of its name."""
        return self._ask("create", self._objects().create_namespaced_custom_object, **self._kind, body=wanted)

    def adopt(self, owner: Mapping[str, Any]) -> dict[str, Any] | None:
        """Have it end with `owner`; None where it is gone, or about to be."""
        patch = {"metadata": {"ownerReferences": [owner]}}
        named = self._kind | {"name": self._name}
        live = self._ask("patch", self._objects().patch_namespaced_custom_object, **named, body=patch)
        return None if live is None or "deletionTimestamp" in live["metadata"] else live

    def look(self, uid: str) -> tuple[dict[str, Any], Sequence[dict[str, Any]], Sequence[dict[str, Any]]]:
        """It, the pods of its Ray, and what Kueue made of it where it is suspended.

        Raises:
            RetryableError: it is no longer there.
        """
        from kubernetes import client

        live = self._ask("get", self._objects().get_namespaced_custom_object, **self._kind, name=self._name)
        if live is None or live["metadata"]["uid"] != uid or "deletionTimestamp" in live["metadata"]:
            raise RetryableError(f"{self.where}: somebody else removed it; run again")
        cluster = live.get("status", {}).get("rayClusterName", "")
        pods: list[dict[str, Any]] = []
        if cluster:
            core = client.CoreV1Api(self._client)
            found = self._ask("list pods of", core.list_namespaced_pod, label_selector=f"ray.io/cluster={cluster}")
            pods = self._client.sanitize_for_serialization(found)["items"]
        return live, pods, self._workloads(uid) if live["spec"].get("suspend") else []

    def remove(self) -> None:
        """Delete it with its pods; where that fails its lifetime ends it, and a line on stderr says so."""
        try:
            call = self._objects().delete_namespaced_custom_object
            self._ask("delete", call, **self._kind, name=self._name, propagation_policy="Background")
        except (TidewheelError, RefusedError) as error:
            print(f"tidewheel: {self.where} is left to its owner and its lifetime: {error}", file=sys.stderr)

    def _workloads(self, uid: str) -> list[dict[str, Any]]:
        """Only for words: where they may not be seen, the RayJob waits all the same."""
        selector = f"kueue.x-k8s.io/job-uid={uid}"
        try:
            found = self._ask(
                "see the queue of", self._objects().list_namespaced_custom_object, **QUEUES, label_selector=selector
            )
        except (ConfigError, RefusedError):
            return []
        return [] if found is None else found["items"]

    def _objects(self) -> Any:
        from kubernetes import client

        return client.CustomObjectsApi(self._client)

    def _ask(self, verb: str, call: Callable[..., Any], **arguments: Any) -> Any:
        """The answer; None for an object that is not there, or, when it is to be created, is."""
        from kubernetes.client import ApiException
        from urllib3.exceptions import HTTPError

        try:
            return call(**self._place, **arguments, _request_timeout=CALL_SECONDS)
        except ApiException as error:
            if error.status == (THERE if verb == "create" else GONE):
                return None
            raise self._explained(error, verb) from error
        except HTTPError as error:
            raise AwayError(f"{self.where}: the cluster does not answer ({type(error).__name__})") from error

    def _explained(self, error: Any, verb: str) -> Exception:
        said = message_of(error)
        if error.status == GONE:
            return ConfigError(
                f"{self.where}: the cluster has no {PLURAL}.{GROUP}, so KubeRay is not installed; install the version in "
                "manifests/versions.toml, or leave placement.workers out"
            )
        if error.status in (400, 422) or (error.status == 403 and "cannot" not in said):
            return RefusedError(said)
        if error.status in (401, 403):
            return ConfigError(
                f"{self.where}: this account may not {verb} it ({error.status} {error.reason}); expected the role "
                "tidewheel-ray-submitter of manifests/runs"
            )
        return AwayError(f"{self.where}: the cluster answered {error.status} {error.reason}")
