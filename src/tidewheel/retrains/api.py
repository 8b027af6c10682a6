"""The door to a cluster's API for `Retrain` objects and events. No run depends on it: what it refuses is said, no more."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import Any

from tidewheel.errors import ConfigError
from tidewheel.pods.api import connect
from tidewheel.pods.own import NAMESPACE_VARIABLE
from tidewheel.retrains.resource import GROUP, PLURAL, VERSION, Run, events_of, retrain_of, status_of

CALL_SECONDS = 5.0
GONE, THERE = 404, 409


def namespace_of(environment: Mapping[str, str]) -> str:
    """The namespace in which runs are shown, set in pods of a pipeline, or an empty text: there is nobody to show them to."""
    return environment.get(NAMESPACE_VARIABLE, "")


def show(run: Run, namespace: str) -> bool:
    """Write what `kubectl` shows of a run. Idempotent; False, and a line on stderr, where that was refused."""
    from kubernetes import client
    from kubernetes.client import ApiException
    from urllib3.exceptions import HTTPError

    place = {"group": GROUP, "version": VERSION, "namespace": namespace, "plural": PLURAL}
    try:
        api = connect()
        objects, core = client.CustomObjectsApi(api), client.CoreV1Api(api)
        _made(objects.create_namespaced_custom_object, **place, body=retrain_of(run))
        live = objects.patch_namespaced_custom_object_status(
            **place, name=run.run_id, body={"status": status_of(run)}, _request_timeout=CALL_SECONDS
        )
        for event in events_of(run, namespace, live["metadata"]["uid"]):
            _made(core.create_namespaced_event, namespace=namespace, body=event)
    except ApiException as error:
        why = f"the cluster has no {PLURAL}.{GROUP}: apply manifests/crds" if error.status == GONE else f"{error.reason}"
        return _unseen(run, f"{error.status} {why}")
    except (HTTPError, ConfigError) as error:
        return _unseen(run, f"{type(error).__name__}: {error}")
    return True


def _made(create: Callable[..., Any], **arguments: Any) -> None:
    from kubernetes.client import ApiException

    try:
        create(**arguments, _request_timeout=CALL_SECONDS)
    except ApiException as error:
        if error.status != THERE:
            raise


def _unseen(run: Run, why: str) -> bool:
    print(f"tidewheel: kubectl shows nothing new of run {run.run_id}: {' '.join(why.split())[:300]}", file=sys.stderr)
    return False
