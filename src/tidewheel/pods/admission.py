"""Whether a pod would be let in, asked before one is made: rights of this account, quotas, policies."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from tidewheel.errors import ConfigError, RetryableError
from tidewheel.pods.api import CALL_SECONDS, message_of

if TYPE_CHECKING:
    from kubernetes import client

_QUOTA = re.compile(r"exceeded quota: \S+, requested: (\S+), used: \S+, limited: (\S+)")


def expect_rights(api: client.ApiClient, namespace: str, verbs: Iterable[str], remedy: str) -> None:
    """This account may do all of it with pods.

    Raises:
        ConfigError: it may not.
    """
    from kubernetes import client

    authorization = client.AuthorizationV1Api(api)
    missing = []
    for verb in verbs:
        asked = {"resourceAttributes": {"namespace": namespace, "verb": verb, "resource": "pods"}}
        review = {"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview", "spec": asked}
        told = authorization.create_self_subject_access_review(review, _request_timeout=CALL_SECONDS)
        if not told.status.allowed:
            missing.append(verb)
    if missing:
        raise ConfigError(
            f"namespace {namespace}: this account may not {', '.join(missing)} pods; expected the rights of {remedy}"
        )


def refusal_of(core: client.CoreV1Api, namespace: str, pod: Mapping[str, Any]) -> str | None:
    """Why this pod would not be let in for now; None if it would. Nothing is made.

    Raises:
        ConfigError: it never would: no policy, quota or schema that says so changes by itself.
        RetryableError: the API server does not answer.
    """
    from kubernetes.client import ApiException
    from urllib3.exceptions import HTTPError

    try:
        core.create_namespaced_pod(namespace, pod, dry_run="All", _request_timeout=CALL_SECONDS)
    except ApiException as error:
        said = message_of(error)
        if "does not support dry run" in said:  # a webhook of the cluster's: it will say so when it is asked in earnest
            return None
        if error.status is None or error.status >= 500 or error.status == 429:
            raise RetryableError(f"namespace {namespace}: the cluster answered {error.status} {said}") from error
        if "exceeded quota" in said and not is_above_limit(said):
            return said
        raise ConfigError(
            f"namespace {namespace}: it takes no pod such as this step starts ({said}); ask for less in the recipe's "
            "placement, or change that rule"
        ) from error
    except HTTPError as error:
        raise RetryableError(f"namespace {namespace}: the cluster does not answer ({type(error).__name__})") from error
    return None


def is_above_limit(said: str) -> bool:
    """Whether one pod alone asks for more than the quota has that refused it: it does not help to wait until others end."""
    from kubernetes.utils.quantity import parse_quantity

    if not (found := _QUOTA.search(said)):
        return False
    requested, limited = (dict(pair.split("=", 1) for pair in text.strip('"').split(",")) for text in found.groups())
    return any(parse_quantity(amount) > parse_quantity(limited[what]) for what, amount in requested.items() if what in limited)
