"""The door to what serves on Kubernetes: a Rollout of Argo Rollouts, or a Deployment, of the chart `helm/ranker-serving`."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from tidewheel.contracts.target import OnCluster
from tidewheel.errors import ConfigError, RetryableError, TidewheelError
from tidewheel.pods.api import connect

CONTAINER = "server"  # the container of the chart whose environment names the bundle
BUNDLE_VARIABLE = "TIDEWHEEL_BUNDLE"
CANARY_ANNOTATION = "tidewheel/canary"  # of the Rollout: what its analysis is asked to judge
# The chart's label on a Rollout without a bundle: Argo Rollouts leaves it alone, so that its first revision has one.
UNRELEASED_LABEL = "argo-rollouts.argoproj.io/controller-instance-id"
KINDS = {"argo": ("argoproj.io", "v1alpha1", "rollouts"), "deployment": ("apps", "v1", "deployments")}
TRIES = 5  # of a change that somebody else's came before
LOOK_SECONDS = 1.0
CALL_SECONDS = 10.0  # of one try; the client makes four


@dataclass(frozen=True)
class Standing:
    """What the workload says of itself.

    `bundle`: digest in its template, empty before the first release; `revision`: hash of that template's pods. `is_settled`:
    nothing that was asked for is under way. `is_aborted`: the pods of the template before this one serve, and will go on.
    `has_steps`: it is going to take the canary's steps, whose `shares` are in (0, 1]. `words`: its own, for people.
    """

    bundle: str
    canary: str
    revision: str
    is_settled: bool
    is_aborted: bool
    words: str
    has_steps: bool = False
    shares: tuple[float, ...] = ()


class Workload:
    """One Rollout or Deployment. Every method may do IO; a change is made whole or not at all."""

    def __init__(self, target: OnCluster, sleep: Callable[[float], None] = time.sleep) -> None:
        """
        Raises:
            ConfigError: there are no credentials for a cluster.
        """
        self.target = target
        self._sleep = sleep
        try:
            self._client = connect()
        except ConfigError as error:
            raise ConfigError(f"{error}, or deploy.target.kind=embedded") from error
        self._place = dict(zip(("group", "version", "plural"), KINDS[target.kind], strict=True))
        self._place |= {"namespace": target.namespace, "name": target.name}

    @property
    def where(self) -> str:
        return f"{self._place['plural'].removesuffix('s')} {self.target.name} in namespace {self.target.namespace}"

    def standing(self) -> Standing:
        """
        Raises:
            ConfigError: it is not there, may not be read, or is none of the chart.
            RetryableError: the cluster does not answer.
        """
        return standing_of(self._read(), self.where)

    def missing_rights(self) -> list[str]:
        """What this account may not do of what `offer` and `serve` do, e.g. `patch rollouts/status`.

        Raises:
            RetryableError: the cluster does not answer.
        """
        from kubernetes import client

        wanted = [("get", ""), ("patch", ""), *([("patch", "status")] if self.target.kind == "argo" else [])]
        reviews = client.AuthorizationV1Api(self._client)
        missing = []
        for verb, part in wanted:
            asked = {name: self._place[name] for name in ("group", "namespace", "name")}
            asked |= {"resource": self._place["plural"], "verb": verb, "subresource": part}
            review = {"spec": {"resourceAttributes": asked}}
            if not self._ask(reviews.create_self_subject_access_review, "review", body=review).status.allowed:
                missing.append(f"{verb} {'/'.join(filter(None, (self._place['plural'], part)))}")
        return missing

    def offer(self, bundle: str, canary: str) -> None:
        """Put a candidate into the template, so that the workload's own steps begin. Idempotent.

        Raises: as `standing`.
        """
        self._change(bundle, {CANARY_ANNOTATION: canary})

    def serve(self, bundle: str, canary: str = "") -> Standing:
        """Let all pods serve this bundle, past every step, and wait until they do.

        Args:
            canary: what the analysis is asked about when the pods change without a release; empty: as before.

        Raises: as `standing`; RetryableError: not in time, or it was aborted.
        """
        self._change(bundle, {CANARY_ANNOTATION: canary} if canary else {})
        now = self.wait(self.target.start_seconds, self._skip_steps)
        if not now.is_settled or now.is_aborted or now.bundle != bundle:
            raise RetryableError(
                f"{self.where}: does not serve {bundle[:12]} after {self.target.start_seconds:g} s: {now.words}"
            )
        return now

    def wait(self, seconds: float, told: Callable[[Standing], None] = lambda standing: None) -> Standing:
        """Look until it has settled, or the time is up; what it said last. `told` is called at every look."""
        deadline = time.monotonic() + seconds
        while True:
            try:
                now = self.standing()
            except RetryableError:
                if time.monotonic() >= deadline:
                    raise
            else:
                told(now)
                if now.is_settled or time.monotonic() >= deadline:
                    return now
            self._sleep(LOOK_SECONDS)

    def _skip_steps(self, now: Standing) -> None:
        """Tell the Rollout that the decision was made elsewhere. It forgets this with every template that it sees for the first
        time, so it is told again."""
        if now.has_steps:
            self._call("patch_namespaced_custom_object_status", body={"status": {"promoteFull": True}})

    def _change(self, bundle: str, annotations: Mapping[str, str]) -> None:
        for _ in range(TRIES):
            live = self._read()
            change = change_of(live, self.where, bundle, annotations)
            if change is None:
                return
            try:
                self._call("patch_namespaced_custom_object", body=change)
            except RetryableError:
                continue
            return
        raise RetryableError(f"{self.where}: somebody else changed it {TRIES} times meanwhile; try again")

    def _read(self) -> dict[str, Any]:
        return self._call("get_namespaced_custom_object")

    def _call(self, verb: str, **more: Any) -> dict[str, Any]:
        from kubernetes import client

        return self._ask(getattr(client.CustomObjectsApi(self._client), verb), verb, **self._place, **more)

    def _ask(self, call: Callable[..., Any], verb: str, **arguments: Any) -> Any:
        from kubernetes.client import ApiException
        from urllib3.exceptions import HTTPError

        try:
            return call(**arguments, _request_timeout=CALL_SECONDS)
        except ApiException as error:
            raise _explained(error, self.where, verb) from error
        except HTTPError as error:
            raise RetryableError(f"{self.where}: the cluster does not answer ({type(error).__name__})") from error


def standing_of(live: Mapping[str, Any], where: str) -> Standing:
    """Reads a Rollout or Deployment as the API gives it. Pure.

    Raises:
        ConfigError: it is none of the chart.
    """
    spec, status = live["spec"], live.get("status", {})
    values = _environment(live, where)
    conditions = {each["type"]: each for each in status.get("conditions", ())}
    common = {
        "bundle": values[BUNDLE_VARIABLE].get("value", ""),
        "canary": live["metadata"].get("annotations", {}).get(CANARY_ANNOTATION, ""),
    }
    if spec.get("paused"):
        return Standing(**common, revision="", is_settled=True, is_aborted=False, words="paused: nothing was released yet")
    if live.get("kind") == "Deployment":
        wanted = spec.get("replicas", 1)
        counts = [status.get(name, 0) for name in ("updatedReplicas", "availableReplicas", "replicas")]
        failed = conditions.get("Progressing", {}).get("reason") == "ProgressDeadlineExceeded"
        words = f"{counts[0]} of {wanted} pods are new, {counts[1]} available"
        is_settled = _is_observed(live) and (failed or counts == [wanted] * 3)
        return Standing(**common, revision="", is_settled=is_settled, is_aborted=failed, words=words)
    phase, message = status.get("phase", ""), status.get("message", "")
    is_aborted = bool(status.get("abort"))
    is_stable = phase == "Healthy" and status.get("stableRS") == status.get("currentPodHash")
    steps = spec.get("strategy", {}).get("canary", {}).get("steps", ())
    weights = [step["setWeight"] for step in steps if "setWeight" in step]
    at = status.get("currentStepIndex", 0)
    place = f", step {min(at // 2 + 1, len(weights))} of {len(weights)}" if weights and at < len(steps) else ""
    return Standing(
        **common,
        revision=status.get("currentPodHash", ""),
        is_settled=_is_observed(live) and (is_aborted or is_stable),
        is_aborted=is_aborted,
        words=f"{phase or 'not seen yet'}{place}{f': {message}' if message else ''}",
        has_steps=_is_observed(live) and not (is_stable or is_aborted or status.get("promoteFull")),
        shares=tuple(weight / 100 for weight in weights),
    )


def change_of(live: Mapping[str, Any], where: str, bundle: str, annotations: Mapping[str, str]) -> dict[str, Any] | None:
    """The merge patch that puts a bundle into the template, or None where it is there; refused by the API (409) if anybody
    changed the object since it was read. Pure.

    Raises:
        ConfigError: the object is none of the chart.
    """
    _environment(live, where)
    known = live["metadata"].get("annotations", {})
    containers = [dict(each) for each in live["spec"]["template"]["spec"]["containers"]]
    for each in containers:
        if each["name"] == CONTAINER:
            each["env"] = [
                variable | {"value": bundle} if variable["name"] == BUNDLE_VARIABLE else variable for variable in each["env"]
            ]
    is_same = containers == live["spec"]["template"]["spec"]["containers"]
    if is_same and not live["spec"].get("paused") and annotations.items() <= known.items():
        return None
    labels = {UNRELEASED_LABEL: None} if UNRELEASED_LABEL in live["metadata"].get("labels", {}) else {}
    version = live["metadata"]["resourceVersion"]
    return {
        "metadata": {"resourceVersion": version, "annotations": dict(annotations), "labels": labels},
        "spec": {"paused": False, "template": {"spec": {"containers": containers}}},
    }


def _environment(live: Mapping[str, Any], where: str) -> dict[str, Mapping[str, Any]]:
    """The environment of the server's container, by name."""
    for container in live["spec"]["template"]["spec"]["containers"]:
        if container["name"] == CONTAINER:
            values = {each["name"]: each for each in container.get("env", ())}
            if BUNDLE_VARIABLE in values:
                return values
    raise ConfigError(
        f"{where}: has no container {CONTAINER} with {BUNDLE_VARIABLE} in its environment; expected one of the chart "
        "ranker-serving"
    )


def _is_observed(live: Mapping[str, Any]) -> bool:
    """The controller has seen the newest change. Argo Rollouts gives the generation as text."""
    seen = str(live.get("status", {}).get("observedGeneration", "0"))
    return seen.isdigit() and int(seen) >= live["metadata"]["generation"]


def _explained(error: Any, where: str, verb: str) -> TidewheelError:
    """An answer of the API as one clear error."""
    reason = " ".join(str(error.reason).split())
    match error.status:
        case 404:
            return ConfigError(f"{where}: is not there; install the chart ranker-serving, or check deploy.target in the recipe")
        case 403:
            return ConfigError(
                f"{where}: this account may not {verb.split('_')[0]} it; name its service account in the chart's "
                "deployer.serviceAccounts"
            )
        case 401:
            return ConfigError(f"{where}: the cluster refused the credentials ({reason}); they may have expired")
        case 409 | 429:
            return RetryableError(f"{where}: {reason}")
        case status if status >= 500 or status == 0:
            return RetryableError(f"{where}: the cluster answered {status} {reason}")
        case status:
            return ConfigError(f"{where}: the cluster refused ({status} {reason}): {error.body}")
