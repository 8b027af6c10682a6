from __future__ import annotations

import pytest
from kubernetes.client import ApiException

from tidewheel.pods.admission import is_above_limit
from tidewheel.pods.api import message_of

QUOTA = 'pods "e" is forbidden: exceeded quota: runs, requested: {}, used: {}, limited: {}'


@pytest.mark.parametrize(
    ("said", "never"),
    [
        (QUOTA.format("limits.memory=2Gi", "limits.memory=7Gi", "limits.memory=8Gi"), False),
        (QUOTA.format("limits.memory=9Gi", "limits.memory=0", "limits.memory=8Gi"), True),
        (QUOTA.format("limits.memory=9000Mi,pods=1", "limits.memory=0,pods=3", "limits.memory=8Gi,pods=10"), True),
        (QUOTA.format("cpu=500m,pods=1", "cpu=4,pods=10", "cpu=4,pods=10"), False),
        ("something else", False),
    ],
)
def test_a_quota_that_is_too_small_for_one_pod_is_told_from_one_that_is_in_use(said: str, never: bool) -> None:
    assert is_above_limit(said) == never


def error_of(body: str, reason: str = "Forbidden") -> ApiException:
    error = ApiException(status=403, reason=reason)
    error.body = body
    return error


def test_the_api_servers_words_are_read_from_its_status() -> None:
    assert message_of(error_of('{"kind": "Status", "message": "no"}')) == "no"
    assert message_of(error_of("upstream failed\n")) == "upstream failed"
    assert message_of(error_of("[]")) == "[]"
    assert message_of(error_of("")) == "Forbidden"
