"""Addresses of the environment: which are asked, and what is said without giving a password away."""

from __future__ import annotations

import pytest

from tidewheel.cluster.endpoints import ENDPOINTS, STORE, endpoint
from tidewheel.cluster.finding import Severity

_, MLFLOW, KFP = ENDPOINTS


class Server:
    """Answers every address with one status, or with nobody; remembers what it was asked for."""

    def __init__(self, status: int | None = 200) -> None:
        self.status = status
        self.asked: list[str] = []

    def __call__(self, address: str) -> int:
        self.asked.append(address)
        if self.status is None:
            raise OSError("connection refused")
        return self.status


def test_a_health_page_is_asked_for_without_credentials_and_without_showing_them() -> None:
    server = Server()

    found = endpoint(MLFLOW, {"MLFLOW_TRACKING_URI": "https://ada:secret@mlflow.example/base/?token=secret"}, server)

    assert found.is_well
    assert found.found == "https://mlflow.example/base/ answers"
    assert server.asked == ["https://mlflow.example/base/health"]


def test_kubeflow_pipelines_is_asked_for_its_own() -> None:
    server = Server()

    assert endpoint(KFP, {"KFP_ENDPOINT": "http://kfp:8888"}, server).is_well
    assert server.asked == ["http://kfp:8888/apis/v2beta1/healthz"]


@pytest.mark.parametrize("status", [302, 404, 500])
def test_another_answer_than_health_is_in_the_way(status: int) -> None:
    found = endpoint(KFP, {"KFP_ENDPOINT": "http://kfp"}, Server(status))

    assert found.is_in_the_way
    assert found.found == f"http://kfp answers {status} to GET /apis/v2beta1/healthz"
    assert "KFP_ENDPOINT" in found.remedy


def test_nobody_at_an_address_is_in_the_way() -> None:
    found = endpoint(MLFLOW, {"MLFLOW_TRACKING_URI": "http://mlflow.mlflow:5000"}, Server(None))

    assert found.is_in_the_way
    assert found.found == "http://mlflow.mlflow:5000 does not answer: connection refused"
    assert "kubectl port-forward" in found.remedy


@pytest.mark.parametrize(
    ("environment", "want"),
    [
        ({"AWS_ENDPOINT_URL": "http://seaweed:9000"}, "http://seaweed:9000"),
        ({"AWS_REGION": "eu-central-1"}, "https://s3.eu-central-1.amazonaws.com"),
    ],
)
def test_a_bucket_is_asked_for_at_its_endpoint_and_a_refusal_is_an_answer(environment: dict[str, str], want: str) -> None:
    server = Server(403)

    found = endpoint(STORE, environment | {"TIDEWHEEL_STORE": "s3://bucket/tidewheel"}, server)

    assert found.is_well
    assert "whether it accepts the credentials was not tried" in found.found
    assert server.asked == [want]


@pytest.mark.parametrize(
    ("value", "want"),
    [("/srv/store", "a place of this machine"), ("sqlite:///x.db", "a place of this machine"), ("gs://b", "of scheme gs")],
)
def test_what_pods_do_not_reach_is_said_and_not_asked_for(value: str, want: str) -> None:
    server = Server()

    found = endpoint(STORE, {"TIDEWHEEL_STORE": value}, server)

    assert found.severity is Severity.OPTIONAL
    assert want in found.found
    assert server.asked == []


@pytest.mark.parametrize("wanted", ENDPOINTS)
def test_a_variable_that_is_not_set_is_optional_and_says_what_needs_it(wanted) -> None:
    found = endpoint(wanted, {}, Server())

    assert (found.is_well, found.severity) == (False, Severity.OPTIONAL)
    assert found.remedy == f"export {wanted.variable}=…"


def test_no_address_is_named_as_such() -> None:
    found = endpoint(MLFLOW, {"MLFLOW_TRACKING_URI": "http://[::1"}, Server())

    assert found.is_in_the_way
    assert "MLFLOW_TRACKING_URI is no address" in found.found
