"""The window: a half-open UTC interval of impression time."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Annotated, Self

from pydantic import AwareDatetime, BeforeValidator, model_validator

from tidewheel.contracts.base import Contract


class Window(Contract):
    """Impressions with `start <= event_time < end`, both UTC; labels may arrive until `end + label_horizon`."""

    start: AwareDatetime
    end: AwareDatetime

    @model_validator(mode="after")
    def _is_not_empty(self) -> Self:
        if self.start >= self.end:
            raise ValueError(f"window starts {self.start} and ends {self.end}; expected start before end")
        return self

    @classmethod
    def ending(cls, end: datetime, days: int) -> Window:
        return cls(start=end - timedelta(days=days), end=end)

    def __str__(self) -> str:
        return f"[{iso(self.start)}, {iso(self.end)})"


def parse_time(text: str) -> datetime:
    """ISO 8601 date or time; without a zone it is UTC.

    Raises:
        ValueError: not ISO 8601.
    """
    moment = datetime.fromisoformat(text)
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


def iso(moment: datetime) -> str:
    """`2026-01-05` at midnight, else `2026-01-05T06:00:00Z`."""
    moment = moment.astimezone(UTC)
    if moment.time().replace(tzinfo=None) == datetime.min.time():
        return moment.date().isoformat()
    return moment.isoformat().replace("+00:00", "Z")


def _moment(value: object) -> object:
    """YAML dates and times without a zone are UTC."""
    if isinstance(value, datetime):
        return parse_time(value.isoformat())
    return parse_time(str(value))


Moment = Annotated[AwareDatetime, BeforeValidator(_moment)]
