"""What Great Expectations found, in our words: a reason each. Pure: its JSON in, sentences with numbers out."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from typing import Any

from tidewheel.contracts.verdict import Phase, Reason
from tidewheel.quality.trailing import Range


def reason(split: str, outcome: dict[str, Any]) -> Reason:
    """One result of the library (its JSON form) in our words: what was looked at, what was found, what was expected."""
    config, result = outcome["expectation_config"], outcome.get("result") or {}
    kind, kwargs = config["type"].removeprefix("expect_"), config["kwargs"]
    place = " ".join([split, *([kwargs["column"]] if "column" in kwargs else [])])
    name = f"expect {place} {kind.removeprefix('column_').removeprefix('values_').replace('_', ' ')}"
    if outcome["success"] is None or has_raised(outcome["exception_info"]):
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
    found = "text" if "Categorical" in result["observed_value"] else result["observed_value"]
    return (
        f"type {found}; expected {'integers' if 'float64' not in kwargs['type_list'] else 'numbers'}",
        None,
        None,
    )


def _outside(expected: Callable[[dict[str, Any]], str]) -> Callable[[dict[str, Any], dict[str, Any]], Words]:
    def words(kwargs: dict[str, Any], result: dict[str, Any]) -> Words:
        count = result["unexpected_count"]
        found = sorted(result.get("partial_unexpected_list") or [], key=str)  # engines find them in orders of their own
        examples = ", ".join(_shown(value) for value in found[:3])
        shown = f", e.g. {examples}" if examples else ""
        return f"{count} of {result['element_count']} values not {expected(kwargs)}{shown}", count, 0

    return words


def _range(kwargs: dict[str, Any]) -> str:
    upper = kwargs["max_value"]
    if upper == sys.float_info.max:
        if kwargs["min_value"] == 0:
            return "finite and above 0" if kwargs.get("strict_min") else "finite and at least 0"
        return "finite"
    return f"in {'(' if kwargs.get('strict_min') else '['}{kwargs['min_value']:g}, {upper:g}]"


def _positives(kwargs: dict[str, Any], result: dict[str, Any]) -> Words:
    return f"{result['observed_value']:g} positive rows; expected at least 1", result["observed_value"], 1


def _lowest(kwargs: dict[str, Any], result: dict[str, Any]) -> Words:
    return f"the lowest value is {result['observed_value']:g}; expected rows with 0", result["observed_value"], 0


def _shown(value: object) -> str:
    """The same number reads the same, whether an engine holds it as integer or not."""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


WORDS: dict[str, Callable[[dict[str, Any], dict[str, Any]], Words]] = {
    "table_columns_to_match_set": _columns,
    "table_row_count_to_be_between": _rows,
    "column_values_to_not_be_null": _nulls,
    "column_values_to_be_in_type_list": _types,
    "column_values_to_be_unique": _outside(lambda kwargs: "unique"),
    "column_values_to_be_in_set": _outside(lambda kwargs: f"in {kwargs['value_set']}"),
    "column_values_to_be_between": _outside(_range),
    "column_sum_to_be_between": _positives,
    "column_min_to_be_between": _lowest,
}


def has_raised(info: dict[str, Any]) -> bool:
    """The library gives one record, or a record for each metric that it needed."""
    return bool(info.get("raised_exception")) or any(
        isinstance(part, dict) and part.get("raised_exception") for part in info.values()
    )


def window_reason(limits: Range, is_inside: bool) -> Reason:
    """One number of the window and the range that it was held against; one that is not judged passes."""
    parts = [f">= {_rounded(limits.lower)}"] if limits.lower > 0 else []
    parts += [f"<= {_rounded(limits.upper)}"] if math.isfinite(limits.upper) else []
    wanted = f"; expected {' and '.join(parts)}" if limits.is_judged and parts else ""
    nearest = limits.lower if limits.value < limits.lower else limits.upper
    return Reason(
        check=limits.check,
        phase=Phase.SUCCESSFUL if is_inside else Phase.FAILED,
        message=f"{limits.check}: {limits.words}{wanted}",
        value=limits.value if math.isfinite(limits.value) else None,
        limit=nearest if limits.is_judged and math.isfinite(nearest) else None,
    )


def _rounded(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
