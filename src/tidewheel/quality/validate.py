"""Whether the data may be trained on: contract, separation of the splits, the window beside others, drift from production."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pyarrow as pa

from tidewheel.contracts.evidence import Comparison, DataReport, Profile, WindowRecord
from tidewheel.contracts.progress import Progress, silent
from tidewheel.contracts.recipe import LabelConfig, ValidateConfig
from tidewheel.contracts.schema import FeatureSpec
from tidewheel.contracts.verdict import Phase, Reason, combine
from tidewheel.contracts.window import Window
from tidewheel.quality.calibration import calibration
from tidewheel.quality.drift import drift, num_comparisons, unknown_features
from tidewheel.quality.profile import profile, profile_on
from tidewheel.quality.rows import ParquetRows, Rows
from tidewheel.quality.separation import separation
from tidewheel.quality.severity import graded
from tidewheel.quality.trailing import ranges, window_record

if TYPE_CHECKING:
    from tidewheel.quality.spark import Engine

_NO_ROWS = pa.table({})
REQUIRED_SPLITS = ("train", "eval", "calibration")


class Past(NamedTuple):
    """What a window is compared with: production's profile, its probabilities, and earlier windows that passed.

    `scores` gives production's probabilities on the rows of `eval`, label -> (B,); asked only if these keep the contract.
    """

    baseline: Profile | None = None
    scores: Callable[[], Mapping[str, np.ndarray]] | None = None
    trailing: Sequence[WindowRecord] = ()


def validate(
    splits: Mapping[str, Rows],
    features: Sequence[FeatureSpec],
    labels: Sequence[LabelConfig],
    config: ValidateConfig,
    window: Window,
    past: Past,
    progress: Progress = silent,
    engine: Engine | None = None,
) -> tuple[DataReport, Profile]:
    """Judge the splits of one run, and profile the rows that the model will learn from.

    Args:
        splits: `train`, `eval` and `calibration`, which must be there; others (`randomized`) are checked where they hold rows.
        engine: opens the Spark of splits above `spark_above_rows`; None: one on this machine.

    Returns:
        What was found, never an exception on data, and the profile of `train` in bins of its own: the next baseline.

    Raises:
        ConfigError: a split is to be checked on Spark and there is no Java.
    """
    reasons = [
        Reason(check=f"split {name}", phase=Phase.FAILED, message=f"{name}: this split is missing")
        for name in REQUIRED_SPLITS
        if name not in splits
    ]
    reasons += _expectations(splits, features, labels, config, progress, engine)
    is_sound = all(reason.phase is Phase.SUCCESSFUL for reason in reasons)
    reasons += separation(splits)
    progress(0.7, "profile")
    names = [label.name for label in labels]
    train = splits.get("train", _NO_ROWS)
    own = profile(train, features, names)
    record = window_record(window, splits, own)
    from tidewheel.quality.expectations import check_window

    reasons += check_window(ranges(record, past.trailing, config))
    progress(0.8, "drift")
    shown = own
    comparisons: list[Comparison] = []
    if past.baseline is None:
        message = "no production yet: nothing to compare the data with"
        reasons.append(Reason(check="drift", phase=Phase.SUCCESSFUL, message=message))
    else:
        scores = past.scores() if past.scores is not None and is_sound else {}
        if past.scores is not None and not scores:
            message = (
                "calibration: production did not score the held-out rows, which break the contract or lack a feature of it"
            )
            reasons.append(Reason(check="calibration", phase=Phase.INCONCLUSIVE, message=message))
        shown = profile_on(train, past.baseline, names)
        held_out = splits.get("eval", _NO_ROWS)
        compared, comparisons = against_production(shown, past.baseline, held_out, scores, names, config)
        reasons += [*compared, *unknown_features(past.baseline, [feature.name for feature in features])]
    progress(1.0, "judged")
    report = DataReport(
        verdict=combine(graded(reasons, config.severity)),
        window=record,
        trailing=tuple(past.trailing),
        comparisons=tuple(comparisons),
        profile=shown,
        baseline=past.baseline,
    )
    return report, own


def against_production(
    new: Profile,
    baseline: Profile,
    held_out: Rows,
    scores: Mapping[str, np.ndarray],
    labels: Sequence[str],
    config: ValidateConfig,
) -> tuple[list[Reason], list[Comparison]]:
    """Every comparison of a run, its false-alarm rate shared out equally among them (Bonferroni).

    Args:
        new: this window's training rows in the bins of `baseline`.
        scores: production's probabilities on `held_out`, label -> (B,).
    """
    level = config.false_alarm_rate / (num_comparisons(baseline) + 2 * len(labels))
    drifted, moved = drift(new, baseline, config, level)
    calibrated, measured = calibration(held_out, scores, labels, config, level)
    return drifted + calibrated, moved + measured


def _expectations(
    splits: Mapping[str, Rows],
    features: Sequence[FeatureSpec],
    labels: Sequence[LabelConfig],
    config: ValidateConfig,
    progress: Progress,
    engine: Engine | None,
) -> list[Reason]:
    """The generated suite on every split, on Spark where a split has more rows than the recipe leaves to this process."""
    from tidewheel.quality.expectations import check, library  # seconds to import: only where it is used

    reasons: list[Reason] = []
    library(with_spark=any(is_for_spark(rows, config) for rows in splits.values()))
    with ExitStack() as engines:
        spark = None
        for done, (name, rows) in enumerate(splits.items()):
            progress(0.1 + 0.6 * done / len(splits), f"expectations of {name}")
            if not rows.num_rows and name not in REQUIRED_SPLITS:
                continue
            frame = None
            if isinstance(rows, ParquetRows) and is_for_spark(rows, config):
                from tidewheel.quality import spark as door

                spark = spark or engines.enter_context((engine or door.local_session)())
                frame = door.frame(spark, rows.paths, rows.column_names)
            reasons += check(name, rows, features, labels, config, frame)
    return reasons


def is_for_spark(rows: Rows, config: ValidateConfig) -> bool:
    """More rows than this process should check; rows in memory are here already."""
    return isinstance(rows, ParquetRows) and rows.num_rows > config.spark_above_rows
