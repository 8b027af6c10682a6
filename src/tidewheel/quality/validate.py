"""Whether the data may be trained on: contract, separation of the splits, drift against production."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pyarrow as pa

from tidewheel.contracts.evidence import Profile
from tidewheel.contracts.progress import Progress, silent
from tidewheel.contracts.recipe import LabelConfig, ValidateConfig
from tidewheel.contracts.schema import FeatureSpec
from tidewheel.contracts.verdict import Phase, Reason, Verdict, combine
from tidewheel.quality.drift import drift, unknown_features
from tidewheel.quality.profile import profile, profile_on
from tidewheel.quality.separation import separation

REQUIRED_SPLITS = ("train", "eval", "calibration")


def validate(
    splits: Mapping[str, pa.Table],
    features: Sequence[FeatureSpec],
    labels: Sequence[LabelConfig],
    config: ValidateConfig,
    baseline: Profile | None,
    progress: Progress = silent,
) -> tuple[Verdict, Profile]:
    """Judge the splits of one run, and profile the rows that the model will learn from.

    Args:
        splits: `train`, `eval` and `calibration`, which must be there; others (`randomized`) are checked where they hold rows.
        baseline: what production was trained on, None before the first release.

    Returns:
        The verdict, never an exception on data, and the profile of `train` in bins of its own: the next baseline.
    """
    from tidewheel.quality.expectations import check  # seconds to import: only where it is used

    reasons: list[Reason] = []
    for name in REQUIRED_SPLITS:
        if name not in splits:
            reasons.append(Reason(check=f"split {name}", phase=Phase.FAILED, message=f"{name}: this split is missing"))
    for done, (name, table) in enumerate(splits.items()):
        progress(0.1 + 0.7 * done / len(splits), f"expectations of {name}")
        if table.num_rows or name in REQUIRED_SPLITS:
            reasons += check(name, table, features, labels, config)
    reasons += separation(splits)
    progress(0.8, "drift")
    train = splits.get("train", pa.table({}))
    names = [label.name for label in labels]
    found = profile(train, features, names)
    if baseline is None:
        message = "no production yet: nothing to compare the data with"
        reasons.append(Reason(check="drift", phase=Phase.SUCCESSFUL, message=message))
    else:
        reasons += drift(profile_on(train, baseline, names), baseline, config)
        reasons += unknown_features(baseline, [feature.name for feature in features])
    progress(1.0, "judged")
    return combine(reasons), found
