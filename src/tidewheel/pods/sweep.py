"""The last look at what a run started: whatever became of its steps, nothing of it stays."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from tidewheel.contracts.labels import RUN
from tidewheel.contracts.placement import POD_VARIABLE
from tidewheel.errors import ConfigError
from tidewheel.pods.api import CALL_SECONDS, connect
from tidewheel.pods.own import NAMESPACE_VARIABLE

GONE = 404


def sweep(environment: Mapping[str, str], run_id: str) -> str:
    """Remove every object with the label of a run, in the namespace of this pod; idempotent.

    Returns:
        What was removed, or why something could not be, in a few words; empty where there was nothing, as on a laptop.
    """
    namespace = environment.get(NAMESPACE_VARIABLE, "")
    if not namespace:
        return ""
    from kubernetes.client import ApiException
    from urllib3.exceptions import HTTPError

    removed: list[str] = []
    try:
        for kind, (find, remove) in _kinds(namespace).items():
            for name in find(f"{RUN}={run_id}"):
                if name != environment.get(POD_VARIABLE) and remove(name):
                    removed.append(f"{kind} {name}")
    except ApiException as error:
        return f"something that the run started may be left: the cluster answered {error.status} {error.reason}"
    except (HTTPError, ConfigError) as error:
        return f"something that the run started may be left: {type(error).__name__}"
    return f"removed what was left: {', '.join(removed)}" if removed else ""


def _kinds(namespace: str) -> dict[str, tuple[Callable[[str], list[str]], Callable[[str], bool]]]:
    """Kind -> how its objects are found by a selector, and removed by name. What makes others comes first."""
    from kubernetes import client

    api = connect()
    core, objects = client.CoreV1Api(api), client.CustomObjectsApi(api)
    rayjobs = {"group": "ray.io", "version": "v1", "plural": "rayjobs"}

    def names(found: Any) -> list[str]:
        items = api.sanitize_for_serialization(found)["items"] if found else []
        return [each["metadata"]["name"] for each in items]

    def finder(call: Callable[..., Any], **kind: str) -> Callable[[str], list[str]]:
        return lambda selector: names(_ask(call, **kind, namespace=namespace, label_selector=selector))

    def remover(call: Callable[..., Any], **kind: str) -> Callable[[str], bool]:
        return lambda name: _ask(call, **kind, namespace=namespace, name=name, propagation_policy="Background") is not None

    return {
        "rayjob": (
            finder(objects.list_namespaced_custom_object, **rayjobs),
            remover(objects.delete_namespaced_custom_object, **rayjobs),
        ),
        "pod": (finder(core.list_namespaced_pod), remover(core.delete_namespaced_pod)),
        "service": (finder(core.list_namespaced_service), remover(core.delete_namespaced_service)),
        "configmap": (finder(core.list_namespaced_config_map), remover(core.delete_namespaced_config_map)),
    }


def _ask(call: Callable[..., Any], **arguments: Any) -> Any:
    """The answer, or None where there is no such object, or no such kind."""
    from kubernetes.client import ApiException

    try:
        return call(**arguments, _request_timeout=CALL_SECONDS)
    except ApiException as error:
        if error.status == GONE:
            return None
        raise
