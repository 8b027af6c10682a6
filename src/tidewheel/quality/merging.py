"""Results of one expectation on the parts of a table, merged into its result on the whole. Pure."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from tidewheel.quality.reasons import has_raised

EXAMPLES = 20  # as many as the library keeps
OBSERVED: dict[str, Callable[[list[float]], float]] = {
    "expect_table_row_count_to_be_between": sum,
    "expect_column_sum_to_be_between": sum,
    "expect_column_min_to_be_between": min,
}


def merged(results: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """One result in the library's JSON form, from those of the same expectation on parts that together are the table.

    Counts, sums and minima of parts make those of the whole exactly, and success follows from them. A part that could not
    be computed makes the whole one that could not.
    """
    for result in results:
        if result["success"] is None or has_raised(result["exception_info"]):
            return result
    first = results[0]
    if len(results) == 1:
        return first
    kind, kwargs = first["expectation_config"]["type"], first["expectation_config"]["kwargs"]
    if kind in OBSERVED:
        values = [result["result"]["observed_value"] for result in results]
        known = [value for value in values if value is not None]
        value = OBSERVED[kind](known) if known else None
        return first | {"result": {"observed_value": value}, "success": value is not None and _is_between(value, kwargs)}
    counts = {
        name: sum(result["result"].get(name) or 0 for result in results)
        for name in ("element_count", "unexpected_count", "missing_count")
    }
    examples = [value for result in results for value in result["result"].get("partial_unexpected_list") or []]
    looked_at = counts["element_count"] - counts["missing_count"]
    share = (looked_at - counts["unexpected_count"]) / looked_at if looked_at else 1.0
    return first | {
        "result": counts | {"partial_unexpected_list": examples[:EXAMPLES]},
        "success": share >= kwargs.get("mostly", 1.0),
    }


def _is_between(value: float, kwargs: dict[str, Any]) -> bool:
    lower, upper = kwargs.get("min_value"), kwargs.get("max_value")
    return (-math.inf if lower is None else lower) <= value <= (math.inf if upper is None else upper)
