"""Executors of Spark as pods of a step: asked for, waited for, watched, and gone when the step's work ends."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tidewheel.contracts.labels import RUN, STEP
from tidewheel.contracts.placement import Executors, Placed, StepPlacement, bytes_of
from tidewheel.errors import ConfigError, RetryableError
from tidewheel.pods.admission import expect_rights, refusal_of
from tidewheel.pods.api import CALL_SECONDS, connect
from tidewheel.pods.fates import Fate, never_starts
from tidewheel.pods.memory import Sizes
from tidewheel.pods.own import OwnPod, labels_of, own_pod
from tidewheel.pods.spark import COMPONENT, server_of, settings_of, template_of
from tidewheel.pods.waiting import waiting_for
from tidewheel.pods.watched import Watched

VERBS = ("get", "list", "watch", "create", "delete", "deletecollection")
RIGHTS = "manifests/runs/rights-of-spark.yaml"
SPARE_SECONDS = 60.0  # of the step's time, in which it says why it has failed
MAX_EARLY_ENDS = 3  # executors that ended before any registered
REFUSED_SECONDS = 10.0
# Java's and py4j's words where executors, or the driver's Java itself, were lost; anything else is the work's own fault.
_LOST = ("ExecutorLostFailure", "Py4JNetworkError", "ConnectionRefusedError", "Answer from Java side is empty")


def spark_pods(environment: Mapping[str, str], run_id: str, sizes: Sizes) -> SparkPods | None:
    """Where the placement of this step asks for executors; None where the engine is in this pod, and on a laptop.

    Raises:
        ConfigError: this account may not look at its own pod.
        RetryableError: the API server does not answer.
    """
    placed = Placed.of(environment)
    if placed is None or placed.executors is None or (pod := own_pod(environment)) is None:
        return None
    asked = sizes.sized(placed.executors, placed.executors.count)
    return SparkPods(pod, asked, placed.step, labels_of(pod, run_id), server_of(environment), sizes)


class SparkPods:
    """The executors of one step; nothing is asked of the cluster before `engaged`."""

    def __init__(
        self, pod: OwnPod, asked: Executors, step: StepPlacement, labels: Mapping[str, str], server: str, sizes: Sizes
    ) -> None:
        """`asked`: as `sizes` has sized them, which also hears how they ended."""
        self._pod, self._asked, self._step, self._server, self._sizes = pod, asked, step, server, sizes
        self._template = template_of(pod, asked, step, labels)
        ours = {label: value for label, value in labels.items() if label in (RUN, STEP)} | COMPONENT
        self._selector = ",".join(f"{label}={value}" for label, value in ours.items())
        self._watched = Watched(pod.namespace, self._selector, pod.uid)

    def expect_shared(self, folder: Path) -> None:
        """Executors see this folder too: what they wrote elsewhere would be lost, and nobody would notice.

        Raises:
            ConfigError: it lies on this pod alone.
        """
        scratch = {each["name"] for each in self._template["spec"]["volumes"] if "emptyDir" in each}
        (container,) = self._template["spec"]["containers"]
        shared = [Path(each["mountPath"]) for each in container["volumeMounts"] if each["name"] not in scratch]
        if not any(folder.resolve().is_relative_to(place) for place in shared):
            raise ConfigError(
                f"{folder}: Spark's executors do not see this folder; expected it on the claim of placement.volume, below "
                f"TIDEWHEEL_HOME ({', '.join(map(str, shared)) or 'this pod mounts no claim'}): have TIDEWHEEL_STORE there, "
                "or in a bucket"
            )

    @contextmanager
    def engaged(self) -> Iterator[dict[str, str]]:
        """Settings of a driver in this process. When the block ends, however it does, no executor stays.

        Raises:
            ConfigError: this account, a quota or a policy does not allow executors.
            RetryableError: executors were lost, and the work with them; one that ran out of memory is named.
        """
        self._expect_admitted()
        with TemporaryDirectory(prefix="executors-") as folder:
            template = Path(folder) / "pod.json"
            template.write_text(json.dumps(self._template), encoding="utf-8")  # JSON is YAML
            settings = settings_of(self._pod, self._asked, self._step, self._server, template)
            with self._watched:
                try:
                    yield settings
                except Exception as error:
                    if any(word in text for text in _texts(error) for word in _LOST):
                        raise self._lost() from error
                    raise
                else:
                    if not self.out_of_memory():  # one that was replaced teaches nothing: the work got through
                        self._sizes.ended(0)
                finally:
                    self._remove()

    def await_first(self, registered: Callable[[], int]) -> None:
        """Wait until Spark counts an executor. More of them join while it works.

        Raises:
            ConfigError: none can ever start.
            RetryableError: none did in the time that the step has.
        """
        from kubernetes import client

        core, began = client.CoreV1Api(connect()), time.monotonic()
        refused, asked_at = None, began
        while registered() < 1:
            waited = time.monotonic() - began
            pods, fates = self._watched.pods(), self._watched.fates()
            if found := never_starts(pods, waited):
                raise ConfigError(
                    f"Spark's executors cannot start: {found}; they are pods of the step's own image and volume: correct "
                    "the image, or what the recipe's placement asks for"
                )
            if len(fates) >= MAX_EARLY_ENDS:
                raise self._ended_early(fates)
            if not pods and time.monotonic() - asked_at > REFUSED_SECONDS:
                asked_at = time.monotonic()
                refused = refusal_of(core, self._pod.namespace, self._example())
            if time.time() > self._latest():
                raise RetryableError(self._too_late(pods, refused, waited))
            time.sleep(0.5)

    def out_of_memory(self) -> Fate | None:
        """The first executor so far that ended because it had too little memory."""
        return next((fate for fate in self._watched.fates() if fate.is_out_of_memory), None)

    def _expect_admitted(self) -> None:
        from kubernetes import client
        from kubernetes.client import ApiException
        from urllib3.exceptions import HTTPError

        namespace, api = self._pod.namespace, connect()
        try:
            expect_rights(api, namespace, VERBS, RIGHTS)
            self._remove()  # of an earlier try, whose pod was killed
        except (ApiException, HTTPError) as error:
            raise RetryableError(f"namespace {namespace}: the cluster does not answer ({error})") from error
        refusal_of(client.CoreV1Api(api), namespace, self._example())

    def _example(self) -> dict[str, Any]:
        return self._template | {"metadata": self._template["metadata"] | {"generateName": "tidewheel-executor-"}}

    def _remove(self) -> None:
        from kubernetes import client
        from kubernetes.client import ApiException
        from urllib3.exceptions import HTTPError

        core = client.CoreV1Api(connect())
        with suppress(ApiException, HTTPError):  # then they go with the pod that owns them
            core.delete_collection_namespaced_pod(
                self._pod.namespace, label_selector=self._selector, _request_timeout=CALL_SECONDS
            )

    def _latest(self) -> float:
        """When this step must end to say why, seconds since the epoch."""
        started = self._pod.manifest.get("status", {}).get("startTime")
        began = datetime.fromisoformat(started).timestamp() if started else time.time()
        return began + max(self._step.timeout_seconds - SPARE_SECONDS, self._step.timeout_seconds / 2)

    def _too_late(self, pods: list[Mapping[str, Any]], refused: str | None, waited: float) -> str:
        what = f"{self._asked.count} executors of {self._asked.cpu} CPU and {self._asked.memory}"
        if refused:
            why = refused
        elif pods:
            waiting = next(waiting_for(pods[0]), None)
            why = f"pod {pods[0]['metadata']['name']}: {waiting.words if waiting else 'does not call its driver'}"
        else:
            why = "no pod was made"
        queue = f", or give the queue {self._step.queue} more quota" if self._step.queue else ""
        return (
            f"namespace {self._pod.namespace}: none of {what} started within {waited:.0f} s ({why}); expected room for one at "
            f"least within placement's timeout_seconds {self._step.timeout_seconds}: ask for less{queue}"
        )

    def _ended_early(self, fates: list[Fate]) -> ConfigError | RetryableError:
        if self.out_of_memory():
            return self._lost()
        return ConfigError(
            f"Spark's executors end before they have started ({fates[-1]}); expected an image that runs "
            "`python -m tidewheel.pods.executor`: pyspark and a JRE, as python-data has them"
        )

    def _lost(self) -> RetryableError:
        """
        Raises:
            ConfigError: executors had as much memory as there may be.
        """
        if full := self.out_of_memory():
            self._sizes.ended(bytes_of(self._asked.memory))
            return RetryableError(
                f"Spark's executor {full}: {self._asked.memory} of memory was not enough; the next try gives more, up to "
                "placement.executors.max_memory"
            )
        last = next(reversed(self._watched.fates()), None)
        return RetryableError(f"Spark's executors were lost ({last or 'nothing is known of them'}); run again")


def _texts(error: BaseException) -> Iterator[str]:
    """What an exception and those that it came from say, each with its name."""
    while error is not None:
        yield f"{type(error).__name__}: {error}"
        error = error.__cause__ or error.__context__  # type: ignore[assignment]
