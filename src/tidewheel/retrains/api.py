"""The door to a cluster's API for `Retrain` objects and events. No run depends on it: what it refuses is said, no more."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from typing import Any

from tidewheel.retrains.resource import GROUP, PLURAL, VERSION, Run, events_of, retrain_of, status_of

NAMESPACE_VARIABLE = "TIDEWHEEL_NAMESPACE"  # set in pods of a pipeline; without it there is nobody to show a run to
CALL_SECONDS = 5.0
GONE, THERE = 404, 409


def namespace_of(environment: Mapping[str, str]) -> str:
    """The namespace in which runs are shown, or an empty text."""
    return environment.get(NAMESPACE_VARIABLE, "")


def show(run: Run, namespace: str) -> bool:
    """Write what `kubectl` shows of a run. Idempotent; False, and a line on stderr, where that was refused."""
    from kubernetes import client
    from kubernetes.client import ApiException
    from kubernetes.config import ConfigException
    from urllib3.exceptions import HTTPError

    place = {"group": GROUP, "version": VERSION, "namespace": namespace, "plural": PLURAL}
    try:
        _connect()
        objects, core = client.CustomObjectsApi(), client.CoreV1Api()
        _made(objects.create_namespaced_custom_object, **place, body=retrain_of(run))
        live = objects.patch_namespaced_custom_object_status(
            **place, name=run.run_id, body={"status": status_of(run)}, _request_timeout=CALL_SECONDS
        )
        for event in events_of(run, namespace, live["metadata"]["uid"]):
            _made(core.create_namespaced_event, namespace=namespace, body=event)
    except ApiException as error:
        why = f"the cluster has no {PLURAL}.{GROUP}: apply manifests/crds" if error.status == GONE else f"{error.reason}"
        return _unseen(run, f"{error.status} {why}")
    except (HTTPError, ConfigException) as error:
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


def _connect() -> None:
    from kubernetes import config

    if "KUBERNETES_SERVICE_HOST" in os.environ and "KUBECONFIG" not in os.environ:
        config.load_incluster_config()
    else:
        config.load_kube_config()
