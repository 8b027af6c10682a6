"""What the step compares the data with."""

from __future__ import annotations

from tidewheel.contracts.evidence import Profile
from tidewheel.contracts.schema import FeatureSpec
from tidewheel.ranker import OpenBundle
from tidewheel.steps.validate_data import profile_of


def test_a_feature_that_is_no_longer_used_is_not_compared_with_production(tiny_bundle: OpenBundle, tmp_path) -> None:
    known = Profile(
        numeric_edges={"price": (1.0,), "old_price": (2.0,)},
        categorical_values={"tag": ("x",), "old_tag": ("y",)},
        shares={"price": (0.5, 0.5, 0.0), "old_price": (1.0, 0.0, 0.0), "tag": (1.0, 0.0, 0.0), "old_tag": (1.0, 0.0, 0.0)},
        label_rates={"click": 0.3},
        rows=10,
        effective_rows=10.0,
    )
    known.write(tmp_path / tiny_bundle.manifest.profile)
    production = OpenBundle(tmp_path, tiny_bundle.manifest, tiny_bundle.digest)
    used = tuple(
        FeatureSpec.model_validate({"id": number, "name": name, "kind": kind, "entity": "item"})
        for number, (name, kind) in enumerate({"price": "numeric", "tag": "vocabulary"}.items(), start=1)
    )

    found = profile_of(production, used)

    assert set(found.shares) == {"price", "tag"}
    assert (set(found.numeric_edges), set(found.categorical_values)) == ({"price"}, {"tag"})
    assert found.label_rates == known.label_rates
