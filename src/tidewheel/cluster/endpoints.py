"""Whether the addresses of store, MLflow and Kubeflow Pipelines answer from here."""

from __future__ import annotations

import http.client
import ssl
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from urllib.parse import SplitResult, urlsplit

from tidewheel.cluster.finding import Finding, needed, optional, well

SECONDS = 5.0
FROM_HERE = "check the address and that it runs; one of the cluster's own names answers only inside: kubectl port-forward"


@dataclass(frozen=True)
class Endpoint:
    """A variable, the path that says whether what it names is healthy, and what needs it. Any answer will do without a path."""

    name: str
    variable: str
    path: str
    use: str


STORE = Endpoint("store", "TIDEWHEEL_STORE", "", "every verb that reads or writes releases")
ENDPOINTS = (
    STORE,
    Endpoint("mlflow", "MLFLOW_TRACKING_URI", "/health", "registering models"),
    Endpoint("kfp", "KFP_ENDPOINT", "/apis/v2beta1/healthz", "submit"),
)
# Address -> the status of the answer. Raises OSError where there is none.
Probe = Callable[[str], int]


def endpoint(wanted: Endpoint, environment: Mapping[str, str], probe: Probe) -> Finding:
    """One request at most, and no credentials with it."""
    value = environment.get(wanted.variable, "")
    if not value:
        return optional(
            wanted.name, f"{wanted.variable} is not set", f"the address that {wanted.use} needs", f"export {wanted.variable}=…"
        )
    try:
        parts = urlsplit(value)
        shown = _without_secrets(parts)
    except ValueError as error:
        return needed(
            wanted.name, f"{wanted.variable} is no address ({error})", "http://host:port", f"correct {wanted.variable}"
        )
    if wanted is STORE and parts.scheme == "s3":
        return _asked(wanted, _bucket(environment), f"{shown} at ", probe)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        kind = "a place of this machine" if parts.scheme in ("", "file", "sqlite") else f"of scheme {parts.scheme}"
        expected = "s3://bucket/prefix" if wanted is STORE else "http://host:port"
        found = f"{wanted.variable} is {kind} ({shown}), which pods do not reach"
        return optional(wanted.name, found, expected, f"set {wanted.variable} to what the cluster uses")
    return _asked(wanted, parts, "", probe)


def _asked(wanted: Endpoint, parts: SplitResult, before: str, probe: Probe) -> Finding:
    shown = before + _without_secrets(parts)
    address = parts._replace(
        netloc=parts.netloc.rpartition("@")[2], path=parts.path.rstrip("/") + wanted.path, query="", fragment=""
    )
    try:
        status = probe(address.geturl())
    except (OSError, ValueError) as error:
        return needed(wanted.name, f"{shown} does not answer: {' '.join(str(error).split())}", "an answer", FROM_HERE)
    if status in (401, 403) or (not wanted.path and status < 500):
        return well(wanted.name, f"{shown} answers; whether it accepts the credentials was not tried")
    if status >= 300:
        remedy = f"check that {wanted.variable} names it and nothing else; look into its log"
        return needed(wanted.name, f"{shown} answers {status} to GET {wanted.path or '/'}", "200", remedy)
    return well(wanted.name, f"{shown} answers")


def _bucket(environment: Mapping[str, str]) -> SplitResult:
    """Where requests for a bucket go."""
    region = environment.get("AWS_REGION") or environment.get("AWS_DEFAULT_REGION") or "us-east-1"
    own = environment.get("AWS_ENDPOINT_URL_S3") or environment.get("AWS_ENDPOINT_URL")
    return urlsplit(own or f"https://s3.{region}.amazonaws.com")


def _without_secrets(parts: SplitResult) -> str:
    return parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment="").geturl()


def status_of(address: str) -> int:
    """GET it, as a probe.

    Raises:
        OSError: nobody answers in time, or not in HTTP.
    """
    try:
        with urllib.request.urlopen(address, timeout=SECONDS) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code
    except urllib.error.URLError as error:
        raise OSError(str(error.reason)) from error
    except (http.client.HTTPException, ssl.SSLError, TimeoutError) as error:
        raise OSError(str(error) or type(error).__name__) from error
