"""Whether an earlier bundle can teach on these rows, and whether it should: what a ledger alone cannot say."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.dataset as pads

from tidewheel.contracts.schema import WEIGHT, FeatureSpec, feature_columns, label_column
from tidewheel.evaluation.intervals import SHARE, Users, interval
from tidewheel.evaluation.metrics import auc
from tidewheel.ranker.bundle import OpenBundle
from tidewheel.ranker.columns import columns_of
from tidewheel.ranker.scorer import Scorer

MAX_ROWS = 100_000  # rows lie in the order of a hash: the first ones are a sample
MIN_OF_A_CLASS = 50  # rows with and without the label, under which nothing is said


def misfit_of(teacher: OpenBundle, features: Sequence[FeatureSpec], labels: Sequence[str]) -> str | None:
    """Why a bundle cannot teach a model of these features and labels, or None.

    The model may have features that the teacher does not know, and common labels are enough. What the teacher takes must still
    be allowed: a feature is deprecated because it is not to be trusted or will be gone.
    """
    ids = {feature.name: feature.id for feature in features}
    wanted = teacher.manifest.features
    if missing := [feature.name for feature in wanted if feature.name not in ids]:
        return f"it takes {', '.join(missing)}, which this recipe does not allow"
    if renamed := [feature.name for feature in wanted if feature.id != ids[feature.name]]:
        return f"{', '.join(renamed)} has another id in its features: another meaning"
    if not set(labels) & set(teacher.manifest.labels):
        return f"it knows {', '.join(teacher.manifest.labels)}, none of {', '.join(labels)}"
    return None


def disagreement_of(teacher: OpenBundle, rows: pa.Table, labels: Sequence[str], min_auc: float) -> str | None:
    """The first label on which a teacher ranks randomized rows surely worse than `min_auc`, with its numbers, or None.

    Randomized rows are the ones that no earlier model chose: a teacher cannot look good on them by having chosen. The AUC is
    weighted, its 95% interval over users. Labels with too few rows of a class are not judged.

    Args:
        rows: with the teacher's features, `user_id`, `weight` and the labels.
    """
    if not rows.num_rows:
        return None
    scores = Scorer(teacher, threads=2).logits(columns_of(rows, teacher.manifest.features))
    users = Users.of(rows["user_id"].to_numpy())
    weight = rows[WEIGHT].to_numpy().astype(np.float64)
    for label in [label for label in labels if label in scores]:
        happened = rows[label_column(label)].to_numpy()
        if min((happened == 1).sum(), (happened == 0).sum()) < MIN_OF_A_CLASS:
            continue
        area = auc(scores[label], happened, weight)
        lower, upper = interval(area, users, SHARE)
        if upper < min_auc:
            found = f"{area.value:.3f} in [{lower:.3f}, {upper:.3f}]"
            return f"its AUC of {label} on this window's randomized rows is {found}, limit {min_auc:g}"
    return None


def randomized_rows(folder: Path, teacher: OpenBundle, labels: Sequence[str]) -> pa.Table:
    """At most `MAX_ROWS` rows of a split, with what `disagreement_of` looks at."""
    wanted = {"user_id", WEIGHT, *map(label_column, labels), *feature_columns(teacher.manifest.features)}
    paths = sorted(path.as_posix() for path in folder.rglob("*.parquet"))
    return pads.dataset(paths, format="parquet").head(MAX_ROWS, columns=sorted(wanted))
