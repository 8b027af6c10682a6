"""A second pod of a step: the same image, settings and queue, with more memory than the step's own pod can be given."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from tidewheel.contracts.labels import RUN, STEP
from tidewheel.contracts.placement import StepPlacement
from tidewheel.errors import ConfigError, RetryableError
from tidewheel.pods.admission import expect_rights, refusal_of
from tidewheel.pods.api import CALL_SECONDS, LOOK_SECONDS, AwayError, connect, message_of, patiently
from tidewheel.pods.fates import fate_of, never_starts
from tidewheel.pods.ladder import quantity
from tidewheel.pods.own import OwnPod, child_template, labels_of
from tidewheel.pods.waiting import waiting_for

COMPONENT = {"app.kubernetes.io/name": "step-beside"}
BESIDE_VARIABLE = "TIDEWHEEL_BESIDE"  # in such a pod, which makes no further one
VERBS = ("get", "list", "create", "delete", "deletecollection")
RIGHTS = "manifests/runs/rights-of-spark.yaml"
# For quota and a node, while this pod holds quota too: two steps that wait for each other's must both let go.
START_SECONDS = 1800.0
ORCHESTRATORS = ("ARGO_", "KFP_")  # variables of the step's own pod that are nobody else's
GONE = 404


def pod_of(pod: OwnPod, asked: StepPlacement, run_id: str, memory_bytes: int, command: Sequence[str]) -> dict[str, Any]:
    """The second pod: all that the step's own has, its account and queue too, but other memory and work. It ends with that."""
    labels = labels_of(pod, run_id) | COMPONENT | asked.queue_labels
    sized = asked.model_copy(update={"memory": quantity(memory_bytes)})
    found = child_template(pod, sized, labels, "main", {})
    spec, own = found["spec"], pod.container
    (container,) = spec["containers"]
    known = [each for each in own.get("env", ()) if not each["name"].startswith(ORCHESTRATORS)]
    container |= {
        "command": list(command),
        "env": [*known, {"name": BESIDE_VARIABLE, "value": pod.name}],
        "envFrom": own.get("envFrom", []),
    }
    spec |= {"automountServiceAccountToken": True, "activeDeadlineSeconds": asked.timeout_seconds}
    step = labels.get(STEP, "step").replace("_", "-")
    metadata = found["metadata"] | {"generateName": f"tidewheel-{step}-", "ownerReferences": [pod.owner]}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}


def is_beside(environment: Mapping[str, str]) -> bool:
    """Whether this process is in such a pod."""
    return bool(environment.get(BESIDE_VARIABLE))


def run_beside(
    pod: OwnPod,
    wanted: Mapping[str, Any],
    tell: Callable[[str], None],
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> dict[str, Any]:
    """Make `wanted` and wait for its end; how the API server had it then. It is gone where this does not return.

    Raises:
        ConfigError: it can never run: a right, quota, policy or the image is missing.
        RetryableError: it did not start in time, somebody else removed it, or the cluster is away.
    """
    door = Door(pod.namespace, wanted)
    door.prepare()
    name = door.make()
    tell(f"goes on in pod {name}, beside this one")
    began, said = clock(), ""
    try:
        while True:
            found = patiently(lambda: door.look(name), tell, sleep, clock)
            if found["status"].get("phase") in ("Succeeded", "Failed"):
                return found
            words = _waits(pod.namespace, found, clock() - began)
            if words and words != said:
                said = words
                tell(f"pod {name} waits: {said}")
            sleep(LOOK_SECONDS)
    except BaseException:
        door.remove(name)
        raise


def _waits(namespace: str, found: Mapping[str, Any], seconds: float) -> str:
    """For what a pod waits, empty where it runs.

    Raises:
        ConfigError: it waits for good.
        RetryableError: it has waited for too long.
    """
    name = found["metadata"]["name"]
    if hopeless := never_starts([found], seconds):
        raise ConfigError(f"namespace {namespace}: {hopeless}")
    waits = next(waiting_for(found), None)
    if waits is not None and seconds > START_SECONDS:
        raise RetryableError(
            f"namespace {namespace}: pod {name} did not start within {START_SECONDS / 60:.0f} minutes ({waits.words}); "
            "it needs quota and a node beside the step's own pod: give the queue more, or set memory in the recipe's placement"
        )
    return waits.words if waits is not None else ""


def words_of(found: Mapping[str, Any]) -> str:
    """How a pod that has ended did so."""
    return str(fate_of(found) or found["status"].get("phase", ""))


class Door:
    """The pods beside one step."""

    def __init__(self, namespace: str, wanted: Mapping[str, Any]) -> None:
        from kubernetes import client

        self._namespace, self._wanted = namespace, wanted
        self._api = connect()
        self._core = client.CoreV1Api(self._api)
        labels = wanted["metadata"]["labels"]
        ours = {label: labels[label] for label in (RUN, STEP) if label in labels} | COMPONENT
        self._selector = ",".join(f"{label}={value}" for label, value in ours.items())

    def prepare(self) -> None:
        """Remove what an earlier try left, and ask whether this one would be let in."""

        def prepared() -> None:
            expect_rights(self._api, self._namespace, VERBS, RIGHTS)
            self._core.delete_collection_namespaced_pod(
                self._namespace, label_selector=self._selector, _request_timeout=CALL_SECONDS
            )

        self._asked(prepared)
        if refused := refusal_of(self._core, self._namespace, self._wanted):
            raise RetryableError(f"namespace {self._namespace}: it takes no second pod of this step now ({refused})")

    def make(self) -> str:
        made = self._asked(
            lambda: self._core.create_namespaced_pod(self._namespace, self._wanted, _request_timeout=CALL_SECONDS)
        )
        return str(made.metadata.name)

    def look(self, name: str) -> dict[str, Any]:
        found = self._asked(lambda: self._core.read_namespaced_pod(name, self._namespace, _request_timeout=CALL_SECONDS))
        found = self._api.sanitize_for_serialization(found)
        if "deletionTimestamp" in found["metadata"]:
            raise self._lost(name)
        return found

    def remove(self, name: str) -> None:
        """Where that fails it goes with the pod that owns it, or with the run."""
        from kubernetes.client import ApiException
        from urllib3.exceptions import HTTPError

        with suppress(ApiException, HTTPError):
            self._core.delete_namespaced_pod(name, self._namespace, _request_timeout=CALL_SECONDS)

    def _lost(self, name: str) -> RetryableError:
        return RetryableError(f"namespace {self._namespace}: pod {name} was removed by somebody else, or preempted; run again")

    def _asked(self, call: Callable[[], Any]) -> Any:
        from kubernetes.client import ApiException
        from urllib3.exceptions import HTTPError

        try:
            return call()
        except ApiException as error:
            if error.status == GONE:
                raise self._lost("of the step's work") from error
            said = f"namespace {self._namespace}: the cluster answered {error.status} {message_of(error)}"
            raise (ConfigError(said) if error.status in (400, 403, 422) else AwayError(said)) from error
        except HTTPError as error:
            raise AwayError(f"namespace {self._namespace}: the cluster does not answer ({type(error).__name__})") from error
