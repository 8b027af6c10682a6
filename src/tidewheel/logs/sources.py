"""Questions about a log that need no engine: which adapter reads it, may these be features, when does it begin and end."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from tidewheel.contracts.recipe import CounterConfig, LabelConfig, Source
from tidewheel.contracts.schema import DType, Entity, FeatureKind, FeatureSpec
from tidewheel.errors import ConfigError
from tidewheel.logs import hybrid, kuairand, parquet
from tidewheel.logs.adapter import Adapter, Request
from tidewheel.logs.files import column_statistics, footer, gone_columns, moment_of

ADAPTERS: dict[str, Adapter] = {
    "world": hybrid.WORLD,
    "hybrid": hybrid.ADAPTER,
    "kuairand": kuairand.ADAPTER,
    "parquet": parquet.ADAPTER,
}
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
        if feature.is_sequence:
            _check_sequence(feature, features, labels)
            continue
        if reason := roles.forbidden.get(feature.name):
            raise ConfigError(f"features: {feature.name} cannot be a feature: it {reason}; remove feature {feature.id}")
        if roles.features is not None and feature.name not in roles.features:
            known = sorted(roles.features | set(counted))
            raise ConfigError(f"features: {feature.name} is unknown to {place}; expected {_options(feature.name, known)}")


def still_readable(
    features: Sequence[FeatureSpec],
    more: Sequence[FeatureSpec],
    source: Source,
    labels: Sequence[LabelConfig],
    counters: CounterConfig,
    request: Request | None,
) -> tuple[FeatureSpec, ...]:
    """`features`, and those of `more` that the log still has: what it lacks of these is left out, not refused.

    Args:
        request: of the log's files, for all of them; None where the log is yet to be written.

    Raises:
        ConfigError, ContractError: as `check_features` for `features`; a file is truncated or not Parquet.
    """
    check_features(source, features, labels, counters)
    gone = gone_columns(ADAPTERS[source.kind].log_files(request)) if request and more else frozenset()
    kept = tuple(features)
    for feature in more:
        try:
            check_features(source, [*kept, feature], labels, counters)
        except ConfigError:
            continue
        if feature.name not in gone:
            kept = (*kept, feature)
    return kept


def _check_sequence(sequence: FeatureSpec, features: Sequence[FeatureSpec], labels: Sequence[LabelConfig]) -> None:
    """Ingest makes it from a column of the impressions, which must be read, and a label, which must be known."""
    names = [label.name for label in labels]
    if sequence.label and sequence.label not in names:
        raise ConfigError(f"features: {sequence.name} is of label {sequence.label}; expected {_options(sequence.label, names)}")
    hashed = [x.name for x in features if x.kind is FeatureKind.HASHED and x.entity is Entity.ITEM]
    if sequence.of not in hashed:
        raise ConfigError(f"features: {sequence.name} is of {sequence.of}; expected {_options(sequence.of, hashed)}")


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


def time_span(source: Source, base: Path) -> tuple[datetime, datetime] | None:
    """The first and the last impression time of the log (UTC), from its files' statistics alone; None where they have none.

    Raises:
        ConfigError: the folder is missing.
        ContractError: a file is truncated or not Parquet.
    """
    adapter = ADAPTERS[source.kind]
    column = adapter.time_column(source)
    files = adapter.log_files(Request(source, folder_of(source, base), None, (), ()))
    chunks = (chunk for file in files for chunk in column_statistics(footer(file.path), column))
    bounds = [value for chunk in chunks if chunk is not None and chunk.has_min_max for value in (chunk.min, chunk.max)]
    moments = [moment for moment in map(moment_of, bounds) if moment is not None]
    return (min(moments), max(moments)) if moments else None
