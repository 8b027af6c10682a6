"""The door to an API server for `doctor --cluster`: the kubeconfig's current context, or the account of this pod."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tidewheel.cluster.api import Answer, Unseen, Why
from tidewheel.errors import ConfigError

if TYPE_CHECKING:
    from kubernetes import client

CONNECT_SECONDS = 3.0
READ_SECONDS = 5.0  # of one call
POD_NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
OBJECT = re.compile(r"<\S+ object at 0x[0-9a-f]+>: ")
VALUES = re.compile(r"\{.*")  # of a user, which the client shows with its secrets, and all that follows
MAX_WORDS = 300  # characters of what somebody else says
UNTRUSTED = 0  # the client's status for a certificate that is not trusted
WORDS = {UNTRUSTED: Why.UNTRUSTED, 401: Why.REFUSED, 403: Why.FORBIDDEN, 404: Why.ABSENT}


@dataclass(frozen=True)
class Place:
    """Where the questions go, and as whom: names of the kubeconfig. `namespace` is empty where the context names none."""

    context: str
    server: str
    user: str
    namespace: str


class Connection:
    """An API server that is asked until `deadline`, of the clock."""

    def __init__(self, api: client.ApiClient, deadline: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._api = api
        self._deadline = deadline
        self._clock = clock

    def ask(self, path: str, body: Mapping[str, Any] | None = None) -> Answer:
        from kubernetes.client import ApiException
        from urllib3.exceptions import HTTPError

        left = self._deadline - self._clock()
        if left <= 0:
            return Unseen(Why.LATE, f"{path.partition('?')[0]} was not asked for: the time was up")
        method = "GET" if body is None else "POST"
        headers = {"Accept": "application/json", "Content-Type": "application/json"}
        try:
            said, _, _ = self._api.call_api(
                path,
                method,
                header_params=headers,
                body=body,
                auth_settings=["BearerToken"],
                _preload_content=False,
                _request_timeout=(min(CONNECT_SECONDS, left), min(READ_SECONDS, left)),
            )
            document = json.loads(said.data)
        except ApiException as error:
            return Unseen(WORDS.get(error.status, Why.STRANGE), _said(error))
        except (HTTPError, OSError) as error:
            return Unseen(Why.SILENT, _brief(error))
        except ValueError:
            return Unseen(Why.STRANGE, "its answer is no JSON")
        if not isinstance(document, dict):
            return Unseen(Why.STRANGE, "its answer is no object of an API server")
        return document


def connect(deadline: float) -> tuple[Place, Connection]:
    """
    Raises:
        ConfigError: no kubeconfig, or one whose context, files or plugins do not give a cluster.
    """
    try:
        from kubernetes import client, config
    except ImportError as error:
        raise ConfigError("kubernetes: its client is not installed; pip install 'tidewheel[cluster]'") from error
    import yaml

    settings = client.Configuration()
    settings.retries = False
    try:
        if "KUBERNETES_SERVICE_HOST" in os.environ and "KUBECONFIG" not in os.environ:
            config.load_incluster_config(client_configuration=settings)
            namespace = POD_NAMESPACE.read_text(encoding="utf-8").strip() if POD_NAMESPACE.is_file() else ""
            return Place("of this pod", settings.host, "of this pod", namespace), _connection(settings, deadline)
        path = os.environ.get("KUBECONFIG") or None  # the client reads the variable when it is imported, and never again
        _, active = config.list_kube_config_contexts(config_file=path)
        config.load_kube_config(config_file=path, client_configuration=settings)
    except (config.ConfigException, yaml.YAMLError, OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        said = VALUES.sub("…", _brief(error))
        raise ConfigError(
            f"{_kubeconfig()}: names no cluster ({said}); expected a kubeconfig with a current context: "
            "set KUBECONFIG, or choose one of kubectl config get-contexts with kubectl config use-context"
        ) from error
    context = active.get("context", {})
    place = Place(active["name"], settings.host, context.get("user", ""), context.get("namespace", ""))
    return place, _connection(settings, deadline)


def _connection(settings: client.Configuration, deadline: float) -> Connection:
    import urllib3
    from kubernetes import client

    if not settings.verify_ssl:  # as the kubeconfig says; a warning for each question says no more
        urllib3.disable_warnings(urllib3.exceptions.InsecureRequestWarning)
    return Connection(client.ApiClient(settings), deadline)


def _kubeconfig() -> str:
    return f"kubeconfig {os.environ.get('KUBECONFIG') or '~/.kube/config'}"


def _said(error: Any) -> str:
    """The message of an API server's Status, or the bare status of whoever answered."""
    try:
        return _brief(json.loads(error.body)["message"])
    except (ValueError, KeyError, TypeError):
        return _brief(error.reason if error.status == UNTRUSTED else f"{error.status} {error.reason}")


def _brief(error: object) -> str:
    """One line, without the objects that the client names by their address in memory."""
    return OBJECT.sub("", " ".join(str(error).split()))[:MAX_WORDS] or type(error).__name__
