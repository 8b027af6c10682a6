"""The contract of a training table as a Great Expectations suite, generated from the schema: the only door to that library."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pandas as pd
import pyarrow as pa

from tidewheel.contracts.recipe import LabelConfig, ValidateConfig
from tidewheel.contracts.schema import KEY_COLUMNS, WEIGHT, FeatureKind, FeatureSpec, label_column
from tidewheel.contracts.verdict import Phase, Reason

# Engines, clouds and databases that the library probes for at import; we only ever give it pandas. Not finding them
# saves a third of its import time, and keeps an optional Spark from being loaded at all.
UNUSED_ENGINES = ("pyspark", "sqlalchemy", "google", "boto3", "botocore", "azure", "snowflake", "trino")
INTEGERS = ["int64", "int32", "int16", "int8", "uint8", "uint16", "uint32"]
NUMBERS = [*INTEGERS, "float64", "float32"]
NOT_NULL = ("row_key", "request_id", "user_id", "item_id", "event_time", "is_randomized", "inclusion_probability", WEIGHT)


def suite(split: str, features: Sequence[FeatureSpec], labels: Sequence[LabelConfig], config: ValidateConfig) -> Any:
    """The expectations that the schema contract sets on one split, as a `great_expectations.ExpectationSuite`.

    Every expectation of a label carries `meta["decides"]`: false where a label that is not gated is only reported.
    """
    gx = library()
    expect = gx.expectations
    columns = [*KEY_COLUMNS, WEIGHT, *(label_column(label.name) for label in labels), *(feature.name for feature in features)]
    rules: list[Any] = [
        expect.ExpectTableColumnsToMatchSet(column_set=sorted(set(columns)), exact_match=False),
        expect.ExpectTableRowCountToBeBetween(min_value=config.min_rows if split == "train" else 1),
        expect.ExpectColumnValuesToBeUnique(column="row_key"),
        *(
            expect.ExpectColumnValuesToBeInTypeList(column=name, type_list=INTEGERS)
            for name in ("row_key", "user_id", "item_id")
        ),
        *(expect.ExpectColumnValuesToNotBeNull(column=name) for name in NOT_NULL),
        expect.ExpectColumnValuesToBeBetween(column=WEIGHT, min_value=0, max_value=sys.float_info.max, strict_min=True),
        *(
            expect.ExpectColumnValuesToBeBetween(column=name, min_value=0, max_value=1, strict_min=True)
            for name in ("inclusion_probability", "propensity")
        ),
    ]
    for label in labels:
        rules += _label_rules(expect, label)
    for feature in features:
        rules += _feature_rules(expect, feature, config)
    return gx.ExpectationSuite(name=f"tidewheel {split}", expectations=rules)


def check(
    split: str, table: pa.Table, features: Sequence[FeatureSpec], labels: Sequence[LabelConfig], config: ValidateConfig
) -> list[Reason]:
    """Run the generated suite on one split: a reason each expectation, with what was observed.

    Never raises on data: a missing column fails by name (once, its other expectations have nothing to look at), and an
    expectation that the library could not compute is an `Error`.
    """
    wanted = suite(split, features, labels, config)
    columns = {None, *table.column_names} if table.num_rows else {None}
    for rule in list(wanted.expectations):
        if getattr(rule, "column", None) not in columns:
            wanted.delete_expectation(rule)
    context = library().get_context(mode="ephemeral")
    context.variables.progress_bars = {"globally": False, "metric_calculations": False}
    asset = context.data_sources.add_pandas("splits").add_dataframe_asset(split)
    batch = asset.add_batch_definition_whole_dataframe("whole").get_batch({"dataframe": _frame(table)})
    with _quiet():
        results = batch.validate(wanted, result_format="BASIC").results
    return [reason(split, result.to_json_dict()) for result in results]


def _label_rules(expect: Any, label: LabelConfig) -> list[Any]:
    column = label_column(label.name)
    note = {"decides": label.gated}
    return [
        expect.ExpectColumnValuesToNotBeNull(column=column),
        expect.ExpectColumnValuesToBeInSet(column=column, value_set=[0, 1]),
        expect.ExpectColumnSumToBeBetween(column=column, min_value=1, meta=note),
        expect.ExpectColumnMeanToBeBetween(column=column, max_value=1, strict_max=True, meta=note),
    ]


def _feature_rules(expect: Any, feature: FeatureSpec, config: ValidateConfig) -> list[Any]:
    name = feature.name
    rules = []
    if name not in NOT_NULL:
        rules.append(expect.ExpectColumnValuesToNotBeNull(column=name, mostly=1.0 - config.max_null_share))
    if feature.kind is FeatureKind.NUMERIC:
        limit = sys.float_info.max
        rules.append(expect.ExpectColumnValuesToBeInTypeList(column=name, type_list=NUMBERS))
        rules.append(expect.ExpectColumnValuesToBeBetween(column=name, min_value=-limit, max_value=limit))
    if feature.kind is FeatureKind.HASHED and name not in ("user_id", "item_id"):
        # pandas turns integers with nulls into floats
        rules.append(expect.ExpectColumnValuesToBeInTypeList(column=name, type_list=NUMBERS))
    return rules


def _frame(table: pa.Table) -> pd.DataFrame:
    """The table as pandas; text, which is only checked for null, as categories: thirty times smaller."""
    names = [field.name for field in table.schema if pa.types.is_string(field.type) or pa.types.is_large_string(field.type)]
    return table.to_pandas(categories=names)


def reason(split: str, outcome: dict[str, Any]) -> Reason:
    """One result of the library (its JSON form) in our words: what was looked at, what was found, what was expected."""
    config, result = outcome["expectation_config"], outcome.get("result") or {}
    kind, kwargs = config["type"].removeprefix("expect_"), config["kwargs"]
    place = " ".join([split, *([kwargs["column"]] if "column" in kwargs else [])])
    name = f"expect {place} {kind.removeprefix('column_').removeprefix('values_').replace('_', ' ')}"
    if outcome["success"] is None or _has_raised(outcome["exception_info"]):
        return Reason(
            check=name, phase=Phase.ERROR, message=f"{place}: {kind} could not be computed; look at the column's type"
        )
    message, value, limit = WORDS[kind](kwargs, result)
    phase = Phase.SUCCESSFUL if outcome["success"] else Phase.FAILED
    if phase is Phase.FAILED and not config.get("meta", {}).get("decides", True):
        phase, message = Phase.SUCCESSFUL, f"{message} (not gated, reported only)"
    return Reason(check=name, phase=phase, message=f"{place}: {message}", value=value, limit=limit)


Words = tuple[str, float | None, float | None]


def _columns(kwargs: dict[str, Any], result: dict[str, Any]) -> Words:
    missing = (result.get("details") or {}).get("mismatched", {}).get("missing") or []
    if missing:
        return (
            f"missing columns {', '.join(missing)}; expected all {len(kwargs['column_set'])} of the contract",
            len(missing),
            0,
        )
    return f"all {len(kwargs['column_set'])} columns of the contract are there", 0, 0


def _rows(kwargs: dict[str, Any], result: dict[str, Any]) -> Words:
    found, least = result["observed_value"], kwargs["min_value"]
    return f"{found} rows {'>=' if found >= least else '<'} {least}", found, least


def _nulls(kwargs: dict[str, Any], result: dict[str, Any]) -> Words:
    count, total, limit = result["unexpected_count"], result["element_count"], 1.0 - kwargs.get("mostly", 1.0)
    share = count / total if total else 0.0
    sign = "<=" if share <= limit + 1e-12 else ">"
    return f"{count} of {total} values null ({share:.2%} {sign} {limit:.4g})", share, limit


def _types(kwargs: dict[str, Any], result: dict[str, Any]) -> Words:
    return (
        f"type {result['observed_value']}; expected {'integers' if kwargs['type_list'] == INTEGERS else 'numbers'}",
        None,
        None,
    )


def _outside(expected: Callable[[dict[str, Any]], str]) -> Callable[[dict[str, Any], dict[str, Any]], Words]:
    def words(kwargs: dict[str, Any], result: dict[str, Any]) -> Words:
        count = result["unexpected_count"]
        examples = ", ".join(str(value) for value in (result.get("partial_unexpected_list") or [])[:3])
        shown = f", e.g. {examples}" if examples else ""
        return f"{count} of {result['element_count']} values not {expected(kwargs)}{shown}", count, 0

    return words


def _range(kwargs: dict[str, Any]) -> str:
    upper = kwargs["max_value"]
    if upper == sys.float_info.max:
        return "finite and above 0" if kwargs.get("strict_min") else "finite"
    return f"in {'(' if kwargs.get('strict_min') else '['}{kwargs['min_value']:g}, {upper:g}]"


def _positives(kwargs: dict[str, Any], result: dict[str, Any]) -> Words:
    return f"{result['observed_value']:g} positive rows; expected at least 1", result["observed_value"], 1


def _rate(kwargs: dict[str, Any], result: dict[str, Any]) -> Words:
    return f"{result['observed_value']:.4f} of the rows are positive; expected some that are not", result["observed_value"], 1


WORDS: dict[str, Callable[[dict[str, Any], dict[str, Any]], Words]] = {
    "table_columns_to_match_set": _columns,
    "table_row_count_to_be_between": _rows,
    "column_values_to_not_be_null": _nulls,
    "column_values_to_be_in_type_list": _types,
    "column_values_to_be_unique": _outside(lambda kwargs: "unique"),
    "column_values_to_be_in_set": _outside(lambda kwargs: f"in {kwargs['value_set']}"),
    "column_values_to_be_between": _outside(_range),
    "column_sum_to_be_between": _positives,
    "column_mean_to_be_between": _rate,
}


def _has_raised(info: dict[str, Any]) -> bool:
    """The library gives one record, or a record for each metric that it needed."""
    return bool(info.get("raised_exception")) or any(
        isinstance(part, dict) and part.get("raised_exception") for part in info.values()
    )


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the library's running commentary; what it found comes back as reasons."""
    logger = logging.getLogger("great_expectations")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def library() -> Any:
    """Import Great Expectations without its optional engines. Not thread-safe, like any first import with side effects."""
    if "great_expectations" not in sys.modules:
        os.environ.setdefault("GX_ANALYTICS_ENABLED", "false")
        hidden = [name for name in UNUSED_ENGINES if name not in sys.modules]
        sys.modules.update(dict.fromkeys(hidden))  # type: ignore[arg-type]  # None makes an import of that name fail
        try:
            import great_expectations
        finally:
            for name in hidden:
                if sys.modules.get(name) is None:
                    sys.modules.pop(name, None)
        return great_expectations
    return sys.modules["great_expectations"]
