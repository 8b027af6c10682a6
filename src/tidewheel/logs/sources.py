"""Questions about a log that need no engine: which adapter reads it, may these be features, is every file whole."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tidewheel.contracts.recipe import CounterConfig, LabelConfig, Source
from tidewheel.contracts.schema import DType, Entity, FeatureSpec
from tidewheel.errors import ConfigError, ContractError
from tidewheel.logs import kuairand, parquet, world
from tidewheel.logs.adapter import Adapter, LogFile, Request

if TYPE_CHECKING:
    from pyarrow.parquet import FileMetaData

ADAPTERS: dict[str, Adapter] = {"world": world.ADAPTER, "kuairand": kuairand.ADAPTER, "parquet": parquet.ADAPTER}
COUNTED = (Entity.USER.value, Entity.ITEM.value, "author")


def counter_names(config: CounterConfig) -> tuple[str, ...]:
    """Names of the as-of counters, e.g. `user_click_rate` and `user_impressions`."""
    return tuple(f"{entity}_{what}" for entity in COUNTED for what in (*(f"{x}_rate" for x in config.labels), "impressions"))


def check_features(
    source: Source,
    features: Sequence[FeatureSpec],
    labels: Sequence[LabelConfig],
    counters: CounterConfig | None = None,
) -> None:
    """Every label exists in the log, and every feature is known before the impression. Needs neither data nor engine.

    What columns a Parquet log has is only known from its data: there, this refuses what the recipe calls an outcome or
    the future, and reading the data the rest. Without `counters`, counters of any of the labels are features.

    Raises:
        ConfigError: a feature is an outcome, looks into the future or is unknown; a label is unknown.
    """
    place = f"source {source.kind}"
    roles = ADAPTERS[source.kind].roles(source)
    for label in labels:
        if label.name not in roles.labels:
            raise ConfigError(f"labels: {label.name} is unknown to {place}; expected {_options(label.name, roles.labels)}")
    counted = counter_names(counters or CounterConfig(labels=tuple(label.name for label in labels)))
    for feature in features:
        if feature.name in counted:
            if feature.dtype is not DType.FLOAT64:
                raise ConfigError(f"features: {feature.name} is a counter and float64; found dtype {feature.dtype.value}")
            continue
        if reason := roles.forbidden.get(feature.name):
            raise ConfigError(f"features: {feature.name} cannot be a feature: it {reason}; remove feature {feature.id}")
        if roles.features is not None and feature.name not in roles.features:
            known = sorted(roles.features | set(counted))
            raise ConfigError(f"features: {feature.name} is unknown to {place}; expected {_options(feature.name, known)}")


def _options(wrong: str, known: Sequence[str] | Any) -> str:
    options = ", ".join(sorted(known))
    near = difflib.get_close_matches(wrong, known, n=1)
    return f"one of {options}" + (f". Did you mean {near[0]}?" if near else "")


def folder_of(source: Source, base: Path) -> Path:
    """The log's folder, `base` itself: whoever resolves the recipe has joined `source.path` and `--data` already.

    Raises:
        ConfigError: there is no such folder.
    """
    if not base.is_dir():
        raise ConfigError(f"data folder {base}: not found; expected the folder of the {source.kind} log, give it with --data")
    return base


def check_files(files: Sequence[LogFile]) -> None:
    """Every file is whole Parquet with the columns that will be read.

    Only footers are read, so that a broken file is named before an engine starts on it.

    Raises:
        ContractError: a file is missing, truncated, not Parquet or lacks a column; the message names both.
    """
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    for file in files:
        footer = _footer(file.path)
        found = set(footer.schema.to_arrow_schema().names)
        if missing := sorted(file.columns - found):
            shown = ", ".join(missing)
            raise ContractError(
                f"{file.path}: no column {shown}; found {', '.join(sorted(found))}; correct the recipe or the file"
            )
        if file.unique is not None:
            keys = pq.read_table(file.path, columns=[file.unique])[file.unique]
            if repeated := len(keys) - pc.count_distinct(keys, mode="all").as_py():
                raise ContractError(f"{file.path}: {file.unique} repeats in {repeated} rows; expected one row each")


def time_span(source: Source, base: Path) -> tuple[datetime, datetime] | None:
    """The first and the last impression time of the log (UTC), from its files' statistics alone; None where they have none.

    Raises:
        ConfigError: the folder is missing.
        ContractError: a file is truncated or not Parquet.
    """
    adapter = ADAPTERS[source.kind]
    column = adapter.time_column(source)
    files = adapter.log_files(Request(source, folder_of(source, base), None, (), ()))
    bounds = [bound for file in files for bound in _bounds(_footer(file.path), column)]
    return (min(bounds), max(bounds)) if bounds else None


def _footer(path: Path) -> FileMetaData:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.read_metadata(path)
    except FileNotFoundError:
        raise ContractError(f"{path}: not found; expected a Parquet file") from None
    except (pa.ArrowException, OSError) as error:
        fault = str(error).splitlines()[0].rstrip(".")
        raise ContractError(f"{path}: not a whole Parquet file ({fault}); restore it") from error


def _bounds(footer: FileMetaData, column: str) -> list[datetime]:
    names = [footer.schema.column(index).path for index in range(footer.num_columns)]
    if column not in names:
        return []
    chunks = (footer.row_group(group).column(names.index(column)).statistics for group in range(footer.num_row_groups))
    moments = (
        _moment(value) for chunk in chunks if chunk is not None and chunk.has_min_max for value in (chunk.min, chunk.max)
    )
    return [moment for moment in moments if moment is not None]


def _moment(value: Any) -> datetime | None:
    if isinstance(value, datetime):
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)
    if isinstance(value, int) and not isinstance(value, bool):
        return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=value)
    return None
