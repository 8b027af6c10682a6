"""The sampler inside the training loader: the same rows and weights as dataframe.py, on Arrow tables."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tidewheel.contracts.recipe import SampleConfig
from tidewheel.contracts.schema import WEIGHT
from tidewheel.sampling.hash import uniform
from tidewheel.sampling.rules import ColumnKind, check_columns, keep_rules


def select(table: pa.Table, config: SampleConfig, labels: Sequence[str]) -> pa.Table:
    """The training rows that the recipe keeps, in their order, with `weight` = 1 / (inclusion_probability x rate).

    The rows and weights are those of `tidewheel.sampling.dataframe.keep`, bit by bit, whatever engine or partitioning.

    Args:
        table: (N,) rows with `row_key`, `inclusion_probability`, the labels and the columns of the recipe's slices.
        config: the recipe's rates.
        labels: every label of the recipe.

    Raises:
        ConfigError: a slice names a column that the table does not have.
    """
    rates = keep_rates(table, config, labels)
    is_kept = uniform(table["row_key"].to_numpy(), config.salt) < rates
    weight = 1.0 / (table["inclusion_probability"].to_numpy() * rates)
    return table.append_column(WEIGHT, pa.array(weight)).filter(pa.array(is_kept))


def keep_rates(table: pa.Table, config: SampleConfig, labels: Sequence[str]) -> np.ndarray:
    """(N,) float64: the probability with which each row is kept, in (0, 1]."""
    rules = keep_rules(config, labels)
    check_columns(rules, table.column_names)
    rates = np.empty(table.num_rows, dtype=np.float64)
    is_open = np.ones(table.num_rows, dtype=bool)
    for rule in rules:
        meets = is_open if rule.column is None else is_open & _is_one_of(table[rule.column], rule.values_as)
        rates[meets] = rule.rate
        is_open &= ~meets
    return rates


def _is_one_of(column: pa.ChunkedArray, values_as: Callable[[ColumnKind], list]) -> np.ndarray:
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    kind: ColumnKind = (
        "integer" if pa.types.is_integer(column.type) else "real" if pa.types.is_floating(column.type) else "text"
    )
    types = {"integer": pa.int64(), "real": pa.float64(), "text": pa.large_string()}
    found = pc.is_in(column.cast(types[kind]), value_set=pa.array(values_as(kind), types[kind]), skip_nulls=True)
    return found.to_numpy().astype(bool)
