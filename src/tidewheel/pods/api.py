"""The way to the API server from inside: the account of this pod, or a kubeconfig's current context."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

from tidewheel.errors import ConfigError

if TYPE_CHECKING:
    from kubernetes import client


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


def message_of(error: client.ApiException) -> str:
    """What the API server says in an answer that is an error, on one line; of another's answer its text or its reason."""
    body = str(error.body or "")
    try:
        said = str(json.loads(body)["message"])
    except (ValueError, KeyError, TypeError):  # not from the API server itself
        said = body[:300]
    return " ".join((said or str(error.reason)).split())
