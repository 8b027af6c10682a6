"""The door to a Kubeflow Pipelines backend, 2.14 or newer: the only module that speaks its API.

Each request ends within `CONNECT_SECONDS` and `READ_SECONDS` and is tried twice at most, so a command never hangs.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import kfp_server_api as api
import urllib3

from tidewheel.cluster.answers import fault_of, is_about_an_object, no_answer, no_endpoint, not_the_api
from tidewheel.cluster.backend import MAX_CONCURRENCY, Order, Parameters, RecurringRun, RunState, TaskState, Version
from tidewheel.contracts.recipe import pipeline_name
from tidewheel.errors import ConfigError

CONNECT_SECONDS, READ_SECONDS = 5, 20
PAGE_SIZE = 200  # the most that the backend gives at once
ENDPOINT_VARIABLE = "KFP_ENDPOINT"
TOKEN_VARIABLE = "KF_PIPELINES_SA_TOKEN_PATH"  # as the SDK has it: a file that is read before every request
STRUCTURE = re.compile(r"(root|exit-handler-\d+|condition-\S+|for-loop-\d+)$")
UNFINISHED = ("RUNTIME_STATE_UNSPECIFIED", "PENDING", "RUNNING", "CANCELING", "PAUSED")


class Kubeflow:
    """A backend at one address. Every method may raise ConfigError (somebody must act) or RetryableError (try again)."""

    def __init__(self, endpoint: str, token: Path | None = None) -> None:
        self.endpoint = endpoint.rstrip("/")
        configuration = api.Configuration(host=self.endpoint)
        configuration.retries = urllib3.Retry(total=1, backoff_factor=0.5)
        if token is not None:
            configuration.api_key_prefix["authorization"] = "Bearer"
            configuration.refresh_api_key_hook = lambda own: own.api_key.update(authorization=_read(token))
            configuration.refresh_api_key_hook(configuration)
        self._client = api.ApiClient(configuration)
        self._pipelines = api.PipelineServiceApi(self._client)
        self._uploads = api.PipelineUploadServiceApi(self._client)
        self._experiments = api.ExperimentServiceApi(self._client)
        self._runs = api.RunServiceApi(self._client)
        self._recurring = api.RecurringRunServiceApi(self._client)

    @classmethod
    def from_environment(cls, variables: Mapping[str, str] = os.environ) -> Kubeflow:
        """The backend that `KFP_ENDPOINT` names, with the token of `KF_PIPELINES_SA_TOKEN_PATH` where that is set.

        Raises:
            ConfigError: no endpoint is named.
        """
        endpoint = variables.get(ENDPOINT_VARIABLE, "").strip()
        if not endpoint:
            raise no_endpoint()
        token = variables.get(TOKEN_VARIABLE)
        return cls(endpoint if "://" in endpoint else f"http://{endpoint}", Path(token) if token else None)

    # --- pipelines and experiments

    def upload(self, recipe: str, pipeline: bytes) -> Version:
        """The version of this YAML of pipeline `tidewheel-<recipe>`, named by its digest; two uploaders make one.

        The backend keeps names unique, so whoever is second takes what the first one made.
        """
        pipeline_id = self._pipeline(pipeline_name(recipe))
        digest = hashlib.sha256(pipeline).hexdigest()
        found = self._version(pipeline_id, digest)
        if found is not None:
            return found
        with tempfile.NamedTemporaryFile(suffix=".yaml") as file:
            file.write(pipeline)
            file.flush()
            names = {"name": digest, "display_name": digest, "pipelineid": pipeline_id}
            made = self._ask("upload a pipeline", self._uploads.upload_pipeline_version, file.name, or_if=409, **names)
        if made is not None:
            return Version(pipeline_id, made.pipeline_version_id)
        found = self._version(pipeline_id, digest)
        if found is None:
            raise fault_of(self.endpoint, f"find version {digest[:12]}, which it said it has", 409, "")
        return found

    def experiment(self, recipe: str) -> str:
        """Id of the experiment `tidewheel-<recipe>`, made when it is not there."""
        name = pipeline_name(recipe)
        found = self._experiment(name)
        if found is None:
            body = api.V2beta1Experiment(display_name=name, description=f"Runs of the recipe {recipe}.")
            made = self._ask("create an experiment", self._experiments.experiment_service_create_experiment, body, or_if=409)
            found = made.experiment_id if made is not None else self._experiment(name)
        if found is None:
            raise fault_of(self.endpoint, f"find experiment {name}, which it said it has", 409, "")
        return found

    def _pipeline(self, name: str) -> str:
        ask = self._pipelines.pipeline_service_get_pipeline_by_name
        found = self._ask(f"read pipeline {name}", ask, name, or_if=404)
        if found is None:
            body = api.V2beta1Pipeline(name=name, display_name=name)
            found = self._ask("create a pipeline", self._pipelines.pipeline_service_create_pipeline, body, or_if=409)
        return (found or self._ask(f"read pipeline {name}", ask, name)).pipeline_id

    def _version(self, pipeline_id: str, name: str) -> Version | None:
        ask = self._pipelines.pipeline_service_list_pipeline_versions
        found = self._ask("list versions of a pipeline", ask, pipeline_id, filter=_equals("name", name))
        versions = found.pipeline_versions or []
        return Version(pipeline_id, versions[0].pipeline_version_id) if versions else None

    def _experiment(self, name: str) -> str | None:
        ask = self._experiments.experiment_service_list_experiments
        found = self._ask("list experiments", ask, filter=_equals("display_name", name))
        return found.experiments[0].experiment_id if found.experiments else None

    # --- runs

    def create_run(self, order: Order) -> str:
        """Id of a new run. Not idempotent: twice makes two."""
        body = api.V2beta1Run(**_common(order))
        return self._ask("create a run", self._runs.run_service_create_run, body).run_id

    def run(self, run_id: str) -> RunState:
        """How far a run is."""
        found = self._ask(f"read run {run_id}", self._runs.run_service_get_run, run_id)
        details = found.run_details.task_details if found.run_details else None
        error = found.error.message if found.error and found.error.message else ""
        return RunState(run_id, found.state or "PENDING", tuple(_tasks(details or [])), error)

    def terminate(self, run_id: str) -> None:
        """Ask a run to end."""
        self._ask(f"end run {run_id}", self._runs.run_service_terminate_run, run_id)

    def address_of(self, run_id: str) -> str:
        """Where a person looks at a run."""
        return f"{self.endpoint}/#/runs/details/{run_id}"

    # --- recurring runs

    def recurring_runs(self) -> list[RecurringRun]:
        """All that the backend has, page by page."""
        ask = self._recurring.recurring_run_service_list_recurring_runs
        pages = self._pages("list recurring runs", ask, "recurring_runs")
        return [_recurring_run(each) for each in pages]

    def create_recurring_run(self, order: Order, cron: str, *, is_enabled: bool) -> str:
        """Id of a new one: one run at a time, missed times are not made up for. Not idempotent."""
        body = api.V2beta1RecurringRun(
            **_common(order),
            max_concurrency=str(MAX_CONCURRENCY),
            no_catchup=True,
            mode="ENABLE" if is_enabled else "DISABLE",
            trigger=api.V2beta1Trigger(cron_schedule=api.V2beta1CronSchedule(cron=cron)),
        )
        ask = self._recurring.recurring_run_service_create_recurring_run
        return self._ask(f"create recurring run {order.title}", ask, body).recurring_run_id

    def enable(self, recurring_run_id: str) -> None:
        """Idempotent."""
        ask = self._recurring.recurring_run_service_enable_recurring_run
        self._ask(f"enable recurring run {recurring_run_id}", ask, recurring_run_id)

    def disable(self, recurring_run_id: str) -> None:
        """No further run starts; the one in flight goes on. Idempotent; fine when it is gone."""
        ask = self._recurring.recurring_run_service_disable_recurring_run
        self._ask(f"disable recurring run {recurring_run_id}", ask, recurring_run_id, or_if=404)

    def delete_recurring_run(self, recurring_run_id: str) -> None:
        """Kills its run in flight. Idempotent; fine when it is gone."""
        ask = self._recurring.recurring_run_service_delete_recurring_run
        self._ask(f"delete recurring run {recurring_run_id}", ask, recurring_run_id, or_if=404)

    def in_flight(self) -> set[str]:
        """Ids of the recurring runs that have a run which has not ended."""
        states = {"key": "state", "operation": "IN", "stringValues": {"values": list(UNFINISHED)}}
        ask = self._runs.run_service_list_runs
        runs = self._pages("list runs", ask, "runs", filter=json.dumps({"predicates": [states]}))
        return {each.recurring_run_id for each in runs if each.recurring_run_id}

    # --- one request

    def _pages(self, doing: str, ask: Callable[..., Any], field: str, **options: Any) -> Iterator[Any]:
        token = ""
        while True:
            page = self._ask(doing, ask, page_size=PAGE_SIZE, page_token=token, **options)
            found = getattr(page, field) or []
            if page.total_size and not found and not token:
                raise ConfigError(
                    f"Kubeflow Pipelines at {self.endpoint} counts {page.total_size} ({doing}) but shows none: "
                    "its API has other names than that of kfp-server-api 2.17; expected a backend from 2.14 on"
                )
            yield from found
            token = page.next_page_token or ""
            if not token:
                return

    def _ask(self, doing: str, ask: Callable[..., Any], *arguments: Any, or_if: int = 0, **options: Any) -> Any:
        """One request; None where the status `or_if` says that another was faster, or that it is gone."""
        try:
            answer = ask(*arguments, **options, _request_timeout=(CONNECT_SECONDS, READ_SECONDS))
        except api.ApiException as error:
            body = error.body.decode(errors="replace") if isinstance(error.body, bytes) else str(error.body or error.reason)
            if error.status and error.status == or_if and is_about_an_object(body):
                return None
            if not error.status:
                raise no_answer(self.endpoint, doing, error.reason) from error
            raise fault_of(self.endpoint, doing, error.status, body) from error
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise no_answer(self.endpoint, doing, getattr(error, "reason", None) or error) from error
        kind = self._client.last_response.getheader("Content-Type") or ""
        if "json" not in kind:
            raise not_the_api(self.endpoint, doing, kind)
        return answer


def _read(token: Path) -> str:
    try:
        return token.read_text(encoding="utf-8").strip()
    except OSError as error:
        raise ConfigError(
            f"{TOKEN_VARIABLE} names {token}: cannot be read ({error.strerror}); expected a file with a token"
        ) from error


def _common(order: Order) -> dict[str, Any]:
    reference = api.V2beta1PipelineVersionReference(
        pipeline_id=order.version.pipeline_id, pipeline_version_id=order.version.version_id
    )
    return {
        "display_name": order.title,
        "description": order.description,
        "experiment_id": order.experiment_id,
        "pipeline_version_reference": reference,
        "runtime_config": api.V2beta1RuntimeConfig(parameters=dict(order.parameters)),
        "service_account": order.service_account,
    }


def _equals(key: str, value: str) -> str:
    return json.dumps({"predicates": [{"key": key, "operation": "EQUALS", "stringValue": value}]})


def _recurring_run(found: Any) -> RecurringRun:
    cron = found.trigger.cron_schedule.cron if found.trigger and found.trigger.cron_schedule else ""
    parameters: Parameters = (found.runtime_config.parameters if found.runtime_config else None) or {}
    return RecurringRun(
        id=found.recurring_run_id,
        title=found.display_name or "",
        description=found.description or "",
        cron=cron or "",
        parameters=parameters,
        is_enabled=found.status == "ENABLED",
        created_at=found.created_at or datetime.fromtimestamp(0, UTC),
        is_ours=found.max_concurrency == str(MAX_CONCURRENCY) and bool(found.no_catchup),
    )


def _tasks(details: list[Any]) -> Iterator[TaskState]:
    """The steps, in the order in which they began.

    The backend's list also has the workflow itself, exit handlers, conditions, and a driver and an executor of each step.
    """
    names = {each.display_name for each in details}
    begun = sorted((each for each in details if each.start_time), key=lambda each: each.start_time)
    for each in begun:
        name = each.display_name or ""
        if f"{name}-driver" not in names or STRUCTURE.match(name):
            continue
        is_over = each.end_time and each.end_time >= each.start_time  # one at work ends in the year 1
        seconds = (each.end_time - each.start_time).total_seconds() if is_over else None
        yield TaskState(name, each.state or "PENDING", seconds)
