"""The contract of a training table as a Great Expectations suite, generated from the schema: the only door to that library."""

from __future__ import annotations

import gc
import logging
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from tidewheel.contracts.recipe import LabelConfig, ValidateConfig
from tidewheel.contracts.schema import KEY_COLUMNS, WEIGHT, FeatureKind, FeatureSpec, feature_columns, label_column
from tidewheel.contracts.verdict import Reason
from tidewheel.errors import ConfigError
from tidewheel.quality.lists import is_list, number_of
from tidewheel.quality.merging import merged
from tidewheel.quality.reasons import reason, window_reason
from tidewheel.quality.rows import Rows, chunks
from tidewheel.quality.trailing import Range

# Engines, clouds and databases that the library probes for at import; we give it pandas and, where asked, Spark. Not finding
# them saves a third of its import time, and keeps an optional Spark from being loaded at all.
UNUSED_ENGINES = ("pyspark", "sqlalchemy", "google", "boto3", "botocore", "azure", "snowflake", "trino")
INTEGERS = ["int64", "int32", "int16", "int8", "uint8", "uint16", "uint32"]
NUMBERS = [*INTEGERS, "float64", "float32"]
NOT_NULL = ("row_key", "request_id", "user_id", "item_id", "event_time", "is_randomized", "inclusion_probability", WEIGHT)
CHUNK_ROWS = 1_000_000  # bounds the memory of the pandas engine; results of chunks are merged exactly
# Decided by the schema alone, so they are the same for every engine.
OF_THE_SCHEMA = ("expect_table_columns_to_match_set", "expect_column_values_to_be_in_type_list")
UNIQUE, NOT_NULL_RULE = "expect_column_values_to_be_unique", "expect_column_values_to_not_be_null"


def contract_columns(features: Sequence[FeatureSpec], labels: Sequence[str]) -> list[str]:
    """The columns that the suite and the model look at, sorted: whatever else a table holds is not looked at."""
    return sorted({*KEY_COLUMNS, WEIGHT, *map(label_column, labels), *feature_columns(features)})


def suite(split: str, features: Sequence[FeatureSpec], labels: Sequence[LabelConfig], config: ValidateConfig) -> Any:
    """The expectations that the schema contract sets on one split, as a `great_expectations.ExpectationSuite`.

    Every expectation of a label carries `meta["decides"]`: false where a label that is not gated is only reported.
    """
    gx = library()
    expect = gx.expectations
    columns = contract_columns(features, [label.name for label in labels])
    rules: list[Any] = [
        expect.ExpectTableColumnsToMatchSet(column_set=columns, exact_match=False),
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
    split: str,
    rows: Rows,
    features: Sequence[FeatureSpec],
    labels: Sequence[LabelConfig],
    config: ValidateConfig,
    spark: Any = None,
) -> list[Reason]:
    """Run the generated suite on one split: a reason each expectation, with what was observed.

    Never raises on data: a missing column fails by name (once, its other expectations have nothing to look at), and an
    expectation that the library could not compute is an `Error`.

    Args:
        spark: the same rows as a Spark data frame, which then does what looks at rows; else pandas does, chunk by chunk.
    """
    wanted = suite(split, features, labels, config)
    columns = {None, *rows.column_names} if rows.num_rows else {None}
    rules = [rule for rule in wanted.expectations if getattr(rule, "column", None) in columns]
    by_schema = [rule for rule in rules if rule.expectation_type in OF_THE_SCHEMA]
    by_rows = [rule for rule in rules if rule.expectation_type not in OF_THE_SCHEMA]
    found = _results(_pandas(_empty(rows.schema)), by_schema)
    if not rows.num_rows:
        found |= _results(_pandas(_empty(rows.schema)), by_rows)
    elif spark is not None:
        found |= _results(_spark(spark), by_rows)
    else:
        found |= _chunked(rows, by_rows)
    return [reason(split, found[_key(rule)]) for rule in rules]


def check_window(ranges: Sequence[Range]) -> list[Reason]:
    """The window's own numbers (freshness, volume, label rates) as one row, and a range for each: a reason each.

    The library knows no weights, so weighted numbers come to it ready.
    """
    expect = library().expectations
    limits = [range_ for range_ in ranges if range_.is_judged]
    rules = [
        expect.ExpectColumnValuesToBeBetween(column=limit.check, min_value=_bound(limit.lower), max_value=_bound(limit.upper))
        for limit in limits
    ]
    frame = pd.DataFrame({range_.check: [range_.value] for range_ in ranges})
    found = _results(_pandas(frame), rules)
    passed = {limit.check: bool(found[_key(rule)]["success"]) for limit, rule in zip(limits, rules, strict=True)}
    return [window_reason(range_, passed.get(range_.check, True)) for range_ in ranges]


def _results(batch: Any, rules: Sequence[Any]) -> dict[tuple[str, str | None], dict[str, Any]]:
    """Rule -> what the library found, as JSON."""
    if not rules:
        return {}
    wanted = library().ExpectationSuite(name="rules", expectations=[rule.copy() for rule in rules])
    with _quiet():
        results = [result.to_json_dict() for result in batch.validate(wanted, result_format="BASIC").results]
    kinds = [(result["expectation_config"]["type"], result["expectation_config"]["kwargs"].get("column")) for result in results]
    return dict(zip(kinds, results, strict=True))


def _key(rule: Any) -> tuple[str, str | None]:
    return rule.expectation_type, getattr(rule, "column", None)


def _chunked(rows: Rows, rules: Sequence[Any]) -> dict[tuple[str, str | None], dict[str, Any]]:
    """The rules on pandas, a chunk at a time, merged into what one frame of all rows would have given.

    Keys are looked at apart, in chunks by their value: what is not unique meets itself in one of them.
    """
    apart = {UNIQUE} if rows.num_rows > CHUNK_ROWS else set()
    unique = [rule for rule in rules if rule.expectation_type in apart]
    others = [rule for rule in rules if rule.expectation_type not in apart]
    columns = sorted({rule.column for rule in others if hasattr(rule, "column")})
    only_null = {name for name in columns if {r.expectation_type for r in others if _key(r)[1] == name} == {NOT_NULL_RULE}}
    parts = (_frame(part, only_null) for part in chunks(rows, columns, CHUNK_ROWS))
    work: list[tuple[Sequence[Any], Iterator[pd.DataFrame]]] = [
        (others, parts if columns else iter([pd.DataFrame(index=pd.RangeIndex(rows.num_rows))])),
        *(([rule], _by_value(rule.column, rows[rule.column])) for rule in unique),
    ]
    found: dict[tuple[str, str | None], list[dict[str, Any]]] = {}
    for wanted, frames in work:
        for frame in frames:
            for key, result in _results(_pandas(frame), wanted).items():
                found.setdefault(key, []).append(result)
            if rows.num_rows > CHUNK_ROWS:
                gc.collect()  # the library's contexts refer to themselves, and each holds a chunk
    return {key: merged(results) for key, results in found.items()}


def _by_value(name: str, column: pa.ChunkedArray) -> Iterator[pd.DataFrame]:
    """Frames of one column that together hold all its values, equal values in the same frame."""
    parts = -(-len(column) // CHUNK_ROWS)
    if parts == 1 or not pa.types.is_integer(column.type) or column.null_count:
        yield pd.DataFrame({name: column.to_pandas()})
        return
    values = column.to_numpy()
    for part in range(parts):
        yield pd.DataFrame({name: values[values % parts == part]})


def _pandas(frame: pd.DataFrame) -> Any:
    asset = _context().data_sources.add_pandas("splits").add_dataframe_asset("split")
    return asset.add_batch_definition_whole_dataframe("whole").get_batch({"dataframe": frame})


def _spark(frame: Any) -> Any:
    asset = _context().data_sources.add_spark("splits", persist=False).add_dataframe_asset("split")
    return asset.add_batch_definition_whole_dataframe("whole").get_batch({"dataframe": frame})


def _context() -> Any:
    context = library().get_context(mode="ephemeral")
    context.variables.progress_bars = {"globally": False, "metric_calculations": False}
    return context


def _bound(value: float) -> float:
    return max(-sys.float_info.max, min(sys.float_info.max, value))


def _label_rules(expect: Any, label: LabelConfig) -> list[Any]:
    column = label_column(label.name)
    note = {"decides": label.gated}
    return [
        expect.ExpectColumnValuesToNotBeNull(column=column),
        expect.ExpectColumnValuesToBeInSet(column=column, value_set=[0, 1]),
        expect.ExpectColumnSumToBeBetween(column=column, min_value=1, meta=note),
        expect.ExpectColumnMinToBeBetween(column=column, max_value=0, meta=note),
    ]


def _feature_rules(expect: Any, feature: FeatureSpec, config: ValidateConfig) -> list[Any]:
    name = feature.name
    if feature.is_sequence:
        return _sequence_rules(expect, feature, config)
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


def _sequence_rules(expect: Any, feature: FeatureSpec, config: ValidateConfig) -> list[Any]:
    """Of lists the library sees their length, and of ages the least: below 0 it would be of an item from the future."""
    name, ages = feature.columns
    return [
        expect.ExpectColumnValuesToNotBeNull(column=name, mostly=1.0 - config.max_null_share),
        expect.ExpectColumnValuesToBeBetween(column=name, min_value=0, max_value=feature.length),
        expect.ExpectColumnValuesToBeBetween(column=ages, min_value=0, max_value=sys.float_info.max),
    ]


def _frame(table: pa.Table, only_null: set[str]) -> pd.DataFrame:
    """The table as pandas. Text as categories, thirty times smaller; of columns in `only_null` whether there is a value."""
    for index, name in enumerate(table.column_names):
        if is_list(table.schema.types[index]):
            table = table.set_column(index, name, pa.array(number_of(name, table[name]), from_pandas=True))
        if name in only_null:
            known = pc.if_else(pc.is_valid(table[name]), pa.scalar(1.0), pa.scalar(None, pa.float64()))
            table = table.set_column(index, name, known)
    return table.to_pandas(categories=[field.name for field in table.schema if _is_text(field.type)])


def _empty(schema: pa.Schema) -> pd.DataFrame:
    """No rows, and the types of all columns; what is neither number, truth nor time is a category, nothing a float."""
    fields = [
        pa.field(field.name, pa.float64()) if pa.types.is_null(field.type) or is_list(field.type) else field for field in schema
    ]
    frame = pa.schema(fields).empty_table().to_pandas()
    return frame.astype({name: "category" for name, dtype in frame.dtypes.items() if pd.api.types.is_object_dtype(dtype)})


def _is_text(kind: pa.DataType) -> bool:
    return pa.types.is_string(kind) or pa.types.is_large_string(kind)


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


def library(with_spark: bool = False) -> Any:
    """Import Great Expectations without its optional engines. Not thread-safe, like any first import with side effects.

    Raises:
        ConfigError: Spark is wanted after the library was loaded without it.
    """
    if "great_expectations" not in sys.modules:
        os.environ.setdefault("GX_ANALYTICS_ENABLED", "false")
        # Spark's own imports need some of the others, and end the process where they do not find them.
        hidden = [] if with_spark else [name for name in UNUSED_ENGINES if name not in sys.modules]
        sys.modules.update(dict.fromkeys(hidden))  # type: ignore[arg-type]  # None makes an import of that name fail
        try:
            import great_expectations  # noqa: F401
        finally:
            for name in hidden:
                if sys.modules.get(name) is None:
                    sys.modules.pop(name, None)
    found = sys.modules["great_expectations"]
    if with_spark and not found.compatibility.pyspark.pyspark:
        raise ConfigError("Spark is wanted, but this process loaded Great Expectations without it; start a fresh process")
    return found
