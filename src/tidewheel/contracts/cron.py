"""Cron in its five usual fields, checked as the Kubeflow Pipelines backend reads it."""

from __future__ import annotations

from dataclasses import dataclass

MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
WEEKDAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
DAYS_IN_MONTH = (31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)


@dataclass(frozen=True)
class Field:
    """One field: which numbers it takes, and the names that stand for some of them, from `names_from` on."""

    name: str
    low: int
    high: int
    names: tuple[str, ...] = ()
    names_from: int = 0

    def values(self, text: str) -> set[int]:
        """Every number that the field's text names.

        Raises:
            ValueError: it is not a list of numbers, ranges and steps within the bounds.
        """
        found: set[int] = set()
        for part in text.split(","):
            found |= self._part(part)
        return found

    def _part(self, part: str) -> set[int]:
        span, slash, step_text = part.partition("/")
        step = 1
        if slash:
            if not step_text.isdigit() or int(step_text) == 0:
                raise ValueError(f"{self.name} {part}: expected a step above 0 after /")
            step = int(step_text)
        if span in ("*", "?"):
            return set(range(self.low, self.high + 1, step))
        first, dash, last = span.partition("-")
        start = self._number(first, part)
        end = self._number(last, part) if dash else self.high if slash else start
        if end < start:
            raise ValueError(f"{self.name} {part}: the range ends before it starts")
        return set(range(start, end + 1, step))

    def _number(self, text: str, part: str) -> int:
        if text.lower() in self.names:
            return self.names.index(text.lower()) + self.names_from
        if not text.isdigit() or not self.low <= int(text) <= self.high:
            hint = ", 0 is Sunday" if self.names == WEEKDAYS else ""
            raise ValueError(f"{self.name} {part}: expected numbers from {self.low} to {self.high}{hint}")
        return int(text)


FIELDS = (
    Field("minute", 0, 59),
    Field("hour", 0, 23),
    Field("day of month", 1, 31),
    Field("month", 1, 12, MONTHS, 1),
    Field("day of week", 0, 6, WEEKDAYS),
)


def checked(text: str) -> str:
    """The expression with single spaces.

    Raises:
        ValueError: it has not five fields, one of them is wrong, or no day ever matches it.
    """
    fields = text.split()
    if len(fields) != len(FIELDS):
        names = ", ".join(field.name for field in FIELDS)
        raise ValueError(f"cron has {len(fields)} fields; expected 5: {names}, e.g. 0 3 * * *")
    _, _, days, months, _ = (field.values(part) for field, part in zip(FIELDS, fields, strict=True))
    is_any_weekday = fields[4][0] in "*?"
    if is_any_weekday and not any(day <= DAYS_IN_MONTH[month - 1] for day in days for month in months):
        raise ValueError(f"cron {' '.join(fields)}: no such day ever comes")
    return " ".join(fields)


def with_seconds(cron: str) -> str:
    """As the backend wants it: its cron has a field of seconds in front, here always 0."""
    return f"0 {cron}"
