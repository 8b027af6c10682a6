"""What production takes, and what rows can give it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from tidewheel.contracts.schema import FeatureSpec
from tidewheel.ranker.bundle import OpenBundle

if TYPE_CHECKING:
    import pyarrow as pa


def with_production(features: tuple[FeatureSpec, ...], bundle: OpenBundle | None) -> tuple[FeatureSpec, ...]:
    """The model's features, then those that only production has: deprecated since, and needed while it is compared with."""
    own = {feature.name for feature in features}
    return features + tuple(f for f in (bundle.manifest.features if bundle else ()) if f.name not in own)


def missing_features(bundle: OpenBundle, features: Sequence[FeatureSpec], rows: pa.Table) -> tuple[str, ...]:
    """What a bundle takes and these rows cannot give: no column, one without any value, or one that means something else now.

    Args:
        features: of the new model. A feature that it shares with the bundle is what it is, however empty; only of the bundle's
            own nobody else notices that the log stopped writing it.
    """
    known = {feature.name: feature for feature in features}
    return tuple(
        feature.name
        for feature in bundle.manifest.features
        if any(name not in rows.column_names for name in feature.columns)
        or (feature.name in known and _meaning(known[feature.name]) != _meaning(feature))
        or (feature.name not in known and any(rows[name].null_count == len(rows) for name in feature.columns))
    )


def without(rows: pa.Table, bundle: OpenBundle, missing: Sequence[str]) -> pa.Table:
    """The rows with null in the columns of these features of the bundle."""
    import pyarrow as pa

    for feature in bundle.manifest.features:
        if feature.name in missing:
            of_values = pa.type_for_alias(feature.dtype.value)
            kind = pa.list_(of_values) if feature.is_sequence else of_values
            rows = rows.drop_columns([name for name in feature.columns if name in rows.column_names])
            for name in feature.columns:
                rows = rows.append_column(name, pa.nulls(len(rows), kind))
    return rows


def _meaning(feature: FeatureSpec) -> tuple[object, ...]:
    """What of a feature has to agree for a column to serve two models: each of them transforms and hashes as it likes."""
    return feature.id, feature.kind, feature.dtype, feature.of, feature.label, feature.length
