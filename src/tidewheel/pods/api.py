"""The way to the API server from inside: the account of this pod, or a kubeconfig's current context."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from tidewheel.errors import ConfigError, RetryableError

if TYPE_CHECKING:
    from kubernetes import client

CALL_SECONDS = 10.0
LOOK_SECONDS = 2.0  # between two looks at what a step has started
PATIENCE_SECONDS = 300.0  # with a cluster that does not answer: an API server that starts again stops no work
T = TypeVar("T")


class AwayError(RetryableError):
    """The cluster does not answer, or not now."""


def patiently(
    asked: Callable[[], T],
    tell: Callable[[str], None],
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> T:
    """What the cluster says, once it answers; why it does not is told once.

    Raises:
        AwayError: it has not answered for `PATIENCE_SECONDS`.
    """
    began, said = clock(), ""
    while True:
        try:
            return asked()
        except AwayError as error:
            if clock() - began > PATIENCE_SECONDS:
                raise
            if str(error) != said:
                said = str(error)
                tell(said)
        sleep(LOOK_SECONDS)


def connect() -> client.ApiClient:
    """A client of its own; nothing is asked yet.

    Raises:
        ConfigError: there are no credentials for a cluster.
    """
    from kubernetes import client, config

    settings = client.Configuration()
    try:
        if "KUBERNETES_SERVICE_HOST" in os.environ and "KUBECONFIG" not in os.environ:
            config.load_incluster_config(client_configuration=settings)
        else:
            path = os.environ.get("KUBECONFIG") or None  # the client reads the variable once, when it is imported
            config.load_kube_config(config_file=path, client_configuration=settings)
    except config.ConfigException as error:
        raise ConfigError(f"kubernetes: no cluster is configured ({error}); set KUBECONFIG") from error
    return client.ApiClient(settings)


def ask(path: str, what: str, *, method: str = "GET", query: Any = (), body: Any = None) -> dict[str, Any]:
    """One request to the API server.

    Raises:
        ConfigError: it is refused: not there, not allowed, not valid, or over a quota.
        RetryableError: the API server does not answer.
    """
    from kubernetes.client import ApiException
    from urllib3.exceptions import HTTPError

    api = connect()
    try:
        return api.call_api(
            path,
            method,
            query_params=list(query),
            header_params={"Accept": "application/json", "Content-Type": "application/strategic-merge-patch+json"},
            body=body,
            auth_settings=["BearerToken"],
            response_type="object",
            _return_http_data_only=True,
            _request_timeout=CALL_SECONDS,
        )
    except ApiException as error:
        said = f"{what}: the cluster answered {error.status} {error.reason}: {message_of(error)}"
        if error.status in (401, 403, 404, 405, 422):
            raise ConfigError(said) from error
        raise RetryableError(said) from error
    except HTTPError as error:
        raise RetryableError(f"{what}: the cluster does not answer ({type(error).__name__})") from error


def message_of(error: client.ApiException) -> str:
    """What the API server says in an answer that is an error, on one line; of another's answer its text or its reason."""
    body = str(error.body or "")
    try:
        said = str(json.loads(body)["message"])
    except (ValueError, KeyError, TypeError):  # not from the API server itself
        said = body[:300]
    return " ".join((said or str(error.reason)).split())
