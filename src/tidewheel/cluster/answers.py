"""What an answer of the backend that is not a success means to the person who asked: one line, and whether to try again."""

from __future__ import annotations

import json

from tidewheel.errors import ConfigError, RetryableError, TidewheelError

MAX_MESSAGE = 300


def no_endpoint() -> ConfigError:
    return ConfigError(
        "KFP_ENDPOINT is not set; expected the address of the Kubeflow Pipelines API, e.g. "
        "KFP_ENDPOINT=http://localhost:8888 after `kubectl port-forward -n kubeflow svc/ml-pipeline 8888`"
    )


def no_answer(endpoint: str, doing: str, why: object) -> RetryableError:
    reason = " ".join(str(why).split())[:MAX_MESSAGE]
    return RetryableError(
        f"Kubeflow Pipelines at {endpoint} does not answer ({doing}): {reason}; is KFP_ENDPOINT right, and is ml-pipeline up?"
    )


def not_the_api(endpoint: str, doing: str, kind: str) -> ConfigError:
    return ConfigError(
        f"{endpoint} answered {doing} with {kind or 'no content type'}, not JSON: it is a login page or another server; "
        "KFP_ENDPOINT must name the API itself, without a path"
    )


def fault_of(endpoint: str, doing: str, status: int, body: str) -> TidewheelError:
    """The error for an HTTP status that is no success.

    Args:
        endpoint: the backend's address.
        doing: what was asked for, e.g. `create a run`.
        status: the HTTP status.
        body: what the backend said, JSON with a message or anything else.
    """
    said = message_of(body)
    where = f"Kubeflow Pipelines at {endpoint}"
    if status == 401:
        return ConfigError(
            f"{where} does not know who asks ({doing}, 401: {said}); the token is missing or has expired: "
            "write a new one into the file that KF_PIPELINES_SA_TOKEN_PATH names"
        )
    if status == 403:
        return ConfigError(
            f"{where} refuses to {doing} (403: {said}); the account lacks this right on pipelines.kubeflow.org: bind it a role"
        )
    if status == 404:
        return ConfigError(
            f"{where} has nothing there to {doing} (404: {said}); expected the API of 2.14 or newer at this address"
        )
    if "unknown field" in said:
        return ConfigError(
            f"{where} cannot read this pipeline ({said}): it has a field that only newer backends know; "
            "upgrade the backend, or take out of the recipe's placement what it does not know"
        )
    if status in (408, 409, 429) or status >= 500:
        return RetryableError(f"{where} could not {doing} ({status}: {said}); try again, and if it stays look at its logs")
    return ConfigError(f"{where} refuses to {doing} ({status}: {said})")


def is_about_an_object(body: str) -> bool:
    """Whether a 404 is the API's own, about something that is gone, and not that of another server."""
    return isinstance(_json(body), dict)


def message_of(body: str) -> str:
    """The last part of the backend's own message, which is the first cause."""
    document = _json(body)
    text = str(document.get("message") or document.get("error") or body) if isinstance(document, dict) else body
    return " ".join(text.split())[:MAX_MESSAGE] or "no message"


def _json(body: str) -> object:
    try:
        return json.loads(body)
    except ValueError:
        return None
