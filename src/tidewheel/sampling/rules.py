"""Which training rows are kept, as data. Both executors (dataframe.py, loader.py) read these rules and nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from tidewheel.contracts.recipe import SampleConfig
from tidewheel.contracts.schema import label_column
from tidewheel.errors import ConfigError

# Added to the recipe's salt to choose calibration rows: which rows calibrate must not depend on which are kept.
_CALIBRATION_SALT = 0x5CA1AB1E

ColumnKind = Literal["integer", "real", "text"]


@dataclass(frozen=True)
class Rule:
    """Rows whose `column` is one of `values` are kept with `rate`. Null is none of them. No column: every row."""

    column: str | None
    values: tuple[int | str, ...]
    rate: float

    def values_as(self, kind: ColumnKind) -> list[int] | list[float] | list[str]:
        """The values that a column of this kind can have, e.g. `"7"` is 7 for integers and `"a"` is none of them."""
        if kind == "text":
            return [str(value) for value in self.values]
        number: type[int] | type[float] = int if kind == "integer" else float
        numbers = []
        for value in self.values:
            try:
                numbers.append(number(value))
            except ValueError:
                continue  # a text that is no number: no row of this column has it
        return numbers


def keep_rules(config: SampleConfig, labels: Sequence[str]) -> tuple[Rule, ...]:
    """The rules in their order; the first that a row meets gives its rate. The last one meets every row.

    Labels come first, highest rate first, so a row with several positive labels is kept with the highest of their rates.
    """
    rates = {label: config.label_rates.get(label, 1.0) for label in labels}
    positive = tuple(Rule(label_column(label), (1,), rates[label]) for label in sorted(labels, key=lambda x: (-rates[x], x)))
    slices = tuple(Rule(entry.column, entry.values, entry.negative_rate) for entry in config.slices)
    return (*positive, *slices, Rule(None, (), config.negative_rate))


def check_columns(rules: Sequence[Rule], columns: Sequence[str]) -> None:
    """Every rule speaks of a column that the rows have.

    Raises:
        ConfigError: it does not.
    """
    for rule in rules:
        if rule.column is not None and rule.column not in columns:
            expected = ", ".join(sorted(columns))
            raise ConfigError(f"sample: no column {rule.column} in the impressions; expected one of {expected}")


def calibration_salt(salt: int) -> int:
    """The salt that chooses calibration rows, as a signed 64-bit integer."""
    return ((salt + _CALIBRATION_SALT + 2**63) % 2**64) - 2**63
