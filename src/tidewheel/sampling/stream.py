"""The sampler as a stream over Parquet: some rows at a time, so memory does not grow with their number."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tidewheel.contracts.recipe import WindowConfig
from tidewheel.contracts.sampling import SampleConfig, SamplePlan
from tidewheel.contracts.schema import WEIGHT, label_column
from tidewheel.contracts.window import Window
from tidewheel.sampling.hash import uniform
from tidewheel.sampling.impressions import Impressions
from tidewheel.sampling.loader import SPLIT_COLUMNS, SPLITS, TRAIN, ArrowCounter, has_label, rates_of, rules_of, split_of
from tidewheel.sampling.plan import make_plan
from tidewheel.sampling.published import write_groups
from tidewheel.sampling.rules import columns_of
from tidewheel.sampling.tally import (
    WEIGHT_UNITS,
    RuleTally,
    Sampled,
    SplitResult,
    check_splits,
    rule_statistics,
    tally_rules,
    weight_units,
)

PARTS_AT_ONCE = 2  # threads, each with a part of its own: bounds memory
ROW_GROUP = 1 << 18


def sample(
    impressions: Path, config: SampleConfig, window_config: WindowConfig, window: Window, labels: Sequence[str], out: Path
) -> Sampled:
    """Write `out/{train,calibration,eval,randomized}/part-*.parquet`: the impressions' columns and `weight`.

    Rows of randomized requests are in `randomized` and nowhere else. Of the others, the last `eval_days` are `eval`; a
    share of the `calibration_days` before is `calibration`; the rest is `train`, where the plan selects. Rows of excluded
    groups are nowhere. Every row weighs 1 / (inclusion_probability x its rate), the rate being 1 outside `train`: train
    and calibration together estimate the totals of the days before `eval`, without the excluded groups.

    Each part is sorted by row key, and equal rows give equal files, whatever files they came in. Groups over a cap are
    written beside the training rows, for `tidewheel.sampling.published.read_groups`.

    Raises:
        ConfigError: a rule or cap names a column that the impressions do not have, or cannot compare.
        RejectedError: no row is left to train on, or none to evaluate on.
    """
    sampled, groups = _sample(Impressions(impressions), config, window_config, window, labels, out)
    write_groups(out / SPLITS[TRAIN], groups)
    return sampled


def preview(
    impressions: Path, config: SampleConfig, window_config: WindowConfig, window: Window, labels: Sequence[str]
) -> Sampled:
    """What `sample` would do; reads only the columns that decide, and writes nothing.

    Raises:
        ConfigError, RejectedError: as `sample`.
    """
    return _sample(Impressions(impressions), config, window_config, window, labels, None)[0]


def _sample(
    source: Impressions,
    config: SampleConfig,
    window_config: WindowConfig,
    window: Window,
    labels: Sequence[str],
    out: Path | None,
) -> tuple[Sampled, list[pa.Table]]:
    counter = ArrowCounter(source.schema, source.tables)
    plan = make_plan(config, window_config, window, labels, counter)
    groups = counter.groups(plan)
    with ThreadPoolExecutor(PARTS_AT_ONCE) as pool:
        parts = list(pool.map(lambda part: _sample_part(source, part, plan, groups, labels, out), range(source.num_parts)))
    rules = {rule.name: sum((part.rules[at] for part in parts), RuleTally()) for at, rule in enumerate(plan.rules)}
    splits = {split: _result([part.splits[at] for part in parts], labels) for at, split in enumerate(SPLITS)}
    splits["train"].statistics.update(rule_statistics(rules))
    check_splits(splits, window, window_config, plan)
    return Sampled(splits, plan, rules), groups


@dataclass
class _SplitCounts:
    seen: int = 0
    excluded: int = 0
    rows: int = 0
    units: int = 0
    positives: dict[str, int] = field(default_factory=dict)

    def add(self, judged: _Judged, split: int, chosen: np.ndarray, positives: Mapping[str, np.ndarray]) -> None:
        own = judged.split == split
        self.seen += int(np.count_nonzero(own))
        self.excluded += int(np.count_nonzero(own & judged.is_excluded))
        self.rows += int(np.count_nonzero(chosen))
        self.units += weight_units(judged.weight[chosen])
        for label, is_positive in positives.items():
            self.positives[label] = self.positives.get(label, 0) + int(np.count_nonzero(chosen & is_positive))


@dataclass
class _Part:
    splits: list[_SplitCounts]
    rules: list[RuleTally]


def _sample_part(
    source: Impressions, number: int, plan: SamplePlan, groups: Sequence[pa.Table], labels: Sequence[str], out: Path | None
) -> _Part:
    """Sample one part of the impressions into one part of each split."""
    part = _Part([_SplitCounts() for _ in SPLITS], [RuleTally() for _ in plan.rules])
    deciding = sorted({*columns_of(plan), *SPLIT_COLUMNS, *map(label_column, labels)})
    with ExitStack() as files:
        writers = []
        if out is not None:
            paths = [out / split / f"part-{number:05d}.parquet" for split in SPLITS]
            writers = [files.enter_context(_Writer(path, source.schema)) for path in paths]
        for table in source.part(number, deciding if out is None else source.schema.names):
            judged = _judge(table, plan, groups)
            part.rules = [before + now for before, now in zip(part.rules, judged.tallies(plan), strict=True)]
            positives = {label: has_label(table, label) for label in labels}
            for at, counts in enumerate(part.splits):
                chosen = judged.is_kept & (judged.split == at)
                counts.add(judged, at, chosen, positives)
                if writers:
                    rows = table.take(pa.array(np.flatnonzero(chosen)))  # half the time of filter
                    writers[at].write(rows.append_column(WEIGHT, pa.array(judged.weight[chosen])))
    return part


@dataclass(frozen=True)
class _Judged:
    """(N,) each: the split of a row, its rule, whether it is kept, and its weight if so, else 0."""

    split: np.ndarray
    rule: np.ndarray
    is_excluded: np.ndarray
    is_kept: np.ndarray
    weight: np.ndarray

    def tallies(self, plan: SamplePlan) -> list[RuleTally]:
        train = self.split == TRAIN
        return tally_rules(plan, self.rule[train], self.is_kept[train], self.weight[train & self.is_kept])


def _judge(table: pa.Table, plan: SamplePlan, groups: Sequence[pa.Table]) -> _Judged:
    split, rule = split_of(table, plan), rules_of(table, plan)
    rates = rates_of(table, plan, rule, groups)
    is_excluded = rates == 0.0
    rates[(split != TRAIN) & ~is_excluded] = 1.0
    is_kept = uniform(table["row_key"].to_numpy(), plan.salt) < rates
    probability = table["inclusion_probability"].to_numpy() * rates
    weight = np.divide(1.0, probability, out=np.zeros(table.num_rows), where=is_kept)
    return _Judged(split, rule, is_excluded, is_kept, weight)


def _result(parts: Sequence[_SplitCounts], labels: Sequence[str]) -> SplitResult:
    statistics = {"rows_seen": float(sum(part.seen for part in parts)), "excluded": float(sum(part.excluded for part in parts))}
    statistics |= {f"positives.{label}": float(sum(part.positives.get(label, 0) for part in parts)) for label in labels}
    return SplitResult(sum(part.rows for part in parts), sum(part.units for part in parts) / WEIGHT_UNITS, statistics)


class _Writer:
    """One Parquet file whose bytes depend on its rows alone: row groups of ROW_GROUP rows, however they come."""

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        # A dictionary of what hardly repeats costs time and saves nothing.
        unique = {"row_key", "request_id", "event_time"}
        repeats = [entry.name for entry in schema if entry.name not in unique and not pa.types.is_floating(entry.type)]
        schema = schema.append(pa.field(WEIGHT, pa.float64()))
        self._file = pq.ParquetWriter(path, schema, compression="zstd", use_dictionary=repeats)
        self._waiting: list[pa.Table] = []
        self._rows = 0

    def __enter__(self) -> _Writer:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None and self._rows:
            self._flush(self._rows)
        self._file.close()

    def write(self, rows: pa.Table) -> None:
        self._waiting.append(rows)
        self._rows += rows.num_rows
        while self._rows >= ROW_GROUP:
            self._flush(ROW_GROUP)

    def _flush(self, count: int) -> None:
        rows = pa.concat_tables(self._waiting)
        self._file.write_table(rows.slice(0, count).combine_chunks())
        self._waiting = [rows.slice(count)]
        self._rows -= count
