"""Which columns a run reads beside those of its own model."""

from __future__ import annotations

from tidewheel.ranker import OpenBundle
from tidewheel.steps.production import with_production


def test_columns_that_only_production_has_come_after_the_models_own(tiny_bundle: OpenBundle) -> None:
    user, segment, *others = tiny_bundle.manifest.features
    own = (user.model_copy(update={"id": 99, "num_buckets": 16}), *others)  # user_id under a new id, user_segment deprecated

    assert with_production(own, tiny_bundle) == (*own, segment)
    assert with_production(own, None) == own
