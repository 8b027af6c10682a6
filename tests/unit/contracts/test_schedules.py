from __future__ import annotations

import pytest
from pydantic import ValidationError

from tidewheel.contracts.base import first_fault
from tidewheel.contracts.schedules import Schedule, Schedules

DAILY = {"name": "daily", "recipe": "quickstart.yaml", "cron": "0 3 * * *"}


def fault(change: dict[str, object]) -> str:
    with pytest.raises(ValidationError) as raised:
        Schedule.model_validate({**DAILY, **change})
    return first_fault(raised.value)


@pytest.mark.parametrize(
    "cron", ["0 3 * * *", "*/15 0-6,22 1,15 JAN-mar mon-FRI", "0 0 29 2 *", "0 0 31 2 1", "5/20 0 ? * 0", "  0   3 * * * "]
)
def test_the_usual_five_fields_are_sent_with_seconds_in_front(cron: str) -> None:
    found = Schedule.model_validate({**DAILY, "cron": cron})

    assert found.sent_cron == f"0 {' '.join(cron.split())}"


@pytest.mark.parametrize(
    ("cron", "want"),
    [
        ("0 0 3 * * *", "cron has 6 fields; expected 5: minute, hour, day of month, month, day of week"),
        ("0 3 * *", "cron has 4 fields"),
        ("60 3 * * *", "minute 60: expected numbers from 0 to 59"),
        ("0 24 * * *", "hour 24: expected numbers from 0 to 23"),
        ("0 3 0 * *", "day of month 0: expected numbers from 1 to 31"),
        ("0 3 * 13 *", "month 13: expected numbers from 1 to 12"),
        ("0 3 * * 7", "day of week 7: expected numbers from 0 to 6, 0 is Sunday"),
        ("0 3 * * mo", "day of week mo: expected"),
        ("*/0 3 * * *", "expected a step above 0"),
        ("0 9-5 * * *", "hour 9-5: the range ends before it starts"),
        ("0 3 30 feb *", "no such day ever comes"),
        ("0 3 , * *", "day of month : expected numbers"),
        ("CRON_TZ=UTC 0 3 * * *", "cron has 6 fields"),
        ("@daily", "cron has 1 fields"),
    ],
)
def test_a_cron_that_the_backend_would_refuse_or_never_obey_is_refused(cron: str, want: str) -> None:
    assert want in fault({"cron": cron})


@pytest.mark.parametrize(
    ("zone", "want"),
    [
        ("Europe/Berlin", "keeps no time zone of a schedule; expected UTC: write the cron in UTC"),
        ("Europe/London", "keeps no time zone of a schedule"),
        ("Europe/Berln", "no time zone has this name; expected UTC. Did you mean Europe/Berlin?"),
        ("../etc/passwd", "no time zone has this name"),
        ("", "no time zone has this name"),
    ],
)
def test_a_time_zone_that_would_not_be_obeyed_is_refused(zone: str, want: str) -> None:
    assert want in fault({"time_zone": zone})


@pytest.mark.parametrize("name", ["Daily", "a_b", "-a", "a-", "", "x" * 41])
def test_a_name_is_one_that_a_cluster_takes(name: str) -> None:
    assert fault({"name": name}).startswith("name: ")


def test_an_unknown_key_is_refused() -> None:
    assert "timezone" in fault({"timezone": "UTC"})


def test_a_name_stands_there_once() -> None:
    with pytest.raises(ValidationError, match="the name daily stands there more than once"):
        Schedules.model_validate({"schema": "tidewheel/schedules/v1", "schedules": [DAILY, DAILY]})


def test_a_file_says_which_contract_it_keeps() -> None:
    with pytest.raises(ValidationError, match="schema"):
        Schedules.model_validate({"schedules": []})
