"""`schedules.yaml` (`tidewheel/schedules/v1`): which recipes a Kubeflow Pipelines backend runs by itself, and when."""

from __future__ import annotations

import difflib
from collections import Counter
from typing import Annotated, Literal, Self
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError, available_timezones

from pydantic import AfterValidator, Field, model_validator

from tidewheel.contracts import cron
from tidewheel.contracts.base import Contract

# The names of UTC itself. London is not one of them, although it has its time in winter.
UTC_NAMES = ("UTC", "Etc/UTC", "Etc/UCT", "Etc/Universal", "Etc/Zulu", "UCT", "Universal", "Zulu")


def _is_obeyed(zone: str) -> str:
    """A backend reads every schedule in one time zone, its own; a schedule's prefix TZ= or CRON_TZ= is a syntax error there."""
    if zone in UTC_NAMES:
        return zone
    try:
        ZoneInfo(zone)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        near = difflib.get_close_matches(zone, available_timezones(), n=1)
        hint = f" Did you mean {near[0]}?" if near else ""
        raise ValueError(f"no time zone has this name; expected UTC.{hint}") from error
    raise ValueError("Kubeflow Pipelines keeps no time zone of a schedule; expected UTC: write the cron in UTC")


class Schedule(Contract):
    """One recipe at the times of one cron expression. `recipe` is relative to the file.

    `reason` stands in the ledger with every release of such a run.
    """

    name: str = Field(pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", max_length=40)
    recipe: str = Field(min_length=1)
    cron: Annotated[str, AfterValidator(cron.checked)]
    time_zone: Annotated[str, AfterValidator(_is_obeyed)] = "UTC"
    reason: str = Field(default="scheduled", min_length=1)
    enabled: bool = True

    @property
    def sent_cron(self) -> str:
        """What the backend gets: six fields."""
        return cron.with_seconds(self.cron)


class Schedules(Contract):
    """All schedules of one group; a schedule of that group which is not here is removed from the backend.

    `group` keeps two files apart that are applied to one backend. `service_account` is whom the runs' pods run as.
    """

    schema_: Literal["tidewheel/schedules/v1"] = Field(alias="schema")
    group: str = Field(default="default", pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", max_length=20)
    service_account: str = Field(default="tidewheel-run", min_length=1)
    schedules: tuple[Schedule, ...]

    @model_validator(mode="after")
    def _names_are_unique(self) -> Self:
        twice = [name for name, count in Counter(schedule.name for schedule in self.schedules).items() if count > 1]
        if twice:
            raise ValueError(f"schedules: the name {twice[0]} stands there more than once; expected one schedule of a name")
        return self
