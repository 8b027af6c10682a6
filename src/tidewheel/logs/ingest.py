"""Ingest: a log becomes canonical impressions, quarantined rows and counters, all as Parquet."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tidewheel.contracts.recipe import CounterConfig, IngestConfig, LabelConfig, Source
from tidewheel.contracts.schema import KEY_COLUMNS, FeatureSpec, label_column
from tidewheel.contracts.window import Window, iso
from tidewheel.errors import ContractError, RejectedError
from tidewheel.logs.adapter import RAW, Adapter, Days, Request
from tidewheel.logs.cleaning import CONFLICTING_DUPLICATE, EXACT_DUPLICATE, STATUS, VALID, judge
from tidewheel.logs.counters import snapshot, with_counters
from tidewheel.logs.fitting import UNFIT_PREFIX
from tidewheel.logs.parts import write_parts
from tidewheel.logs.sources import ADAPTERS, check_features, check_files, counter_names, folder_of, time_span

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame, SparkSession

_EPOCH = date(1970, 1, 1)


@dataclass(frozen=True)
class IngestResult:
    """What came of the rows of the window.

    Attributes:
        rows: impressions written.
        randomized_rows: those of randomized requests.
        weight_sum: sum of 1 / inclusion_probability, the impressions that the log stands for.
        statistics: `rows_read` = rows + `exact_duplicates` + `conflicting_duplicates` + `quarantined`, of the window; rows
            without a time count as the window's. `quarantine_share` = quarantined / rows_read, `quarantined.<reason>` one a
            reason, `positives.<label>`, `unfit.<feature>` (values that did not fit in its type and became null),
            `history_rows` (valid rows of the days before, seen by the counters only) and `history_malformed` (not seen by
            anything).
    """

    rows: int
    randomized_rows: int
    weight_sum: float
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
) -> IngestResult:
    """Write `out/impressions`, `out/quarantine` and `out/counters` from the log of one window.

    Only impressions of the window come out; those of the `lookback_days` before it are counted. Malformed rows of the
    window stand in `quarantine` with `reason` and `row`, the log's row as JSON. `counters` is the snapshot as of the day
    of `window.end`. The same log gives the same bytes.

    Raises:
        ConfigError: the data folder is missing; a feature or label is not what `check_features` allows.
        ContractError: a file is broken or lacks a column.
        RejectedError: no impression in the window, a label without positives, or too many malformed rows.
    """
    check_features(source, features, labels, config.counters)
    adapter = ADAPTERS[source.kind]
    days = Days(
        window.start.astimezone(UTC).date() - timedelta(days=config.counters.lookback_days),
        (window.end.astimezone(UTC) - timedelta(microseconds=1)).date() + timedelta(days=1),
    )
    counted = counter_names(config.counters)
    raw_features = [feature for feature in features if feature.name not in counted]
    names = tuple(label.name for label in labels)
    request = Request(source, folder_of(source, base), days, names, tuple(feature.name for feature in raw_features))
    staged_folder = out / "partial"
    with _engine_faults_named(request.folder):
        try:
            staged = _stage(spark, adapter, request, raw_features, window, staged_folder)
            result = _assess(staged, source, labels, config, window, base)
            _write(staged, labels, features, config.counters, window, out, result)
        finally:
            shutil.rmtree(staged_folder, ignore_errors=True)
    return result


def _stage(
    spark: SparkSession, adapter: Adapter, request: Request, features: Sequence[FeatureSpec], window: Window, folder: Path
) -> DataFrame:
    """Judge the rows once and keep them as Parquet: statistics, counters and impressions all read them again."""
    from pyspark.sql import functions as F

    files = adapter.log_files(request)
    if not files:
        raise _nothing(request.source, window, request.folder)
    check_files((*files, *adapter.side_tables(request)))
    assert request.days is not None
    rows = adapter.read(spark, request, [file.path for file in files])
    first, end = (F.lit((day - _EPOCH).days) for day in (request.days.first, request.days.end))
    judged = judge(rows, request.labels, features)
    judged = judged.filter(F.col("day").isNull() | ((F.col("day") >= first) & (F.col("day") < end)))
    judged.withColumn("place", _place(window)).write.mode("overwrite").parquet(folder.as_posix())
    written = sorted(folder.glob("*.parquet"))
    if not written:
        raise _nothing(request.source, window, request.folder)
    return spark.read.parquet(*(path.as_posix() for path in written))


def _place(window: Window) -> Column:
    """`window` (also without a time), `before` or `after`."""
    from pyspark.sql import functions as F

    start, end = (F.timestamp_micros(F.lit(_microseconds(moment)).cast("bigint")) for moment in (window.start, window.end))
    time = F.col("event_time")
    return F.when(time < start, F.lit("before")).when(time >= end, F.lit("after")).otherwise(F.lit("window"))


def _microseconds(moment: datetime) -> int:
    return (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)


def _assess(
    staged: DataFrame, source: Source, labels: Sequence[LabelConfig], config: IngestConfig, window: Window, base: Path
) -> IngestResult:
    """Count the staged rows in one pass and refuse what is unfit."""
    result = _count(staged, labels)
    found = result.statistics
    if not found["rows_read"]:
        raise _nothing(source, window, base)
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
        raise _nothing(source, window, base)
    for label in labels:
        if not found[f"positives.{label.name}"]:
            raise RejectedError(
                f"window {window}: label {label.name} has no positives in {result.rows} rows; expected at least one: use a "
                "longer window, or take the label out of the recipe"
            )
    return result


def _count(staged: DataFrame, labels: Sequence[LabelConfig]) -> IngestResult:
    from pyspark.sql import functions as F

    weight = (F.lit(1.0) / F.col("inclusion_probability")).cast("decimal(28,9)")
    positives = [F.sum(F.col(label_column(label.name)).cast("bigint")).alias(label.name) for label in labels]
    randomized = F.sum(F.col("is_randomized").cast("bigint")).alias("randomized")
    # A malformed row may have any inclusion probability, 0 too.
    weights = F.sum(F.when(F.col(STATUS) == VALID, weight)).alias("weight_sum")
    marks = [name for name in staged.columns if name.startswith(UNFIT_PREFIX)]
    unfit = [F.sum(F.col(name).cast("bigint")).alias(name) for name in marks]
    groups = (
        staged.groupBy("place", STATUS).agg(F.count(F.lit(1)).alias("rows"), randomized, weights, *positives, *unfit).collect()
    )
    here: dict[str, Any] = {row[STATUS]: row for row in groups if row["place"] == "window"}
    counts = {status: int(row["rows"]) for status, row in sorted(here.items())}
    valid = here.get(VALID)
    known = (VALID, EXACT_DUPLICATE, CONFLICTING_DUPLICATE)
    read, malformed = sum(counts.values()), sum(count for status, count in counts.items() if status not in known)
    statistics = {
        "rows_read": read,
        "exact_duplicates": counts.get(EXACT_DUPLICATE, 0),
        "conflicting_duplicates": counts.get(CONFLICTING_DUPLICATE, 0),
        "quarantined": malformed,
        "quarantine_share": malformed / read if read else 0.0,
        **{f"quarantined.{status}": count for status, count in counts.items() if status not in known},
        **{f"positives.{label.name}": int(valid[label.name] or 0) if valid else 0 for label in labels},
        **{f"unfit.{name.removeprefix(UNFIT_PREFIX)}": int(valid[name] or 0) if valid else 0 for name in marks},
        "history_rows": sum(row["rows"] for row in groups if row["place"] == "before" and row[STATUS] == VALID),
        "history_malformed": sum(row["rows"] for row in groups if row["place"] == "before" and row[STATUS] not in known),
    }
    numbers = {name: float(value) for name, value in statistics.items()}
    if valid is None:
        return IngestResult(0, 0, 0.0, numbers)
    return IngestResult(int(valid["rows"]), int(valid["randomized"]), float(valid["weight_sum"]), numbers)


def _write(
    staged: DataFrame,
    labels: Sequence[LabelConfig],
    features: Sequence[FeatureSpec],
    config: CounterConfig,
    window: Window,
    out: Path,
    result: IngestResult,
) -> None:
    from pyspark.sql import functions as F

    priors = {label.name: label.prior for label in labels}
    history = staged.filter((F.col(STATUS) == VALID) & (F.col("place") != "after"))
    rows = with_counters(history.filter(F.col("place") == "window"), history, config, priors)
    columns = dict.fromkeys((*KEY_COLUMNS, *(label_column(label.name) for label in labels), *(x.name for x in features)))
    order = ("row_key", "event_time", "request_id", "item_id", "user_id")
    write_parts(rows.select(*columns), out / "impressions", "row_key", order, result.rows)
    end = (window.end.astimezone(UTC).date() - _EPOCH).days
    num_history = result.rows + int(result.statistics["history_rows"])
    write_parts(snapshot(history, end, config, priors), out / "counters", "key", ("entity", "key"), num_history)
    is_malformed = ~F.col(STATUS).isin(VALID, EXACT_DUPLICATE, CONFLICTING_DUPLICATE)
    malformed = staged.filter(is_malformed & (F.col("place") == "window"))
    shown = malformed.select(F.col(STATUS).alias("reason"), F.col(RAW).alias("row"), F.xxhash64(RAW).alias("row_hash"))
    num_malformed = int(result.statistics["quarantined"])
    write_parts(shown, out / "quarantine", "row_hash", ("reason", "row"), num_malformed)


def _nothing(source: Source, window: Window, base: Path) -> RejectedError:
    span = time_span(source, base)
    has = "no impressions at all" if span is None else f"impressions from {iso(span[0])} to {iso(span[1])}"
    return RejectedError(f"window {window}: no valid impression in it; {base} has {has}: choose another --window-end or --data")


@contextmanager
def _engine_faults_named(folder: Path) -> Iterator[None]:
    """The engine's exceptions carry stack traces and no file name; its users need one line."""
    from pyspark.errors import PySparkException

    try:
        yield
    except PySparkException as error:
        fault = str(error).strip().splitlines()[0]
        raise ContractError(f"{folder}: the log cannot be read ({fault}); restore its files or correct the recipe") from error
