"""Which columns a run reads beside those of its own model."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from tidewheel.ranker import OpenBundle
from tidewheel.ranker.columns import columns_of
from tidewheel.ranker.scorer import Scorer
from tidewheel.steps.production import missing_features, with_production, without


def test_columns_that_only_production_has_come_after_the_models_own(tiny_bundle: OpenBundle) -> None:
    user, segment, *others = tiny_bundle.manifest.features
    own = (user.model_copy(update={"id": 99, "num_buckets": 16}), *others)  # user_id under a new id, user_segment deprecated

    assert with_production(own, tiny_bundle) == (*own, segment)
    assert with_production(own, None) == own


def rows_for(bundle: OpenBundle, count: int = 5) -> pa.Table:
    columns = {}
    for feature in bundle.manifest.features:
        kind = pa.type_for_alias(feature.dtype.value)
        columns[feature.name] = pa.array([1] * count).cast(kind) if kind != pa.string() else pa.array(["a"] * count)
    return pa.table(columns)


def test_a_feature_is_missing_without_a_column_without_a_value_or_with_another_meaning(tiny_bundle: OpenBundle) -> None:
    features, rows = tiny_bundle.manifest.features, rows_for(tiny_bundle)
    first, second, *_ = (feature.name for feature in features)

    assert missing_features(tiny_bundle, features, rows) == ()
    assert missing_features(tiny_bundle, features, rows.drop_columns([first])) == (first,)
    other_meaning = (features[0].model_copy(update={"id": 99}), *features[1:])
    assert missing_features(tiny_bundle, other_meaning, rows) == (first,)
    empty = rows.set_column(rows.column_names.index(second), second, pa.nulls(5, rows[second].type))
    not_the_models = tuple(feature for feature in features if feature.name != second)
    assert missing_features(tiny_bundle, not_the_models, empty) == (second,)
    assert missing_features(tiny_bundle, features, empty) == ()  # the new model has to live with that as well


def test_buckets_and_transforms_of_a_feature_are_each_models_own(tiny_bundle: OpenBundle) -> None:
    features = tuple(
        feature.model_copy(update={"num_buckets": 7}) if feature.num_buckets else feature
        for feature in tiny_bundle.manifest.features
    )
    assert missing_features(tiny_bundle, features, rows_for(tiny_bundle)) == ()


def test_a_bundle_scores_rows_without_any_of_its_features_as_if_they_were_null(tiny_bundle: OpenBundle) -> None:
    features, rows = tiny_bundle.manifest.features, rows_for(tiny_bundle)
    for feature in features:
        given = without(rows.drop_columns([feature.name]), tiny_bundle, (feature.name,))
        scores = Scorer(tiny_bundle).score(columns_of(given, features))
        assert all(np.isfinite(found).all() and len(found) == 5 for found in scores.values())
        replaced = without(rows, tiny_bundle, (feature.name,))  # the column that means something else now is not read
        for label, found in Scorer(tiny_bundle).score(columns_of(replaced, features)).items():
            assert (found == scores[label]).all()
