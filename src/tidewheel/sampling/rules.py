"""What the columns of a plan mean, as data. Every executor (loader.py, dataframe.py) reads this and nothing else."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from tidewheel.contracts.sampling import AGE, Condition, Range, SamplePlan
from tidewheel.contracts.schema import label_column
from tidewheel.errors import ConfigError

# Added to the recipe's salt to choose calibration rows: which rows calibrate must not depend on which are kept.
_CALIBRATION_SALT = 0x5CA1AB1E

ColumnKind = Literal["integer", "real", "text"]


@dataclass(frozen=True)
class Criterion:
    """A condition on a column of a known kind: rows with one of `values`, or, where they are None, with a number in a range.

    Integers are compared with integers, everything else with doubles; `takes_null` covers NaN too.
    """

    values: tuple[int | float | str, ...] | None
    at_least: int | float | None
    below: int | float | None
    takes_null: bool


def criterion(column: str, condition: Condition, kind: ColumnKind) -> Criterion:
    """The condition in the values that a column of this kind can have, e.g. `"7"` is 7 for integers, `"a"` none of them.

    Raises:
        ConfigError: a range on a column of text.
    """
    if not isinstance(condition, Range):
        given = [value for value in condition if value is not None]
        return Criterion(_values(given, kind), None, None, None in condition)
    if kind == "text":
        raise ConfigError(f"sample: column {column} is text; expected numbers for at_least and below: list its values instead")
    # x < 2.5 is x < 3 for integers, and x >= 2.5 is x >= 3.
    at_least, below = (
        bound if bound is None or kind == "real" else math.ceil(bound) for bound in (condition.at_least, condition.below)
    )
    return Criterion(None, at_least, below, condition.or_null)


def _values(given: Iterable[int | str], kind: ColumnKind) -> tuple[int | float | str, ...]:
    if kind == "text":
        return tuple(str(value) for value in given)
    number: type[int] | type[float] = int if kind == "integer" else float
    numbers: list[int | float] = []
    for value in given:
        try:
            numbers.append(number(value))
        except (ValueError, OverflowError):
            continue  # a text that is no number: no row of this column has it
    if kind == "integer":
        return tuple(value for value in numbers if -(2**63) <= value < 2**63)
    return tuple(value for value in numbers if math.isfinite(value))


def columns_of(plan: SamplePlan) -> list[str]:
    """Every column that decides about a row, sorted."""
    found = {"row_key", "inclusion_probability", *(cap.column for cap in plan.caps)}
    for rule in plan.rules:
        found |= {label_column(label) for label in rule.labels}
        found |= {"event_time" if column == AGE else column for column in rule.where}
    return sorted(found)


def check_columns(plan: SamplePlan, kinds: Mapping[str, ColumnKind | None]) -> None:
    """The rows have every column of the plan, of a kind that all engines compare alike.

    Args:
        kinds: column -> its kind; None for types such as dates that no rule can name.

    Raises:
        ConfigError: one is missing, is of another kind, or is text where a rule has a range, or numbers that are no ids
            where a cap groups rows.
    """
    conditions = [(column, condition) for rule in plan.rules for column, condition in rule.where.items() if column != AGE]
    for column in (*(column for column, _ in conditions), *(cap.column for cap in plan.caps)):
        if column not in kinds:
            raise ConfigError(f"sample: no column {column} in the impressions; expected one of {', '.join(sorted(kinds))}")
        if kinds[column] is None:
            raise ConfigError(f"sample: column {column} is neither a number, text nor a truth value; choose another column")
    for column, condition in conditions:
        kind = kinds[column]
        assert kind is not None
        criterion(column, condition, kind)
    for cap in plan.caps:
        if kinds[cap.column] == "real":
            raise ConfigError(f"sample: cap of column {cap.column}: its values are no ids; expected integers or text")


def calibration_salt(salt: int) -> int:
    """The salt that chooses calibration rows, as a signed 64-bit integer."""
    return ((salt + _CALIBRATION_SALT + 2**63) % 2**64) - 2**63
