"""What the first two answers say: who answers, and as whom we are known."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.cluster.well import IDENTITY, VERSION
from tidewheel.cluster.api import Answer, RememberedApi, Unseen, Why
from tidewheel.cluster.checks.contact import contact
from tidewheel.cluster.connection import Place
from tidewheel.cluster.facts import first_contact

PLACE = Place("office", "https://10.0.0.1:6443", "ada", "runs")
REVIEWS = "/apis/authentication.k8s.io/v1/selfsubjectreviews"


def named(name: str) -> dict[str, Any]:
    return {"status": {"userInfo": {"username": name}}}


@pytest.mark.parametrize(
    ("version", "identity", "want_name", "want_found", "want_remedy"),
    [
        (Unseen(Why.SILENT, "timed out"), None, "api server", "does not answer: timed out", "the context is the right one"),
        (
            Unseen(Why.UNTRUSTED, "self-signed"),
            None,
            "api server",
            "cannot be trusted: self-signed",
            "certificate-authority-data",
        ),
        (Unseen(Why.REFUSED, "Unauthorized"), None, "account", "refused the credentials of user ada", "log in again"),
        (Unseen(Why.ABSENT, "404"), None, "api server", "not as Kubernetes does: 404", "kubectl config use-context"),
        ({"hello": "world"}, None, "api server", "its /version is not that of Kubernetes", "another server"),
        (VERSION, Unseen(Why.REFUSED, "Unauthorized"), "account", "in context office: Unauthorized", "may have expired"),
        (VERSION, Unseen(Why.SILENT, "timed out"), "api server", "does not answer: timed out", "network or proxy"),
        (
            VERSION,
            Unseen(Why.FORBIDDEN, 'User "system:anonymous" cannot create'),
            "account",
            "system:anonymous",
            "renew the user's token",
        ),
        (VERSION, named("system:anonymous"), "account", "no credentials arrived", "renew the user's token"),
    ],
)
def test_no_answer_and_no_credentials_are_one_finding_with_a_remedy(
    version: Answer, identity: Answer | None, want_name: str, want_found: str, want_remedy: str
) -> None:
    answers: dict[str, Answer] = {"/version": version} | ({} if identity is None else {REVIEWS: identity})

    found = contact(PLACE, *first_contact(RememberedApi(answers)))

    (bad,) = [finding for finding in found if not finding.is_well]
    assert bad.name == want_name
    assert bad.is_in_the_way
    assert want_found in bad.found
    assert want_remedy in bad.remedy
    assert "https://10.0.0.1:6443" in bad.found
    assert "office" in bad.found


def test_who_we_are_is_said_with_our_groups() -> None:
    found = contact(PLACE, VERSION, IDENTITY)

    assert [finding.found for finding in found] == ["https://10.0.0.1:6443 (context office) answers", "ada of rankers"]


@pytest.mark.parametrize("why", [Why.ABSENT, Why.FORBIDDEN])
def test_an_api_server_that_does_not_say_who_we_are_is_well(why: Why) -> None:
    found = contact(PLACE, VERSION, Unseen(why, "no"))

    assert all(finding.is_well for finding in found)
    assert "user ada of the kubeconfig" in found[1].found
