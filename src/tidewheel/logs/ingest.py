"""Ingest: a log becomes canonical impressions, quarantined rows and counters, all as Parquet."""

from __future__ import annotations

import operator
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, time, timedelta
from functools import reduce
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tidewheel.contracts.recipe import IngestConfig, LabelConfig, Source
from tidewheel.contracts.schema import FeatureSpec, label_column
from tidewheel.contracts.window import Window, iso
from tidewheel.errors import RejectedError
from tidewheel.logs.adapter import LABEL_TIME_PREFIX, Adapter, Days, Request, day_number, day_of
from tidewheel.logs.cleaning import AFTER_HORIZON, CONFLICTING_DUPLICATE, EXACT_DUPLICATE, FINE, STATUS, VALID
from tidewheel.logs.counters import BILLION, billionths
from tidewheel.logs.days import DayCache, FolderCache, fingerprints, judged_days
from tidewheel.logs.engine_faults import engine_faults_named
from tidewheel.logs.fitting import UNFIT_PREFIX
from tidewheel.logs.hybrid import NEVER_SERVED
from tidewheel.logs.sources import ADAPTERS, check_features, counter_names, folder_of, time_span
from tidewheel.logs.tables import BEFORE, IMMATURE, WITHIN, Shared, WindowPlan, write_tables

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame, SparkSession


@dataclass(frozen=True)
class IngestResult:
    """What came of the rows of the window.

    Attributes:
        rows: impressions written.
        randomized_rows: those of randomized requests.
        weight_sum: sum of 1 / inclusion_probability, the impressions that the log stands for.
        watermark: until when the log was complete, as far as the window asks; None where every file is taken as it is.
        files_read: of the log; the others' days were judged by an earlier window.
        statistics: `rows_read` = rows + `exact_duplicates` + `conflicting_duplicates` + `immature` + `after_horizon` +
            `quarantined`, of the window; rows without a time count as the window's. `quarantine_share` = quarantined /
            rows_read, `quarantined.<reason>` one a reason, `positives.<label>`, `unfit.<feature>` (values
            that did not fit in its type and became null), `history_rows` (valid rows of the days
            before, seen by the counters only) and `history_malformed` (not seen by anything). Of hybrid logs also
            `served`, `not_seen` and what `tidewheel.logs.hybrid.counts` counts of the window's days; `late_labels`, known
            only on a later day than the impression's, and `label_delay_seconds_max`.
    """

    rows: int
    randomized_rows: int
    weight_sum: float
    watermark: datetime | None = None
    files_read: int = 0
    statistics: dict[str, float] = field(default_factory=dict)


def ingest(
    spark: SparkSession,
    source: Source,
    labels: Sequence[LabelConfig],
    features: Sequence[FeatureSpec],
    config: IngestConfig,
    window: Window,
    out: Path,
    base: Path,
    label_horizon: timedelta = timedelta(0),
    cache: DayCache | None = None,
) -> IngestResult:
    """Write `out/impressions`, `out/quarantine`, `out/counters` and, of features that are, `out/sequences` from one window.

    Only impressions of the window come out; those of the `lookback_days` before it are counted. Malformed rows of the
    window stand in `quarantine` with `reason` and `row`, the log's row as JSON. `counters` and `sequences` are the snapshots
    as of the day of `window.end`. The same log gives the same bytes, whatever `cache` holds of its days.

    Raises:
        ConfigError: the data folder is missing; a feature or label is not what `check_features` allows.
        ContractError: a file is broken or lacks a column.
        RejectedError: no impression in the window, a label without positives, or too many malformed rows.
    """
    check_features(source, features, labels, config.counters)
    adapter = ADAPTERS[source.kind]
    request = request_of(source, labels, features, config, window, base, label_horizon)
    raw_features = [feature for feature in features if feature.name in request.features]
    scratch = out / "partial"
    scratch.mkdir(parents=True)
    with engine_faults_named(request.folder):
        try:
            judged, files_read = judged_days(
                spark, adapter, request, raw_features, cache or FolderCache(scratch / "days"), scratch
            )
            complete_until = _complete_until(adapter, request, window)
            mature_until = complete_until - label_horizon if complete_until else None
            plan = WindowPlan(adapter, request, labels, features, config.counters, window, mature_until, judged)
            shared = Shared(spark, plan, scratch)
            result = replace(_count(spark, plan, shared), watermark=complete_until, files_read=files_read)
            _refuse_unfit(plan, result, config)
            write_tables(spark, plan, shared.known(), out, scratch, result.rows)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
    return result


def inputs_of(request: Request, window: Window) -> list[object]:
    """What `ingest` would read, as JSON data: name, bytes and time of each file; equal lists, equal results."""
    adapter = ADAPTERS[request.source.kind]
    files = [*adapter.log_files(request), *adapter.side_tables(request)]
    return [str(_complete_until(adapter, request, window)), *fingerprints(request.folder, files)]


def _complete_until(adapter: Adapter, request: Request, window: Window) -> datetime | None:
    """The log's watermark, as far as it matters to the window: what comes later can tell nothing of it."""
    found = adapter.watermark(request)
    return None if found is None else min(found, window.end + timedelta(days=request.reach_days))


def request_of(
    source: Source,
    labels: Sequence[LabelConfig],
    features: Sequence[FeatureSpec],
    config: IngestConfig,
    window: Window,
    base: Path,
    label_horizon: timedelta,
) -> Request:
    """What `ingest` with the same arguments asks of the log.

    Raises:
        ConfigError: the data folder is missing.
    """
    lookback = timedelta(days=config.counters.lookback_days)
    last = day_of(window.end - timedelta(microseconds=1))
    days = Days(day_of(window.start) - lookback, last + timedelta(days=1))
    counted = counter_names(config.counters)
    return Request(
        source,
        folder_of(source, base),
        days,
        tuple(label.name for label in labels),
        tuple(feature.name for feature in features if feature.name not in counted and not feature.is_sequence),
        label_horizon,
        config.max_lateness_days,
    )


def _count(spark: SparkSession, plan: WindowPlan, shared: Shared) -> IngestResult:
    """Count the judged rows, and sum what is known of items and authors meanwhile."""
    names = [label.name for label in plan.labels]

    def count(parts: list[int], share: DataFrame) -> list[Any]:
        shared.add(share, parts[0])
        return _counts(share, names).collect()

    totals: dict[tuple[str, str], Counter[str]] = {}
    delay = 0
    for row in chain.from_iterable(plan.shares(spark, plan.num_shares, count)):
        found = {name: int(value or 0) for name, value in row.asDict().items() if name not in ("place", STATUS)}
        if (row["place"], row[STATUS]) == (WITHIN, VALID):
            delay = max(delay, found.pop("delay", 0))
        totals.setdefault((row["place"], row[STATUS]), Counter()).update(found)
    here = {status: found for (place, status), found in sorted(totals.items()) if place == WITHIN}
    before = {status: found["rows"] for (place, status), found in totals.items() if place == BEFORE}
    rows = {status: found["rows"] for status, found in here.items()}
    immature = sum(found["rows"] for (place, _), found in totals.items() if place == IMMATURE)
    read, malformed = sum(rows.values()) + immature, sum(count for status, count in rows.items() if status not in FINE)
    valid = here.get(VALID, Counter())
    statistics = {
        "rows_read": read,
        "exact_duplicates": rows.get(EXACT_DUPLICATE, 0),
        "conflicting_duplicates": rows.get(CONFLICTING_DUPLICATE, 0),
        "immature": immature,
        "after_horizon": rows.get(AFTER_HORIZON, 0),
        "quarantined": malformed,
        "quarantine_share": malformed / read if read else 0.0,
        **{f"quarantined.{status}": count for status, count in rows.items() if status not in FINE},
        **{f"positives.{label.name}": valid[f"positives.{label.name}"] for label in plan.labels},
        **{name: count for name, count in valid.items() if name.startswith("unfit.")},
        "history_rows": before.get(VALID, 0),
        "history_malformed": sum(count for status, count in before.items() if status not in FINE),
        **_of_parts(plan, rows, immature),
    }
    if plan.adapter.has_label_times:
        statistics |= {"late_labels": valid["late"], "label_delay_seconds_max": delay / 1e6}
    numbers = {name: float(value) for name, value in statistics.items()}
    return IngestResult(valid["rows"], valid["randomized"], valid["weight"] / BILLION, statistics=numbers)


def _counts(share: DataFrame, labels: Sequence[str]) -> DataFrame:
    """One row a place and status: `rows`, `randomized`, `weight` (billionths), `positives.<label>`, `unfit.<feature>`, and
    where the log tells when labels came, how many came on a `late` day and the longest `delay` (microseconds)."""
    from pyspark.sql import functions as F

    def count(condition: Column) -> Column:
        return F.sum(condition.cast("bigint"))

    # A malformed row may have any inclusion probability, 0 too.
    weight = F.when(F.col(STATUS) == VALID, billionths(F.col("inclusion_probability"))).cast("decimal(28,0)")
    wanted = [
        F.count(F.lit(1)).alias("rows"),
        count(F.col("is_randomized")).alias("randomized"),
        F.sum(weight).alias("weight"),
        *(count(F.col(label_column(name))).alias(f"positives.{name}") for name in labels),
    ]
    marks = [name for name in share.columns if name.startswith(UNFIT_PREFIX)]
    wanted += [count(F.col(name)).alias(f"unfit.{name.removeprefix(UNFIT_PREFIX)}") for name in marks]
    if times := [F.col(name) for name in share.columns if name.startswith(LABEL_TIME_PREFIX)]:
        is_late = (F.coalesce((day_number(time) > F.col("day")).cast("bigint"), F.lit(0)) for time in times)
        delays = (F.unix_micros(time) - F.unix_micros("event_time") for time in times)
        wanted.append(F.sum(reduce(operator.add, is_late)).alias("late"))
        wanted.append(F.max(F.greatest(*delays, F.lit(0))).alias("delay"))
    return share.groupBy("place", STATUS).agg(*wanted)


def _of_parts(plan: WindowPlan, rows: Mapping[str, int], immature: int) -> dict[str, int]:
    """What was counted of the lines that made no row, where the window has whole days."""
    inside = [day.manifest for day in plan.days if day.manifest.day and _is_within(day.manifest.day, plan.window)]
    totals: Counter[str] = Counter()
    for manifest in inside:
        totals.update({name: count for name, count in manifest.counts.items() if not name.endswith("_max")})
    for name in {name for manifest in inside for name in manifest.counts if name.endswith("_max")}:
        totals[name] = max(manifest.counts.get(name, 0) for manifest in inside)
    if "served" in totals and plan.window.start.astimezone(UTC).time() == plan.window.end.astimezone(UTC).time() == time(0):
        reported = immature + sum(count for status, count in rows.items() if status not in NEVER_SERVED)
        totals["not_seen"] = totals["served"] - reported
    return dict(totals)


def _is_within(day: date, window: Window) -> bool:
    return day_of(window.start) <= day <= day_of(window.end - timedelta(microseconds=1))


def _refuse_unfit(plan: WindowPlan, result: IngestResult, config: IngestConfig) -> None:
    found, window = result.statistics, plan.window
    if not found["rows_read"]:
        raise _nothing(plan, result.watermark)
    if found["quarantine_share"] > config.max_quarantine_share:
        reasons = ", ".join(
            f"{key.removeprefix('quarantined.')} {count:.0f}" for key, count in found.items() if key.startswith("quarantined.")
        )
        raise RejectedError(
            f"window {window}: {found['quarantined']:.0f} of {found['rows_read']:.0f} rows are malformed ({reasons}), a share "
            f"of {found['quarantine_share']:.4f} > limit {config.max_quarantine_share:g}; repair the log, or raise "
            "ingest.max_quarantine_share"
        )
    if not result.rows:
        raise _nothing(plan, result.watermark)
    for label in plan.labels:
        if not found[f"positives.{label.name}"]:
            raise RejectedError(
                f"window {window}: label {label.name} has no positives in {result.rows} rows; expected at least one: use a "
                "longer window, or take the label out of the recipe"
            )


def _nothing(plan: WindowPlan, complete_until: datetime | None) -> RejectedError:
    base = plan.request.folder
    span = time_span(plan.request.source, base)
    has = "no impressions at all" if span is None else f"impressions from {iso(span[0])} to {iso(span[1])}"
    if complete_until is not None:
        has += f", complete in both parts until {iso(complete_until)}"
    return RejectedError(
        f"window {plan.window}: no valid impression in it; {base} has {has}: choose another --window-end or --data"
    )
