"""The sampler on Arrow tables, also inside the training loader: the rows and weights of dataframe.py, bit by bit."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tidewheel.contracts.sampling import AGE, MICRO, Condition, PlanCap, PlanRule, SamplePlan
from tidewheel.contracts.schema import WEIGHT, label_column
from tidewheel.sampling.hash import uniform
from tidewheel.sampling.rules import ColumnKind, calibration_salt, check_columns, columns_of, criterion

SPLITS = ("train", "calibration", "eval", "randomized")
TRAIN, CALIBRATION, EVAL, RANDOMIZED = range(len(SPLITS))
SPLIT_COLUMNS = ("event_time", "is_randomized", "row_key")
DAY_MICROSECONDS = 86_400_000_000
GROUP, EXPECTED = "value", "expected_micro"  # columns of a table of groups over their cap

_TYPES: dict[ColumnKind, pa.DataType] = {"integer": pa.int64(), "real": pa.float64(), "text": pa.large_string()}


def select(table: pa.Table, plan: SamplePlan, groups: Sequence[pa.Table] = ()) -> pa.Table:
    """The training rows that the plan keeps, in their order, with `weight` = 1 / (inclusion_probability x rate).

    The rows and weights are those of `tidewheel.sampling.dataframe.keep`, bit by bit, whatever engine or partitioning.

    Args:
        table: (N,) training rows with the columns of `tidewheel.sampling.rules.columns_of`.
        plan: of the window; a published dataset's manifest has it as `sampling`.
        groups: for each cap of the plan, the groups over it, see `read_groups` and `ArrowCounter.groups`.

    Raises:
        ConfigError: a rule names a column that the table does not have.
    """
    rates = rates_of(table, plan, rules_of(table, plan), groups)
    is_kept = uniform(table["row_key"].to_numpy(), plan.salt) < rates
    kept = table.filter(pa.array(is_kept))
    return kept.append_column(WEIGHT, pa.array(1.0 / (kept["inclusion_probability"].to_numpy() * rates[is_kept])))


def rules_of(table: pa.Table, plan: SamplePlan) -> np.ndarray:
    """(N,) int16: for each row the position in `plan.rules` of the first rule that it meets.

    Raises:
        ConfigError: a rule names a column that the table does not have, or cannot compare.
    """
    check_columns(plan, kinds_of(table.schema))
    rows = _Rows(table, plan.window_end)
    found = np.full(table.num_rows, len(plan.rules) - 1, dtype=np.int16)
    is_open = np.ones(table.num_rows, dtype=bool)
    for number, rule in enumerate(plan.rules[:-1]):
        meets = is_open & rows.meet(rule)
        found[meets] = number
        is_open &= ~meets
    return found


def rates_of(table: pa.Table, plan: SamplePlan, rules: np.ndarray, groups: Sequence[pa.Table]) -> np.ndarray:
    """(N,) float64: the probability with which each row is kept, in [0, 1]; 0 for rows outside the population."""
    rates = np.array([rule.rate for rule in plan.rules])[rules]
    for cap, over in zip(plan.caps, groups, strict=True):
        acts = np.array([rule.name in cap.rules for rule in plan.rules])[rules]
        rates = np.where(acts, rates * _factors(table[cap.column], cap, over), rates)
    return rates


def split_of(table: pa.Table, plan: SamplePlan) -> np.ndarray:
    """(N,) int8: which of `SPLITS` each row belongs to, before any selection."""
    time = _microseconds(table["event_time"])
    is_drawn = uniform(table["row_key"].to_numpy(), calibration_salt(plan.salt)) < plan.calibration_share
    is_calibration = is_drawn & (time >= _count(plan.calibration_start))
    split = np.where(is_calibration, CALIBRATION, TRAIN).astype(np.int8)
    split[time >= _count(plan.eval_start)] = EVAL
    split[pc.fill_null(table["is_randomized"], False).to_numpy()] = RANDOMIZED
    return split


def has_label(table: pa.Table, label: str) -> np.ndarray:
    """(N,) bool: rows whose label is 1; null is not."""
    return pc.fill_null(pc.equal(table[label_column(label)], 1), False).to_numpy()


def kinds_of(schema: pa.Schema) -> dict[str, ColumnKind | None]:
    """Column -> what it can be compared with; None where engines do not agree."""
    return {name: _kind_of(schema.field(name).type) for name in schema.names}


@dataclass(frozen=True)
class ArrowCounter:
    """Counts training rows in tables, one after the other. `tables` yields the impressions with the columns asked for."""

    schema: pa.Schema
    tables: Callable[[Sequence[str]], Iterable[pa.Table]]

    @property
    def kinds(self) -> Mapping[str, ColumnKind | None]:
        return kinds_of(self.schema)

    def rows_by_rule(self, plan: SamplePlan) -> Mapping[str, int]:
        rows = np.zeros(len(plan.rules), dtype=np.int64)
        for _, rules in self._train(plan):
            rows += np.bincount(rules, minlength=len(plan.rules))
        return {rule.name: int(count) for rule, count in zip(plan.rules, rows, strict=True)}

    def group_sizes(self, plan: SamplePlan, column: str, rule: str) -> Mapping[int, int]:
        share = np.array([int(entry.name == rule) for entry in plan.rules], dtype=np.int64)
        probe = plan.model_copy(update={"caps": (PlanCap(column=column, rows=1, rules=(rule,)),)})
        sizes, groups = np.unique(self._sums(probe, column, share)[EXPECTED].to_numpy(), return_counts=True)
        return dict(zip(sizes.tolist(), groups.tolist(), strict=True))

    def groups(self, plan: SamplePlan) -> list[pa.Table]:
        """For each cap, its groups over it: `value`, sorted, and `expected_micro`, int64 millionths of expected rows."""
        found = []
        for cap in plan.caps:
            micro = np.array([rule.rate_micro if rule.name in cap.rules else 0 for rule in plan.rules], dtype=np.int64)
            sums = self._sums(plan, cap.column, micro)
            found.append(sums.filter(pc.greater(sums[EXPECTED], cap.rows * MICRO)).sort_by(GROUP))
        return found

    def _sums(self, plan: SamplePlan, column: str, amounts: np.ndarray) -> pa.Table:
        """`value` -> the sum over its training rows of their rule's amount; rows without an amount make no group."""
        total: pa.Table | None = None
        for table, rules in self._train(plan):
            amount = amounts[rules]
            one = pa.table({GROUP: _as_ids(table[column]), EXPECTED: amount}).filter(pa.array(amount > 0))
            one = one.filter(pc.is_valid(one[GROUP]))
            total = _summed(one) if total is None else _summed(pa.concat_tables([total, _summed(one)]))
        return _no_groups(self.kinds[column]) if total is None else total

    def _train(self, plan: SamplePlan) -> Iterable[tuple[pa.Table, np.ndarray]]:
        for table in self.tables(sorted({*columns_of(plan), *SPLIT_COLUMNS})):
            train = table.filter(pa.array(split_of(table, plan) == TRAIN))
            yield train, rules_of(train, plan)


@dataclass(frozen=True)
class _Rows:
    """The rows of a table, asked about labels and columns; answers are kept, as rules ask the same again."""

    table: pa.Table
    window_end: datetime
    answers: dict[str, np.ndarray] = field(default_factory=dict)

    def meet(self, rule: PlanRule) -> np.ndarray:
        meets = np.ones(self.table.num_rows, dtype=bool)
        for label in rule.all_of:
            meets &= self._has(label)
        for label in rule.none_of:
            meets &= ~self._has(label)
        if rule.any_of:
            meets &= np.logical_or.reduce([self._has(label) for label in rule.any_of])
        for column, condition in rule.where.items():
            meets &= _meets(self._ages() if column == AGE else self.table[column], column, condition)
        return meets

    def _has(self, label: str) -> np.ndarray:
        name = label_column(label)
        if name not in self.answers:
            self.answers[name] = has_label(self.table, label)
        return self.answers[name]

    def _ages(self) -> pa.Array:
        if AGE not in self.answers:
            left = _count(self.window_end) - 1 - _microseconds(self.table["event_time"])
            self.answers[AGE] = left // DAY_MICROSECONDS
        return pa.array(self.answers[AGE])


def _meets(column: pa.ChunkedArray | pa.Array, name: str, condition: Condition) -> np.ndarray:
    kind = _kind_of(column.type)
    assert kind is not None
    test = criterion(name, condition, kind)
    values = pc.cast(column, _TYPES[kind])
    if kind == "real":
        values = pc.add(values, 0.0)  # -0.0 becomes 0.0: engines differ on whether they are equal
    if test.values is not None:
        meets = pc.is_in(values, value_set=pa.array(test.values, _TYPES[kind]), skip_nulls=True)
    else:
        bounds = [(pc.greater_equal, test.at_least), (pc.less, test.below)]
        within = [compare(values, pa.scalar(bound, _TYPES[kind])) for compare, bound in bounds if bound is not None]
        meets = within[0] if len(within) == 1 else pc.and_(*within)
    is_missing = pc.is_null(values, nan_is_null=True)
    return pc.if_else(is_missing, test.takes_null, pc.fill_null(meets, False)).to_numpy(zero_copy_only=False)


def _factors(column: pa.ChunkedArray, cap: PlanCap, over: pa.Table) -> np.ndarray:
    """(N,) float64 in (0, 1]: what a cap makes of the rates; 1 where the group is not over it, or null."""
    place = pc.index_in(_as_ids(column), value_set=over[GROUP].combine_chunks())
    expected = over[EXPECTED].to_numpy().astype(np.float64)
    factors = np.maximum(cap.min_factor, np.minimum(1.0, cap.rows * MICRO / expected))
    return np.append(factors, 1.0)[pc.fill_null(place, len(factors)).to_numpy()]


def _as_ids(column: pa.ChunkedArray) -> pa.ChunkedArray:
    kind = _kind_of(column.type)
    assert kind is not None
    return pc.cast(column, _TYPES[kind])


def _no_groups(kind: ColumnKind | None) -> pa.Table:
    assert kind is not None
    return pa.table({GROUP: pa.array([], _TYPES[kind]), EXPECTED: pa.array([], pa.int64())})


def _summed(table: pa.Table) -> pa.Table:
    sums = table.group_by(GROUP).aggregate([(EXPECTED, "sum")])
    return pa.table({GROUP: sums[GROUP], EXPECTED: sums[f"{EXPECTED}_sum"]})


def _kind_of(kind: pa.DataType) -> ColumnKind | None:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    if pa.types.is_boolean(kind) or (pa.types.is_integer(kind) and kind != pa.uint64()):
        return "integer"
    if pa.types.is_floating(kind):
        return "real"
    is_text = pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
    return "text" if is_text else None


def _microseconds(time: pa.ChunkedArray) -> np.ndarray:
    """(N,) int64 since 1970, UTC."""
    return pc.cast(pc.cast(time, pa.timestamp("us", tz="UTC")), pa.int64()).to_numpy()


def _count(moment: datetime) -> int:
    """Microseconds since 1970."""
    return round(moment.timestamp() * 1_000_000)
